//! The weight gradient of a chunk, `G X`, and the update in place: the gradient never leaves the registers.

use cubecl::prelude::*;

use super::product::{Multiply, ProductPlace, product, unit_place};
use crate::{
    classifier::gpu::common::run::{RUN, RunPlace, UpdateArgs, UpdateRule, key_of_row, update_run},
    gpu::ptx::Words4,
};

/// The rows of a segment that are updated.
#[derive(CubeType, CubeLaunch)]
pub struct Rows {
    pub first: usize,
    pub labels: usize,
    /// 16-byte parts of a row of weights.
    pub row_parts: usize,
    /// 16-byte parts of a row of the gradient and of a column of `X`: the depth of the product.
    pub depth_parts: usize,
}

/// `W <- round(W - lr (G X + wd W))` for some rows of the segment, in place; one tile a cube.
///
/// A value that is not finite leaves the weight as it was and is counted; the first rows of the segment keep in
/// `compensation` what rounding took.
///
/// # Shapes
/// - `words`: the segment's weights
/// - `compensation`: any length where no row keeps one
/// - `gradient`: `[labels, depth_parts]`, multiplied by its scale, see [`UpdateArgs`]
/// - `x`: `[columns, depth_parts]`, see [`columns`](super::operands::columns)
/// - `non_finite`: `[1]`
#[cube(launch_unchecked)]
pub fn update(
    words: &mut [Words4],
    compensation: &mut [Words4],
    gradient: &[Words4],
    x: &[Words4],
    non_finite: &[Atomic<u32>],
    rows: &Rows,
    args: &UpdateArgs,
    #[comptime] multiply: Multiply,
    #[comptime] update: UpdateRule,
) {
    let tile = comptime!(multiply.tile);
    let labels = rows.labels;
    let row_parts = rows.row_parts;
    let tile_row = CUBE_POS_Y as usize * comptime!(multiply.tile.rows());
    let tile_column = CUBE_POS_X as usize * comptime!(multiply.tile.columns());
    let place = ProductPlace {
        left_row: tile_row,
        left_rows: labels - tile_row,
        left_stride: rows.depth_parts,
        right_row: tile_column,
        right_stride: rows.depth_parts,
    };
    let sums = product(gradient, x, &place, multiply);

    let (row, column) = unit_place(tile);
    let row = tile_row + row;
    let column = tile_column + column;
    let parts = comptime!(update.format.quad_words());
    let part = column / RUN * parts;
    let mut refused = 0u32.runtime();
    #[unroll]
    for i in 0..comptime!(2 * tile.fragments) {
        let row = row + comptime!(8 * i);
        if row < labels && part < row_parts {
            let row = rows.first + row;
            let place = RunPlace { row, column, key: key_of_row(args, row as u32) };
            let at = row * row_parts + part;
            let mut gradient = Array::<f32>::new(RUN);
            #[unroll]
            for k in 0..RUN {
                let sum = sums[comptime!(i / 2 * 8 + k / 2)];
                gradient[k] = sum.extract(comptime!(i % 2 * 2 + k % 2));
            }
            let mut old = Array::<Words4>::new(parts);
            let mut new = Array::<Words4>::new(parts);
            #[unroll]
            for p in 0..parts {
                // The last run of a row of 16-bit weights may be half as long.
                old[p] = Words4::new(0u32);
                if part + p < row_parts {
                    old[p] = words[at + p];
                }
                new[p] = Words4::empty();
            }
            refused += update_run(&gradient, &old, &mut new, compensation, &place, args, update);
            #[unroll]
            for p in 0..parts {
                if part + p < row_parts {
                    words[at + p] = new[p];
                }
            }
        }
    }
    if refused > 0u32 {
        non_finite[0].fetch_add(refused);
    }
}
