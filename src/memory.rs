//! Will it fit? An estimate before anything is allocated, against what the machine has free.

use std::fs;

use crate::error::{Error, Result};

/// Part of what is free that a job may plan with; the rest is for what the estimate leaves out.
const USABLE: f64 = 0.9;

/// What a job will hold, by part.
#[derive(Debug, Default)]
pub struct Estimate(Vec<(&'static str, u64)>);

impl Estimate {
    /// Adds a part, in bytes.
    pub fn add(&mut self, what: &'static str, bytes: u64) -> &mut Self {
        self.0.push((what, bytes));
        self
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|part| part.1).sum()
    }

    /// Compares with what this machine has free. Says nothing where the system does not tell.
    ///
    /// # Errors
    /// [`Error::Memory`], which names the largest part.
    pub fn check_cpu(&self, hint: &str) -> Result<()> {
        match available() {
            Some(available) => self.check("on the CPU", available, hint),
            None => Ok(()),
        }
    }

    /// Compares with the `available` bytes of the place that `on` names.
    ///
    /// # Errors
    /// [`Error::Memory`], which names the largest part.
    pub fn check(&self, on: &str, available: u64, hint: &str) -> Result<()> {
        let available = (available as f64 * USABLE) as u64;
        let needed = self.total();
        if needed <= available {
            return Ok(());
        }
        let largest = self.0.iter().max_by_key(|part| part.1);
        let most = largest
            .map_or(String::new(), |(what, size)| format!(" (most of it: {what}, {})", crate::error::bytes(*size)));
        Err(Error::Memory {
            on: on.to_owned(),
            what: format!("the job{most}"),
            needed,
            available,
            hint: Some(hint.to_owned()),
        })
    }
}

/// Bytes that a new job can have: free memory, and the limit of the control group if there is one.
fn available() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let free = parse_meminfo(&meminfo)?;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|limit| limit.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some(group.map_or(free, |group| group.min(free)))
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_large_a_job_is_refused_with_its_largest_part() {
        let mut estimate = Estimate::default();
        estimate.add("encoder", 1 << 20).add("classifier weights", 8 << 30);
        assert!(estimate.check("on the CPU", 16 << 30, "").is_ok());
        let error = estimate.check("on the CPU", 4 << 30, "use less").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("classifier weights, 8.00 GiB"), "{text}");
        assert!(text.contains("3.60 GiB is available"), "{text}");
    }

    #[test]
    fn free_memory_is_read() {
        let text = "MemTotal:       100 kB\nMemAvailable:    42 kB\n";
        assert_eq!(parse_meminfo(text), Some(42 * 1024));
        assert_eq!(parse_meminfo("nothing"), None);
    }
}
