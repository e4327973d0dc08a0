//! The weight gradient of a chunk, `G X`, and the update in place, for batches that [`backward`](super::backward) is
//! too small for.

use cubecl::prelude::*;

use super::stream::{ROWS, Stream, WARPGROUPS, copy, multiplies, places, sums, wait_for_block, warpgroup_of_unit};
use crate::{
    classifier::gpu::common::run::{RUN, Rates, UpdateRule, update_run},
    gpu::{
        ptx::Words4,
        wgmma::{WARPGROUP, Word},
    },
    numbers::device::row_key,
};

/// Features of a cube.
pub const FEATURES: usize = 128;

/// `W <- round(W - lr (G X + wd W))` for `labels` rows of the segment from `first`, in place. Arguments as those of
/// [`backward`](super::backward::backward).
#[cube(launch_unchecked)]
pub fn update(
    gradient: &TensorMap<Word, Tiled>,
    x: &TensorMap<Word, Tiled>,
    words: &mut [Words4],
    compensation: &mut [Words4],
    non_finite: &[Atomic<u32>],
    first: u32,
    labels: u32,
    row_parts: usize,
    head_rows: usize,
    compensation_parts: usize,
    dim: usize,
    first_label_low: u32,
    first_label_high: u32,
    rounding_key: u32,
    learning_rate: f32,
    weight_decay: f32,
    #[comptime] stream: Stream,
    #[comptime] update: UpdateRule,
) {
    let warpgroup = warpgroup_of_unit();
    let places = places(warpgroup, stream);
    let tiles = (labels + comptime!(ROWS as u32 - 1)) / comptime!(ROWS as u32);
    let block = CUBE_POS_X * comptime!(FEATURES as u32);
    let worker = CUBE_POS_Y * comptime!(WARPGROUPS as u32) + warpgroup;
    let workers = CUBE_COUNT_Y * comptime!(WARPGROUPS as u32);
    if multiplies() {
        let lane = UNIT_POS % 32u32;
        let (g, t) = (lane / 4u32, lane % 4u32);
        let plane = UNIT_POS % WARPGROUP / 32u32;
        let rates = Rates {
            learning_rate,
            weight_decay,
            head_rows,
            compensation_parts,
            dim,
        };
        let mut refused = 0u32.runtime();
        wait_for_block(&places);
        let mut tile = worker;
        let mut count = 0u32.runtime();
        while tile < tiles {
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
                    let key = row_key(rounding_key, first_label_low, first_label_high, row);
                    #[unroll]
                    for i in 0..2usize {
                        refused += update_place(
                            sums,
                            old[comptime!(2 * half + i)],
                            words,
                            compensation,
                            row as usize,
                            row_parts,
                            key,
                            &rates,
                            half,
                            i,
                            update,
                        );
                    }
                }
            }
            tile += workers;
        }
        if refused > 0u32 {
            non_finite[0].fetch_add(refused);
        }
    } else {
        copy(
            &places, warpgroup, gradient, x, 0u32, block, tiles, worker, workers, stream,
        );
    }
}

/// Updates one of four runs of 16 weights that a unit has of 64 rows by 128 features: run `4 i + t` of its row (`half`
/// 0) or of that 8 below. Returns how many values were not finite.
///
/// # Shapes
/// - `sums`: the weight gradient, from a right operand in the order of
///   [`stored_row`](crate::classifier::gpu::common::operands::stored_row)
/// - `old`: the run's weights
/// - `row`: of the segment; `key`: its key
#[cube]
pub fn update_place(
    sums: Vector<f32, Const<64>>,
    old: Words4,
    words: &mut [Words4],
    compensation: &mut [Words4],
    row: usize,
    row_parts: usize,
    key: u32,
    rates: &Rates,
    #[comptime] half: usize,
    #[comptime] i: usize,
    #[comptime] update: UpdateRule,
) -> u32 {
    let mut refused = 0u32.runtime();
    let run = (CUBE_POS_X * 8u32 + comptime!(4 * i as u32) + UNIT_POS % 4u32) as usize;
    if run < row_parts {
        let mut gradient = Array::<f32>::new(RUN);
        #[unroll]
        for k in 0..RUN {
            let sum = comptime!(4 * (8 * i + k / 2) + 2 * half + k % 2);
            gradient[k] = sums.extract(sum);
        }
        let mut of_run = Array::<Words4>::new(1usize);
        let mut new = Array::<Words4>::new(1usize);
        of_run[0usize] = old;
        new[0usize] = Words4::empty();
        refused = update_run(
            &gradient,
            &of_run,
            &mut new,
            compensation,
            row,
            run * RUN,
            key,
            rates,
            update,
        );
        words[row * row_parts + run] = new[0usize];
    }
    refused
}
