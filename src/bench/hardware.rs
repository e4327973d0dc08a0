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
    /// Asks `nvidia-smi` about a CUDA device, whose order is CUDA's on a host with equal cards; `/proc/cpuinfo` about a
    /// CPU.
    pub fn of(compute: &Compute) -> Self {
        let unknown = || Self {
            name: compute.name.clone(),
            driver: None,
            free_memory: None,
        };
        let (kind, index) = compute.name.split_once(':').unwrap_or((&compute.name, "0"));
        match kind {
            "cuda" => nvidia(index).unwrap_or_else(unknown),
            "cpu" => cpu().unwrap_or_else(unknown),
            _ => unknown(),
        }
    }
}

fn nvidia(index: &str) -> Option<Hardware> {
    let query = "--query-gpu=name,driver_version,memory.free";
    let output = Command::new("nvidia-smi")
        .args([query, "--format=csv,noheader,nounits", "-i", index])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    parse_nvidia(text.lines().next()?)
}

fn parse_nvidia(line: &str) -> Option<Hardware> {
    let fields: Vec<&str> = line.split(", ").map(str::trim).collect();
    let [name, driver, free] = fields[..] else {
        return None;
    };
    Some(Hardware {
        name: name.into(),
        driver: Some(driver.into()),
        free_memory: free.parse().ok().map(|mib: u64| mib << 20),
    })
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
    fn what_nvidia_smi_prints_is_read() {
        let hardware = parse_nvidia("NVIDIA H200, 580.159.04, 143167\n").unwrap();
        assert_eq!(hardware.name, "NVIDIA H200");
        assert_eq!(hardware.driver.as_deref(), Some("580.159.04"));
        assert_eq!(hardware.free_memory, Some(143_167 << 20));
        assert_eq!(parse_nvidia("No devices were found"), None);
    }
}
