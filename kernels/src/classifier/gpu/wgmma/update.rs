//! The weight gradient of a chunk, `G X`, and the update in place, for batches that [`backward`](super::backward) is
//! too small for.

use cubecl::prelude::*;

use super::stream::{ROWS, Stream, copy, multiplies, places, share, sums, wait_for_block};
use crate::{
    classifier::gpu::common::run::{RUN, RunPlace, UpdateArgs, UpdateRule, key_of_row, update_run},
    gpu::{
        ptx::Words4,
        wgmma::{WARPGROUP, Word},
    },
};

/// Features of a cube.
pub const FEATURES: usize = 128;

/// The rows of a segment that are updated.
#[derive(CubeType, CubeLaunch)]
pub struct Rows {
    pub first: u32,
    pub labels: u32,
    /// 16-byte parts of a row of weights.
    pub row_parts: usize,
}

/// `W <- round(W - lr (G X + wd W))` for some rows of the segment, in place. Buffers as those of
/// [`backward`](super::backward::backward).
#[cube(launch_unchecked)]
pub fn update(
    gradient: &TensorMap<Word, Tiled>,
    x: &TensorMap<Word, Tiled>,
    words: &mut [Words4],
    compensation: &mut [Words4],
    non_finite: &[Atomic<u32>],
    rows: &Rows,
    args: &UpdateArgs,
    #[comptime] stream: Stream,
    #[comptime] update: UpdateRule,
) {
    let labels = rows.labels;
    let first = rows.first;
    let row_parts = rows.row_parts;
    let share = share(labels, stream);
    let places = places(share.warpgroup, stream);
    if multiplies() {
        let lane = UNIT_POS % 32u32;
        let (g, t) = (lane / 4u32, lane % 4u32);
        let plane = UNIT_POS % WARPGROUP / 32u32;
        let mut refused = 0u32.runtime();
        wait_for_block(&places);
        let mut tile = share.first_tile;
        let mut count = 0u32.runtime();
        while tile < share.tiles {
            let row_of_tile = tile * comptime!(ROWS as u32) + plane * 16u32 + g;
            // Runs `4 i + t` of the rows `g` and `g + 8`, asked for before the product.
            let mut old = Array::<Words4>::new(4usize);
            #[unroll]
            for half in 0..2usize {
                let row = row_of_tile + comptime!(8 * half as u32);
                #[unroll]
                for i in 0..2usize {
                    let run = (CUBE_POS_X * 8u32 + comptime!(4 * i as u32) + t) as usize;
                    old[comptime!(2 * half + i)] = Words4::new(0u32);
                    if row < labels && run < row_parts {
                        old[comptime!(2 * half + i)] = words[(first + row) as usize * row_parts + run];
                    }
                }
            }
            let sums = sums::<Const<64>>(&places, count, stream);
            count += comptime!(stream.rounds());
            #[unroll]
            for half in 0..2usize {
                let row = row_of_tile + comptime!(8 * half as u32);
                if row < labels {
                    let row = first + row;
                    let place = RowPlace { row: row as usize, row_parts, key: key_of_row(args, row) };
                    #[unroll]
                    for i in 0..2usize {
                        refused += update_place(
                            sums,
                            old[comptime!(2 * half + i)],
                            words,
                            compensation,
                            &place,
                            args,
                            comptime!(Quarter { half, i }),
                            update,
                        );
                    }
                }
            }
            tile += share.step;
        }
        if refused > 0u32 {
            non_finite[0].fetch_add(refused);
        }
    } else {
        copy(&places, &share, gradient, x, 0u32, stream);
    }
}

/// A row of weights.
#[derive(CubeType, Clone, Copy)]
pub struct RowPlace {
    /// The row of the segment.
    pub row: usize,
    /// 16-byte parts of a row.
    pub row_parts: usize,
    /// See [`key_of_row()`].
    pub key: u32,
}

/// One of four runs of 16 weights that a unit has of 64 rows by 128 features: run `4 i + t` of its row (`half` 0) or of
/// the row 8 below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quarter {
    pub half: usize,
    pub i: usize,
}

/// Updates one run of 16 weights. Returns how many values were not finite.
///
/// # Shapes
/// - `sums`: the weight gradient, from a right operand in the order of
///   [`stored_row`](crate::classifier::gpu::common::operands::stored_row)
/// - `old`: the run's weights
#[cube]
pub fn update_place(
    sums: Vector<f32, Const<64>>,
    old: Words4,
    words: &mut [Words4],
    compensation: &mut [Words4],
    place: &RowPlace,
    args: &UpdateArgs,
    #[comptime] quarter: Quarter,
    #[comptime] update: UpdateRule,
) -> u32 {
    let row_parts = place.row_parts;
    let mut refused = 0u32.runtime();
    let run = (CUBE_POS_X * 8u32 + comptime!(4 * quarter.i as u32) + UNIT_POS % 4u32) as usize;
    if run < row_parts {
        let mut gradient = Array::<f32>::new(RUN);
        #[unroll]
        for k in 0..RUN {
            let sum = comptime!(4 * (8 * quarter.i + k / 2) + 2 * quarter.half + k % 2);
            gradient[k] = sums.extract(sum);
        }
        let mut old_parts = Array::<Words4>::new(1usize);
        let mut new = Array::<Words4>::new(1usize);
        old_parts[0usize] = old;
        new[0usize] = Words4::empty();
        refused = update_run(
            &gradient,
            &old_parts,
            &mut new,
            compensation,
            &RunPlace { row: place.row, column: run * RUN, key: place.key },
            args,
            update,
        );
        words[place.row * row_parts + run] = new[0usize];
    }
    refused
}
