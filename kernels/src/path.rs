//! Which kernels the operations use on a GPU.

use std::{fmt, str::FromStr};

/// Kernels, from those that run anywhere to those that want the most of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelPath {
    /// F32 arithmetic, on every device.
    Portable,
    /// Matrix instructions with 16-bit operands: CUDA since compute capability 8.0.
    TensorCores,
    /// Products of whole warpgroups and the copy engine: CUDA on compute capability 9.0 (Hopper). E4M3 weights; of BF16
    /// weights the logits alone.
    #[default]
    Hopper,
}

impl KernelPath {
    /// All paths, the simplest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::TensorCores, Self::Hopper];

    /// `portable`, `tensor-cores`, `hopper`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::TensorCores => "tensor-cores",
            Self::Hopper => "hopper",
        }
    }
}

impl fmt::Display for KernelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for KernelPath {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let path = Self::ALL.into_iter().find(|path| path.name() == name);
        path.ok_or_else(|| format!("expected portable, tensor-cores or hopper, found {name}"))
    }
}
