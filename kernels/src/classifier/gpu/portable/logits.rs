//! Logits of a chunk, and the gradient of the binary cross-entropy in their place.

use cubecl::prelude::*;

use super::{BatchSize, Rows, tile};
use crate::{
    classifier::gpu::common::loss::{LINE, log_1p, sum_over_line},
    numbers::{
        Format,
        device::{Quad, load_quad, round},
    },
};

/// `out[row] = round(x[row])` as F32, rows padded with zeros to whole quads.
///
/// # Shapes
/// - `x`: `[batch, dim]`
/// - `out`: `[batch, 4 quads]`
#[cube(launch)]
pub fn convert<F: Float>(
    x: &[F],
    out: &mut [f32],
    dim: usize,
    columns: usize,
    #[comptime] format: Format,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        let row = ABSOLUTE_POS / columns;
        let column = ABSOLUTE_POS % columns;
        let mut value = 0.0f32.runtime();
        if column < dim {
            value = round(f32::cast_from(x[row * dim + column]), format);
        }
        out[ABSOLUTE_POS] = value;
    }
}

/// `Z = W X^T` for some rows of the segment.
///
/// Columns of `Z` past the batch, up to a whole quad, come out as zero.
///
/// # Shapes
/// - `words`: the segment's weights
/// - `x`: `[batch, quads]`
/// - `logits`: `[labels, batch_quads]`
#[cube(launch)]
pub fn logits(
    words: &[u32],
    x: &[Quad],
    logits: &mut [Quad],
    rows: &Rows,
    size: &BatchSize,
    #[comptime] format: Format,
) {
    let mut a = tile::new_panel();
    let mut b = tile::new_panel();
    let mut sums = tile::zero_sums();
    let (row, quad) = tile::along_depth();
    let label = CUBE_POS_Y as usize * tile::TILE + row;
    let sample = CUBE_POS_X as usize * tile::TILE + row;

    for depth in range_stepped(0, size.quads, comptime!(tile::DEPTH / 4)) {
        let quad = depth + quad;
        let mut weights = Quad::new(0.0f32);
        if label < rows.labels && quad < size.quads {
            let at = (rows.first + label) * rows.row_words + quad * comptime!(format.quad_words());
            weights = load_quad(words, at, format);
        }
        tile::store_along_depth(&mut a, weights);
        tile::store_along_depth(&mut b, tile::load(x, sample, size.batch, quad, size.quads));
        sync_cube();
        tile::multiply_add(&a, &b, &mut sums);
        sync_cube();
    }

    let quad = tile::unit_quad();
    #[unroll]
    for i in 0..4usize {
        let label = tile::unit_row() + i;
        if label < rows.labels && quad < size.batch_quads {
            logits[label * size.batch_quads + quad] = sums[i];
        }
    }
}

/// Turns the logits of a chunk into `sigmoid(Z)`, one cube a label, and sums each label's loss as if it had no
/// positives.
///
/// # Shapes
/// - `logits`: `[labels, columns]`
/// - `losses`: the segment's labels; not touched unless `with_loss`
#[cube(launch)]
pub fn sigmoid_and_loss(
    logits: &mut [f32],
    losses: &mut [f32],
    first: usize,
    batch: usize,
    columns: usize,
    #[comptime] with_loss: bool,
) {
    let label = CUBE_POS_X as usize;
    let mut loss = 0.0f32.runtime();
    for sample in range_stepped(UNIT_POS as usize, batch, comptime!(LINE as usize)) {
        let at = label * columns + sample;
        let z = logits[at];
        // Of the two exponentials the one that cannot overflow.
        let e = f32::exp(-f32::abs(z));
        let upper = 1.0f32 / (1.0f32 + e);
        logits[at] = select(z < 0.0f32, e * upper, upper);
        if comptime!(with_loss) {
            loss += f32::max(z, 0.0f32) + log_1p(e);
        }
    }
    if comptime!(with_loss) {
        let loss = sum_over_line(loss);
        if UNIT_POS == 0u32 {
            losses[first + label] = loss;
        }
    }
}

/// Keeps the logits of the chunk's positives, which the loss wants.
///
/// # Shapes
/// - `positions`: every positive's place in its own chunk; those of this chunk are `from..to`
/// - `positive_logits`: one a positive of the segment
#[cube(launch)]
pub fn gather_positives(logits: &[f32], positions: &[u32], positive_logits: &mut [f32], from: usize, to: usize) {
    let at = from + ABSOLUTE_POS;
    if at < to {
        positive_logits[at] = logits[positions[at] as usize];
    }
}

/// `G = sigmoid(Z) - Y`: subtracts 1 at the chunk's positives. They are unique, so no two units meet.
#[cube(launch)]
pub fn subtract_positives(gradient: &mut [f32], positions: &[u32], from: usize, to: usize) {
    let at = from + ABSOLUTE_POS;
    if at < to {
        gradient[positions[at] as usize] -= 1.0f32;
    }
}
