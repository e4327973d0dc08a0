//! Kernels that go through rows: norms, embeddings, means, sums of columns.
//!
//! They wait for memory, not for arithmetic, so each does all that happens between two products. A row belongs to 32
//! units, of which each takes every 32nd vector of columns; types are those of the parameters, arithmetic is in F32.

mod embed;
mod mean;
mod norm;
mod sums;

pub use embed::{embed, embed_backward};
pub use mean::{mean, mean_backward};
pub use norm::{NormBackward, NormForward};
pub use sums::{ActivationBackward, activate, column_sums, join_columns, split_columns};

use burn_cubecl::tensor::CubeTensor;
use cubecl::{features::Plane, prelude::*};

use super::super::problem::Dropout;
use crate::{
    gpu::{cube_number, cubes},
    numbers::device::{pair_bits, row_key},
};

/// Units of a row.
const LANES: u32 = 32;
/// Rows of a cube.
const CUBE_ROWS: u32 = 8;
/// Units of a cube.
const UNITS: u32 = LANES * CUBE_ROWS;

/// How a width is cut into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Width {
    /// Vectors of a row.
    vectors: usize,
    /// Numbers of a vector.
    numbers: usize,
    /// Vectors of a unit, at most.
    each: usize,
}

impl Width {
    fn new(width: usize) -> Self {
        let numbers = if width.is_multiple_of(4) { 4 } else { 1 };
        let vectors = width / numbers;
        Self { vectors, numbers, each: vectors.div_ceil(LANES as usize) }
    }
}

/// Whether a row's 32 units can be one plane that adds up by itself.
fn has_planes(tensor: &CubeTensor) -> bool {
    let properties = tensor.client.properties();
    let hardware = &properties.hardware;
    properties.features.plane.contains(Plane::Ops) && hardware.plane_size_min == 32 && hardware.plane_size_max == 32
}

/// Dropout on its way into a kernel.
#[derive(CubeType, CubeLaunch)]
struct DropArgs {
    key: u32,
    keep: u32,
    scale: f32,
}

impl DropArgs {
    fn of(dropout: Dropout) -> DropArgsLaunch {
        DropArgsLaunch { key: dropout.key, keep: dropout.keep, scale: dropout.scale() }
    }
}

/// A vector of a row with dropout: `first` is its first column.
#[cube]
fn dropped<N: Size>(
    values: Vector<f32, N>,
    row: u32,
    first: u32,
    drop: &DropArgs,
    #[comptime] numbers: usize,
    #[comptime] active: bool,
) -> Vector<f32, N> {
    let mut out = values;
    if comptime!(active) {
        let key = row_key(drop.key, row, 0u32, 0u32);
        #[unroll]
        for number in 0..numbers {
            let column = first + comptime!(number as u32);
            let bits = (pair_bits(key, column / 2u32) >> (16u32 * (column % 2u32))) & 0xffffu32;
            let factor = select(bits < drop.keep, drop.scale, 0.0f32);
            out.insert(number, values.extract(number) * factor);
        }
    }
    out
}

/// The sum of a value over the units of each row, the same in all of them. All units of the cube take part.
#[cube]
fn row_sum(value: f32, shared: &mut Shared<[f32]>, #[comptime] planes: bool) -> f32 {
    if comptime!(planes) {
        plane_sum(value)
    } else {
        let lane = UNIT_POS % LANES;
        sync_cube();
        shared[UNIT_POS as usize] = value;
        sync_cube();
        #[unroll]
        for level in 0..5u32 {
            let distance = comptime!(16u32 >> level);
            if lane < distance {
                let other = shared[(UNIT_POS + distance) as usize];
                shared[UNIT_POS as usize] += other;
            }
            sync_cube();
        }
        shared[(UNIT_POS - lane) as usize]
    }
}

/// The sum of a vector's numbers.
#[cube]
fn vector_sum<N: Size>(values: Vector<f32, N>, #[comptime] numbers: usize) -> f32 {
    let mut sum = 0.0f32.runtime();
    #[unroll]
    for number in 0..numbers {
        sum += values.extract(number);
    }
    sum
}
