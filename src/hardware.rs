//! What the device is: the model and the driver that a number belongs to.

use std::{fs, process::Command};

use crate::device::Compute;

/// The model of a device, as far as the system tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// `NVIDIA H200`, or the device's name in this program where nothing better is known.
    pub name: String,
    /// Version of the driver.
    pub driver: Option<String>,
    /// Bytes of device memory that nobody uses.
    pub free_memory: Option<u64>,
}

impl Hardware {
    /// Asks `nvidia-smi` about a CUDA device, `/proc/cpuinfo` about a CPU. Where it cannot tell which of several
    /// different cards CUDA means, it says nothing of the card.
    pub fn of(compute: &Compute) -> Self {
        let unknown = || Self { name: compute.name.clone(), driver: None, free_memory: None };
        let (kind, index) = compute.name.split_once(':').unwrap_or((&compute.name, "0"));
        match kind {
            "cuda" => nvidia(index).unwrap_or_else(unknown),
            "cpu" => cpu().unwrap_or_else(unknown),
            _ => unknown(),
        }
    }
}

fn nvidia(index: &str) -> Option<Hardware> {
    let variable = |name| std::env::var(name).ok();
    let card = Card::visible(index.parse().ok()?, variable("CUDA_VISIBLE_DEVICES").as_deref())?;
    let bus_order = variable("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID");
    let query = "--query-gpu=index,uuid,name,driver_version,memory.free";
    let output = Command::new("nvidia-smi").args([query, "--format=csv,noheader,nounits"]).output().ok()?;
    card.find(&String::from_utf8(output.stdout).ok()?, bus_order)
}

/// A card as CUDA_VISIBLE_DEVICES names it.
#[derive(Debug, PartialEq, Eq)]
enum Card {
    /// By its place among all cards.
    Index(usize),
    /// By its UUID or the beginning of it.
    Uuid(String),
}

impl Card {
    /// The card that is CUDA's device `index`, if this process sees cards `visible` only. Nothing after an entry that
    /// names no card is visible.
    fn visible(index: usize, visible: Option<&str>) -> Option<Self> {
        let Some(visible) = visible else {
            return Some(Self::Index(index));
        };
        let cards = visible.split(',').map(|entry| match entry.trim() {
            uuid if uuid.starts_with("GPU-") => Some(Self::Uuid(uuid.to_owned())),
            number => number.parse().ok().map(Self::Index),
        });
        cards.map_while(|card| card).nth(index)
    }

    /// The line of `nvidia-smi` that speaks of this card. It counts cards by their place on the bus, CUDA the fastest
    /// first unless it is told otherwise: of different cards a number then says nothing.
    fn find(&self, lines: &str, bus_order: bool) -> Option<Hardware> {
        let rows: Option<Vec<[&str; 5]>> =
            (lines.lines()).map(|line| line.split(", ").map(str::trim).collect::<Vec<_>>().try_into().ok()).collect();
        let rows = rows?;
        let equal = rows.iter().all(|row| row[2] == rows[0][2]);
        let row = rows.iter().find(|[index, uuid, ..]| match self {
            Self::Index(number) => (equal || bus_order) && index.parse() == Ok(*number),
            Self::Uuid(start) => uuid.starts_with(start.as_str()),
        });
        let [_, _, name, driver, free] = row?;
        Some(Hardware {
            name: (*name).into(),
            driver: Some((*driver).into()),
            free_memory: free.parse().ok().map(|mib: u64| mib << 20),
        })
    }
}

fn cpu() -> Option<Hardware> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    let model = line.split_once(':')?.1.trim();
    Some(Hardware {
        name: format!("{model} ({} threads)", rayon::current_num_threads()),
        driver: None,
        free_memory: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_the_one_that_cuda_means() {
        let equal = "0, GPU-aa, NVIDIA H200, 580.1, 143167\n1, GPU-bb, NVIDIA H200, 580.1, 100\n\
                     2, GPU-cc, NVIDIA H200, 580.1, 200\n";
        let mixed = "0, GPU-aa, NVIDIA T4, 580.1, 100\n1, GPU-bb, NVIDIA H100, 580.1, 200\n";
        for (index, visible, lines, bus_order, free) in [
            (0, None, equal, false, Some(143_167)),
            (2, None, equal, false, Some(200)),
            (3, None, equal, false, None),
            (0, Some("2"), equal, false, Some(200)),
            (1, Some("2, 0"), equal, false, Some(143_167)),
            (1, Some("2"), equal, false, None),
            (0, Some(""), equal, false, None),
            (1, Some("0,-1,2"), equal, false, None),
            (2, Some("0,-1,2"), equal, false, None),
            (0, Some("GPU-bb"), equal, false, Some(100)),
            (0, Some("MIG-dd"), equal, false, None),
            (0, None, mixed, false, None),
            (0, None, mixed, true, Some(100)),
            (0, Some("GPU-bb"), mixed, false, Some(200)),
            (0, None, "No devices were found", false, None),
        ] {
            let found = Card::visible(index, visible).and_then(|card| card.find(lines, bus_order));
            let found = found.map(|hardware| hardware.free_memory.unwrap() >> 20);
            assert_eq!(found, free, "device {index} of {visible:?}");
        }
        let card = Card::Index(0).find(equal, false).unwrap();
        assert_eq!((card.name.as_str(), card.driver.as_deref()), ("NVIDIA H200", Some("580.1")));
    }
}
