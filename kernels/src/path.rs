//! Which kernels the operations use on a GPU.

use std::sync::atomic::{AtomicU8, Ordering};

/// Kernels, from those that run anywhere to those that want the most of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KernelPath {
    /// F32 arithmetic, on every device.
    Portable,
    /// Matrix instructions with 16-bit operands: CUDA since compute capability 8.0.
    TensorCores,
    /// Products of whole warpgroups and the copy engine: CUDA on compute capability 9.0 (Hopper). E4M3 weights; of BF16
    /// weights the logits alone.
    Hopper,
}

static LIMIT: AtomicU8 = AtomicU8::new(KernelPath::Hopper as u8);

/// Keeps this process from using anything beyond `path`, also where the device could; for tests and comparisons.
pub fn limit_kernels(path: KernelPath) {
    LIMIT.store(path as u8, Ordering::Relaxed);
}

/// Whether kernels of this path may be used.
#[cfg(feature = "cube")]
pub(crate) fn is_allowed(path: KernelPath) -> bool {
    path as u8 <= LIMIT.load(Ordering::Relaxed)
}
