//! Where a device spends its time, kernel by kernel; for benches.
//!
//! Times come from the device's own clock (CUDA events, timestamp queries) where it has one. CPU back ends record
//! nothing.

use std::sync::{Mutex, PoisonError};

/// What is timed as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// A whole operation on a segment, launches and gaps between them included.
    Operations,
    /// Each kernel separately. The host waits after each, so the sum says nothing of gaps or overlap.
    Kernels,
}

/// One measured stretch of device time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// The operation or the kernel.
    pub name: &'static str,
    /// How long it took.
    pub seconds: f64,
}

struct Recording {
    // CPU back ends never ask for it.
    #[cfg_attr(not(feature = "cube"), allow(dead_code))]
    grain: Grain,
    timings: Vec<Timing>,
}

static RECORDING: Mutex<Option<Recording>> = Mutex::new(None);

/// Runs `work` and returns what its operations took on the device, in the order in which they ran.
///
/// `work` must wait for the device before it returns: operations may be queued until then. One recording runs at a
/// time; operations of other threads are recorded with it.
///
/// # Panics
/// If a recording is running already.
pub fn record<R>(grain: Grain, work: impl FnOnce() -> R) -> (R, Vec<Timing>) {
    /// Ends the recording also if `work` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            lock().take();
        }
    }

    {
        let mut recording = lock();
        assert!(recording.is_none(), "a recording is running already");
        *recording = Some(Recording { grain, timings: Vec::new() });
    }
    let _end = End;
    let result = work();
    let timings = lock().as_mut().map_or_else(Vec::new, |recording| std::mem::take(&mut recording.timings));
    (result, timings)
}

fn lock() -> std::sync::MutexGuard<'static, Option<Recording>> {
    RECORDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work`, and records its time on the device if stretches of this grain are asked for.
#[cfg(feature = "cube")]
pub(crate) fn timed<R>(
    grain: Grain,
    name: &'static str,
    client: &cubecl::client::Client,
    work: impl FnOnce() -> R,
) -> R {
    if lock().as_ref().is_none_or(|r| r.grain != grain) {
        return work();
    }
    let Ok(window) = client.profile_start() else {
        return work();
    };
    let result = work();
    if let Ok(duration) = client.profile_end(window)
        && let Some(ticks) = cubecl::future::block_on(duration.resolve())
        && let Some(recording) = lock().as_mut()
    {
        recording.timings.push(Timing { name, seconds: ticks.duration().as_secs_f64() });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_ends_with_its_work_even_by_a_panic() {
        let (result, timings) = record(Grain::Kernels, || 7);
        assert_eq!((result, timings), (7, Vec::new()));
        let panicked = std::panic::catch_unwind(|| record(Grain::Kernels, || panic!("work")));
        assert!(panicked.is_err());
        assert_eq!(record(Grain::Operations, || 8).0, 8);
    }
}
