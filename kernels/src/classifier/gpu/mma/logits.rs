//! Logits of a chunk, turned into the gradient of the binary cross-entropy before they leave the registers.

use cubecl::prelude::*;

use super::product::{Multiply, ProductPlace, product, unit_place};
use crate::{
    classifier::gpu::common::{
        loss::{scaled_sigmoid, softplus},
        operands::stored_row,
    },
    gpu::ptx::{Words4, pack, unpack},
    numbers::{
        Format,
        device::{Quad, decode_quad},
    },
};

/// What becomes of the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// `sigmoid(Z)` in 16 bits, for training.
    Gradient,
    /// The same, and the sum of `log(1 + exp(Z))` over the tile.
    GradientAndLoss,
    /// `Z` in F32, for the search.
    Scores,
}

/// Sizes of [`logits()`].
#[derive(CubeType, CubeLaunch)]
pub struct LogitsArgs {
    /// The rows of the segment that are multiplied.
    pub first: usize,
    pub labels: usize,
    /// 16-byte parts of a row of weights.
    pub row_parts: usize,
    /// 16-byte parts of a row of `X`.
    pub depth_parts: usize,
    /// Rows of `X`.
    pub batch: usize,
    /// The width of the result: rows of `X` with padding.
    pub columns: usize,
}

/// `Z = W X^T` for some rows of the segment, one tile a cube.
///
/// # Shapes
/// - `words`: the segment's weights
/// - `x`: `[columns, depth_parts]`, see [`rows`](super::operands::rows)
/// - `out`: `[labels, columns]`, of 16 bits or, for [`Epilogue::Scores`], 32
/// - `losses`: one for every tile, `[tiles of the segment, gridDim.x]`
#[cube(launch_unchecked)]
pub fn logits(
    words: &[Words4],
    x: &[Words4],
    out: &mut [Words4],
    losses: &mut [f32],
    args: &LogitsArgs,
    #[comptime] multiply: Multiply,
    #[comptime] epilogue: Epilogue,
) {
    let tile = comptime!(multiply.tile);
    let half = comptime!(multiply.half);
    let labels = args.labels;
    let columns = args.columns;
    let tile_row = CUBE_POS_Y as usize * comptime!(multiply.tile.rows());
    let tile_column = CUBE_POS_X as usize * comptime!(multiply.tile.columns());
    let place = ProductPlace {
        left_row: args.first + tile_row,
        left_rows: labels - tile_row,
        left_stride: args.row_parts,
        right_row: tile_column,
        right_stride: args.depth_parts,
    };
    let sums = product(words, x, &place, multiply);

    let (row, column) = unit_place(tile);
    let row = tile_row + row;
    let column = tile_column + column;
    let mut loss = 0.0f32.runtime();
    #[unroll]
    for i in 0..comptime!(2 * tile.fragments) {
        let row = row + comptime!(8 * i);
        if row < labels {
            if comptime!(epilogue == Epilogue::Scores) {
                let at = (row * columns + column) / 4;
                #[unroll]
                for part in 0..4usize {
                    let mut values = Words4::empty();
                    #[unroll]
                    for k in 0..4usize {
                        let sum = sums[comptime!(i / 2 * 8 + part * 2 + k / 2)];
                        let z = sum.extract(comptime!(i % 2 * 2 + k % 2));
                        values.insert(k, u32::reinterpret(z));
                    }
                    out[at + part] = values;
                }
            } else {
                let at = (row * columns + column) / 8;
                #[unroll]
                for part in 0..2usize {
                    let mut pairs = Words4::empty();
                    #[unroll]
                    for k in 0..4usize {
                        let sum = sums[comptime!(i / 2 * 8 + part * 4 + k)];
                        let low = sum.extract(comptime!(i % 2 * 2));
                        let high = sum.extract(comptime!(i % 2 * 2 + 1));
                        pairs.insert(k, pack(scaled_sigmoid(low, half), scaled_sigmoid(high, half), half));
                        if comptime!(epilogue == Epilogue::GradientAndLoss) {
                            let column = column + comptime!(part * 8 + k * 2);
                            loss += select(column < args.batch, softplus(low), 0.0f32);
                            loss += select(column + 1 < args.batch, softplus(high), 0.0f32);
                        }
                    }
                    out[at + part] = pairs;
                }
            }
        }
    }
    if comptime!(epilogue == Epilogue::GradientAndLoss) {
        let loss = sum_over_cube(loss, tile.units());
        if UNIT_POS == 0u32 {
            let tile_of_segment = args.first / comptime!(multiply.tile.rows()) + CUBE_POS_Y as usize;
            losses[tile_of_segment * CUBE_COUNT_X as usize + CUBE_POS_X as usize] = loss;
        }
    }
}

/// The sum of one value a unit, always in the same order; meaningful in unit 0.
#[cube]
fn sum_over_cube(value: f32, #[comptime] units: u32) -> f32 {
    let planes = comptime!(units as usize / 32);
    let mut values = Shared::<[f32]>::new_slice(planes);
    let plane_value = plane_sum(value);
    if UNIT_POS_PLANE == 0u32 {
        values[(UNIT_POS / 32u32) as usize] = plane_value;
    }
    sync_cube();
    let mut sum = 0.0f32.runtime();
    #[unroll]
    for plane in 0..planes {
        sum += values[plane];
    }
    sum
}

/// Sizes of [`positives()`].
#[derive(CubeType, CubeLaunch)]
pub struct PositivesArgs {
    /// The chunk's first row of the segment.
    pub first: usize,
    /// Its positives are `from..to` of the segment's.
    pub from: usize,
    pub to: usize,
    /// 16-byte parts of a row of weights.
    pub row_parts: usize,
    /// 16-byte parts of a row of `X`.
    pub depth_parts: usize,
    /// The width of the gradient.
    pub columns: usize,
}

/// `G = sigmoid(Z) - 1` at the chunk's positives; one plane each.
///
/// The logit is computed again: `sigmoid(Z)` near 1 has lost to 16 bits what is left of it after the subtraction.
///
/// # Shapes
/// - `pairs`: (row of the segment, row of the batch) of all the segment's positives
/// - `gradient`: `[labels, columns]`
/// - `positive_logits`: one a positive of the segment
#[cube(launch)]
pub fn positives<H: Float>(
    words: &[Words4],
    x: &[Words4],
    pairs: &[u32],
    gradient: &mut [H],
    positive_logits: &mut [f32],
    args: &PositivesArgs,
    #[comptime] format: Format,
    #[comptime] half: Format,
    #[define(H)] _dtype: ElemType,
) {
    let positive = args.from + (CUBE_POS * (CUBE_DIM / 32u32) as usize) + (UNIT_POS / 32u32) as usize;
    if positive < args.to {
        let label = pairs[2 * positive] as usize;
        let sample = pairs[2 * positive + 1] as usize;
        let codes = comptime!(128 / format.bits());
        let x_row = stored_row(sample) * args.depth_parts;
        let mut z = 0.0f32.runtime();
        for part in range_stepped((UNIT_POS % 32u32) as usize, args.row_parts, 32) {
            let weights = words[label * args.row_parts + part];
            let mut operand = Array::<Words4>::new(comptime!(codes / 8));
            #[unroll]
            for i in 0..comptime!(codes / 8) {
                operand[i] = x[x_row + part * comptime!(codes / 8) + i];
            }
            #[unroll]
            for q in 0..comptime!(codes / 4) {
                let w: Quad = decode_quad(weights, comptime!(q * format.quad_words()), format);
                #[unroll]
                for k in 0..2usize {
                    // Codes meet their depths in the order of `depth_stored_at`.
                    let pair = match comptime!(format) {
                        Format::E4m3 => operand[k].extract(q),
                        _ => operand[0usize].extract(comptime!(2 * q + k)),
                    };
                    let pair = unpack(pair, half);
                    z = fma(w.extract(comptime!(2 * k)), pair.extract(0usize), z);
                    z = fma(w.extract(comptime!(2 * k + 1)), pair.extract(1usize), z);
                }
            }
        }
        let z = plane_sum(z);
        if UNIT_POS_PLANE == 0u32 {
            gradient[(label - args.first) * args.columns + sample] = H::cast_from(-scaled_sigmoid(-z, half));
            positive_logits[positive] = z;
        }
    }
}
