//! The binary cross-entropy, and what a step reports.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::{
    gpu::{memory::empty, ptx::value},
    numbers::Format,
};

/// Units of a cube that works on one label or on one reduction.
pub const LINE: u32 = 64;

/// What the gradient `G` is multiplied by where it is stored in 16 bits: it brings the whole range of the sigmoid down
/// to
/// `2^-29` among the normal numbers of F16.
pub const fn gradient_scale(half: Format) -> f32 {
    match half {
        Format::F16 => 32_768.0,
        _ => 1.0,
    }
}

/// `1 / (1 + exp(-z))` times the scale at which the gradient is stored, to about `2^-21`: it becomes a 16-bit number.
#[cube]
pub fn scaled_sigmoid(z: f32, #[comptime] half: Format) -> f32 {
    // `1 / (1 / scale + exp2(-z log2(e) - log2(scale)))`
    let shift = comptime!(format!("0f{:08X}", (-gradient_scale(half).log2()).to_bits()));
    let one = comptime!(format!("0f{:08X}", gradient_scale(half).recip().to_bits()));
    let d: f32;
    gpu_asm!(
        "{{ .reg .f32 e; fma.rn.f32 e, {z}, 0fBFB8AA3B, {shift}; ex2.approx.ftz.f32 e, e;",
        "add.f32 e, e, {one}; rcp.approx.ftz.f32 {d}, e; }}",
        d = out(_) d,
        z = in(_) value::<f32>(z),
        options(pure, nomem),
    );
    d
}

/// `log(1 + exp(z))`
#[cube]
pub fn softplus(z: f32) -> f32 {
    f32::max(z, 0.0f32) + log_1p(f32::exp(-f32::abs(z)))
}

/// `log(1 + e)` for `e` in `[0, 1]`, to F32 precision also where `1 + e` would round `e` away: late in training nearly
/// all labels of nearly all rows are there.
#[cube]
pub fn log_1p(e: f32) -> f32 {
    let series = e * (1.0f32 - e * (0.5f32 - e * (1.0f32 / 3.0f32 - e * 0.25f32)));
    select(e < 0.0156f32, series, f32::ln(1.0f32 + e))
}

/// The sum of one value a unit over the cube, always in the same order; meaningful in unit 0.
#[cube]
pub fn sum_over_line(value: f32) -> f32 {
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
