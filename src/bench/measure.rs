//! One task's time: by the host's clock running free, by the device's clock step by step, and kernel by kernel.

use std::time::Instant;

use burn::{backend::ExecutionError, tensor::Device};
use elmo_kernels::timing::{Grain, Timing, record};

use super::{Options, Work};

/// Whose clock it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The device's, around every operation of a step; their sum is the step.
    Device,
    /// The host's, around a step and the wait for its end.
    Host,
}

impl Clock {
    /// `device`, `host`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
        }
    }
}

/// Where the samples lie, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the samples are below.
    pub median: f64,
    /// A tenth of the samples is below.
    pub p10: f64,
    /// A tenth of the samples is above.
    pub p90: f64,
}

impl Spread {
    /// # Panics
    /// If there is no sample.
    pub(super) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (samples.len() - 1) as f64;
            let (low, high) = (samples[place.floor() as usize], samples[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Self { median: at(0.5), p10: at(0.1), p90: at(0.9) }
    }
}

/// A kernel's part of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The kernel's name.
    pub name: &'static str,
    /// Launches a step.
    pub launches: usize,
    /// Seconds of all its launches in a step.
    pub time: Spread,
    /// What all of them have to do.
    pub work: Work,
}

/// What [`measure`] finds out.
pub(super) struct Times {
    pub clock: Clock,
    pub time: Spread,
    pub free_running: f64,
    pub kernels: Vec<Kernel>,
    pub reserved: Option<u64>,
}

/// Runs `work` often enough for `options`, in three passes.
pub(super) fn measure<R>(
    device: &Device,
    options: &Options,
    mut work: impl FnMut() -> R,
) -> Result<Times, ExecutionError> {
    let steps = options.steps;
    for _ in 0..options.warmup {
        work();
    }
    device.sync()?;

    let start = Instant::now();
    for _ in 0..steps {
        work();
    }
    device.sync()?;
    let free_running = start.elapsed().as_secs_f64() / steps as f64;
    // Before the device's clock is read, which takes memory too.
    let reserved = device.memory_pool_usage().map(|usage| usage.bytes_reserved);

    let mut pass = |grain| -> Result<(Vec<f64>, Vec<Vec<Timing>>), ExecutionError> {
        let (mut of_host, mut of_device) = (Vec::new(), Vec::new());
        for _ in 0..steps {
            let start = Instant::now();
            let (ended, timings) = record(grain, || {
                // Kept until the device has come to its end.
                let result = work();
                device.sync().map(|()| drop(result))
            });
            ended?;
            of_host.push(start.elapsed().as_secs_f64());
            of_device.push(timings);
        }
        Ok((of_host, of_device))
    };
    let (of_host, operations) = pass(Grain::Operations)?;
    if operations.iter().any(Vec::is_empty) {
        return Ok(Times {
            clock: Clock::Host,
            time: Spread::of(of_host),
            free_running,
            kernels: Vec::new(),
            reserved,
        });
    }
    let seconds = |timings: &Vec<Timing>| timings.iter().map(|timing| timing.seconds).sum();
    let (_, launches) = pass(Grain::Kernels)?;
    Ok(Times {
        clock: Clock::Device,
        time: Spread::of(operations.iter().map(seconds).collect()),
        free_running,
        kernels: by_kernel(&launches),
        reserved,
    })
}

/// The launches of every step, put together by name.
fn by_kernel(steps: &[Vec<Timing>]) -> Vec<Kernel> {
    let mut names: Vec<&'static str> = Vec::new();
    for timing in steps.iter().flatten() {
        if !names.contains(&timing.name) {
            names.push(timing.name);
        }
    }
    let kernel = |name| {
        let of_step = |step: &Vec<Timing>| {
            let launches = step.iter().filter(|timing| timing.name == name);
            launches.map(|timing| timing.seconds).sum::<f64>()
        };
        let all = steps.iter().flatten().filter(|timing| timing.name == name);
        Kernel {
            name,
            launches: all.count().div_ceil(steps.len()),
            time: Spread::of(steps.iter().map(of_step).collect()),
            work: Work::default(),
        }
    };
    names.into_iter().map(kernel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_lies_between_the_samples() {
        let spread = Spread::of((0..=10).rev().map(f64::from).collect());
        assert_eq!((spread.p10, spread.median, spread.p90), (1.0, 5.0, 9.0));
        assert_eq!(Spread::of(vec![1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of(vec![7.0]).p90, 7.0);
    }

    #[test]
    fn launches_of_a_step_are_added_up() {
        let timing = |name, seconds| Timing { name, seconds };
        let step = |scale: f64| vec![timing("logits", scale), timing("update", 10.0), timing("logits", 2.0 * scale)];
        let kernels = by_kernel(&[step(1.0), step(2.0), step(3.0)]);
        assert_eq!(kernels.len(), 2);
        assert_eq!((kernels[0].name, kernels[0].launches), ("logits", 2));
        assert_eq!(kernels[0].time.median, 6.0);
        assert_eq!((kernels[1].name, kernels[1].launches), ("update", 1));
    }
}
