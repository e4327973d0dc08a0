//! The weight gradient of a chunk, `G X`, and the update in place: the gradient never leaves the registers.

use cubecl::prelude::*;

use super::product::{Tile, product, unit_place};
use crate::{
    classifier::gpu::common::{
        operands::Left,
        run::{RUN, Rates, UpdateRule, update_run},
    },
    gpu::ptx::{Half, Words4},
    numbers::device::row_key,
};

/// `W <- round(W - lr (G X + wd W))` for `labels` rows of the segment from `first`, in place; one tile a cube.
///
/// A value that is not finite leaves the weight as it was and is counted; the first `head_rows` rows of the segment
/// keep in
/// `compensation` what rounding took.
///
/// # Shapes
/// - `words`: the segment's weights, rows of `row_parts` parts of 16 bytes
/// - `compensation`: rows of `compensation_parts`; any length where `head_rows` is 0
/// - `gradient`: `[labels, depth_parts]`, multiplied by the scale that divides `learning_rate` and multiplies
///   `weight_decay`
/// - `x`: `[columns, depth_parts]`, see [`columns`](super::operands::columns)
/// - `non_finite`: `[1]`
#[cube(launch_unchecked)]
pub fn update(
    words: &mut [Words4],
    compensation: &mut [Words4],
    gradient: &[Words4],
    x: &[Words4],
    non_finite: &[Atomic<u32>],
    first: usize,
    labels: usize,
    row_parts: usize,
    head_rows: usize,
    compensation_parts: usize,
    depth_parts: usize,
    dim: usize,
    first_label_low: u32,
    first_label_high: u32,
    rounding_key: u32,
    learning_rate: f32,
    weight_decay: f32,
    #[comptime] tile: Tile,
    #[comptime] half: Half,
    #[comptime] update: UpdateRule,
) {
    let tile_row = CUBE_POS_Y as usize * tile.rows();
    let tile_column = CUBE_POS_X as usize * tile.columns();
    let sums = product(
        gradient,
        tile_row,
        labels - tile_row,
        depth_parts,
        depth_parts,
        x,
        tile_column,
        depth_parts,
        depth_parts / 8,
        tile,
        Left::Half,
        half,
    );

    let (row, column) = unit_place(tile);
    let row = tile_row + row;
    let column = tile_column + column;
    let parts = comptime!(update.format.quad_words());
    let part = column / RUN * parts;
    let rates = Rates {
        learning_rate,
        weight_decay,
        head_rows,
        compensation_parts,
        dim,
    };
    let mut refused = 0u32.runtime();
    #[unroll]
    for i in 0..comptime!(2 * tile.fragments) {
        let row = row + comptime!(8 * i);
        if row < labels && part < row_parts {
            let row = first + row;
            let key = row_key(rounding_key, first_label_low, first_label_high, row as u32);
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
            refused += update_run(
                &gradient,
                &old,
                &mut new,
                compensation,
                row,
                column,
                key,
                &rates,
                update,
            );
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
