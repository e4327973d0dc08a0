//! Logits of a chunk, and the gradient of the binary cross-entropy in their place.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    empty,
    fp8::{Format, Quad, load_quad, round},
    tile,
};

/// Units of a cube that works on one label or on one reduction.
pub const LINE: u32 = 64;

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

/// `Z = W X^T` for the labels `first..first + labels` of the segment.
///
/// Columns of `Z` past the batch, up to a whole quad, come out as zero.
///
/// # Shapes
/// - `words`: the segment's weights, rows of `row_words`
/// - `x`: `[batch, quads]`
/// - `logits`: `[labels, batch_quads]`
#[cube(launch)]
pub fn logits(
    words: &[u32],
    x: &[Quad],
    logits: &mut [Quad],
    first: usize,
    labels: usize,
    row_words: usize,
    batch: usize,
    batch_quads: usize,
    quads: usize,
    #[comptime] format: Format,
) {
    let mut a = tile::new_panel();
    let mut b = tile::new_panel();
    let mut sums = tile::zero_sums();
    let (row, quad) = tile::along_depth();
    let label = CUBE_POS_Y as usize * tile::TILE + row;
    let sample = CUBE_POS_X as usize * tile::TILE + row;

    for depth in range_stepped(0, quads, comptime!(tile::DEPTH / 4)) {
        let quad = depth + quad;
        let mut weights = Quad::new(0.0f32);
        if label < labels && quad < quads {
            let at = (first + label) * row_words + quad * comptime!(format.quad_words());
            weights = load_quad(words, at, format);
        }
        tile::store_along_depth(&mut a, weights);
        tile::store_along_depth(&mut b, tile::load(x, sample, batch, quad, quads));
        sync_cube();
        tile::multiply_add(&a, &b, &mut sums);
        sync_cube();
    }

    let quad = tile::unit_quad();
    #[unroll]
    for i in 0..4usize {
        let label = tile::unit_row() + i;
        if label < labels && quad < batch_quads {
            logits[label * batch_quads + quad] = sums[i];
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

/// `log(1 + exp(z))`
#[cube]
pub fn softplus(z: f32) -> f32 {
    f32::max(z, 0.0f32) + log_1p(f32::exp(-f32::abs(z)))
}

/// `log(1 + e)` for `e` in `[0, 1]`, to F32 precision also where `1 + e` would round `e` away: late in training nearly
/// all labels of nearly all rows are there.
#[cube]
fn log_1p(e: f32) -> f32 {
    let series = e * (1.0f32 - e * (0.5f32 - e * (1.0f32 / 3.0f32 - e * 0.25f32)));
    select(e < 0.0156f32, series, f32::ln(1.0f32 + e))
}

/// The sum of one value a unit over the cube, always in the same order; meaningful in unit 0.
#[cube]
fn sum_over_line(value: f32) -> f32 {
    let mut values = Shared::<[f32]>::new_slice(LINE as usize);
    let unit = UNIT_POS as usize;
    values[unit] = value;
    #[unroll]
    for level in 0..comptime!(LINE.ilog2()) {
        let half = comptime!(LINE as usize >> (level + 1));
        sync_cube();
        if unit < half {
            values[unit] += values[unit + half];
        }
    }
    values[unit]
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

/// What a step reports: `[2]`.
///
/// # Shapes
/// - `losses`: at least `loss_count` values, see [`sigmoid_and_loss()`]
/// - `positive_logits`: at least `positive_count` values
/// - `non_finite`: `[1]`
pub fn report(
    losses: &CubeTensor,
    positive_logits: &CubeTensor,
    non_finite: &CubeTensor,
    loss_count: usize,
    positive_count: usize,
) -> CubeTensor {
    let report = empty(losses, 2, DType::F32);
    put_together::launch(
        &losses.client,
        CubeCount::new_single(),
        CubeDim::new_1d(LINE),
        losses.clone().into_buffer_arg(),
        positive_logits.clone().into_buffer_arg(),
        non_finite.clone().into_buffer_arg(),
        report.clone().into_buffer_arg(),
        loss_count,
        positive_count,
    );
    report
}

#[cube(launch)]
fn put_together(
    losses: &[f32],
    positive_logits: &[f32],
    non_finite: &[u32],
    report: &mut [f32],
    labels: usize,
    positives: usize,
) {
    let mut loss = 0.0f32.runtime();
    for at in range_stepped(UNIT_POS as usize, labels, comptime!(LINE as usize)) {
        loss += losses[at];
    }
    for at in range_stepped(UNIT_POS as usize, positives, comptime!(LINE as usize)) {
        loss -= positive_logits[at];
    }
    let loss = sum_over_line(loss);
    if UNIT_POS == 0u32 {
        report[0] = loss;
        report[1] = f32::cast_from(non_finite[0]);
    }
}
