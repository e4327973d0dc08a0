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

/// Cubes for this many units.
pub fn cubes(units: usize, each: u32) -> CubeCount {
    // More than 65,535 cubes do not fit into one dimension everywhere.
    let cubes = units.div_ceil(each as usize).max(1);
    let y = cubes.div_ceil(32_768);
    CubeCount::Static(cubes.div_ceil(y) as u32, y as u32, 1)
}

/// The number of this cube.
#[cube]
pub fn cube_number() -> u32 {
    CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X
}
