//! The positives of a segment, ahead of its chunks: their logits, and which of them each tile of labels has.
//!
//! `sigmoid(Z) - 1` has to be computed from the logit: `sigmoid(Z)` near 1 has lost to 16 bits what is left of it after
//! the subtraction. There are few positives, so their logits are computed a second time, in F32.
//!
//! Positives are pairs (row of the segment, row of the batch) in ascending order.

use cubecl::prelude::*;

use super::stream::ROWS;
use crate::{
    gpu::ptx::Words4,
    numbers::{
        Format,
        device::{Quad, decode_quad, round},
    },
};

/// The logit of a positive, by all units of a plane.
///
/// # Shapes
/// - `words`: the segment's weights, E4M3, rows of `row_parts` parts of 16 bytes
/// - `x`: `[batch, dim]`, rounded to `operands` here
#[cube]
pub fn positive_logit<F: Float>(
    words: &[Words4],
    x: &[F],
    pairs: &[u32],
    positive: usize,
    row_parts: usize,
    dim: usize,
    #[comptime] operands: Format,
) -> f32 {
    let label = pairs[2 * positive] as usize;
    let row = pairs[2 * positive + 1] as usize * dim;
    let mut z = 0.0f32.runtime();
    for part in range_stepped((UNIT_POS % 32u32) as usize, row_parts, 32) {
        let codes = words[label * row_parts + part];
        #[unroll]
        for q in 0..4usize {
            let w: Quad = decode_quad(codes, q, Format::E4m3);
            #[unroll]
            for k in 0..4usize {
                let column = part * 16 + comptime!(4 * q + k);
                if column < dim {
                    let feature = round(f32::cast_from(x[row + column]), operands);
                    z = fma(w.extract(k), feature, z);
                }
            }
        }
    }
    plane_sum(z)
}

/// The first of `count` positives that is not before the segment's tile `tile` of 64 labels; `count` if there is none.
#[cube]
pub fn first_positive(pairs: &[u32], tile: usize, count: usize) -> u32 {
    let first = (tile * ROWS) as u32;
    let mut from = 0usize.runtime();
    let mut to = count;
    while from < to {
        let middle = (from + to) / 2;
        if pairs[2 * middle] < first {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    from as u32
}
