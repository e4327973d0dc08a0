//! What kernels on GPUs share, whatever they compute: buffers, and instructions as PTX.

pub mod memory;
pub mod ptx;
#[cfg(test)]
pub mod testing;
#[cfg(feature = "cuda")]
pub mod wgmma;

use cubecl::prelude::*;

/// Units of a cube whose units do not communicate.
pub const LINEAR: CubeDim = CubeDim::new_1d(256);
