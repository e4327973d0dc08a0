//! The operations written down as slowly and plainly as possible, in F64: the truth that tests compare with.
//!
//! Source: the ELMO paper (arXiv 2510.11168), algorithm 1, with sum reduction: nothing is divided by the batch size
//! or the number of labels.

use super::{
    positives::Positives,
    problem::{Segment, Step},
};
use crate::numbers::Format;

/// What one training step over a segment yields, before anything is rounded.
pub struct Outcome {
    /// Sum over labels and rows of the binary cross-entropy.
    pub loss: f64,
    /// `[labels, batch]`.
    pub logits: Vec<f64>,
    /// `[batch, dim]`, from the weights before the update.
    pub input_gradient: Vec<f64>,
    /// `[labels, dim]`, without weight decay.
    pub weight_gradient: Vec<f64>,
    /// `[labels, dim]`: `w - lr (g + wd w)`, plus the compensation where there is one.
    pub before_rounding: Vec<f64>,
}

/// What an operand of the two products with the gradient is rounded to, beside the weights: F32 leaves it as it is, in
/// F16 the gradient is in units of `2^-15` (tensor cores with E4M3 weights), BF16 is for tensor cores with BF16
/// weights.
fn round_operand(format: Format, value: f64, scale: f64) -> f64 {
    match format {
        Format::F16 => half::f16::from_f64(value * scale).to_f64() / scale,
        Format::Bf16 => half::bf16::from_f64(value).to_f64(),
        _ => value,
    }
}

/// One training step, in F64 on the exact values of the operands.
///
/// # Shapes
/// - `words`, `compensation`: the segment's
/// - `x`: `[batch, dim]`
pub fn step(
    segment: &Segment,
    step: &Step,
    words: &[u32],
    compensation: &[u32],
    x: &[f32],
    positives: &Positives,
) -> Outcome {
    step_with(Format::F32, segment, step, words, compensation, x, positives)
}

/// [`step()`] in F64, but for what a device rounds on its way into the products with the gradient.
pub fn step_with(
    multiplied: Format,
    segment: &Segment,
    step: &Step,
    words: &[u32],
    compensation: &[u32],
    x: &[f32],
    positives: &Positives,
) -> Outcome {
    let (labels, dim) = (segment.labels, segment.dim);
    let batch = x.len() / dim;
    let weights = segment.decode(words);
    let compensation = segment.decode_compensation(compensation);
    let pairs = positives.in_labels(segment.first_label, labels);

    let mut logits = vec![0.0; labels * batch];
    let mut gradient = vec![0.0; labels * batch];
    let mut loss = 0.0;
    for l in 0..labels {
        for b in 0..batch {
            let z: f64 =
                (0..dim).map(|d| weights[l * dim + d] as f64 * step.operands.round(x[b * dim + d]) as f64).sum();
            let label = (segment.first_label + l as u64) as u32;
            let y = f64::from(pairs.binary_search(&(label, b as u32)).is_ok());
            logits[l * batch + b] = z;
            let g = 1.0 / (1.0 + (-z).exp()) - y;
            gradient[l * batch + b] = round_operand(multiplied, g, 32_768.0);
            loss += z.max(0.0) - z * y + (-z.abs()).exp().ln_1p();
        }
    }

    let x: Vec<f64> = x.iter().map(|x| round_operand(multiplied, f64::from(*x), 1.0)).collect();
    let mut input_gradient = vec![0.0; batch * dim];
    let mut weight_gradient = vec![0.0; labels * dim];
    for l in 0..labels {
        for b in 0..batch {
            let g = gradient[l * batch + b];
            for d in 0..dim {
                input_gradient[b * dim + d] += g * weights[l * dim + d] as f64;
                weight_gradient[l * dim + d] += g * x[b * dim + d];
            }
        }
    }
    let before_rounding = (0..labels * dim)
        .map(|i| {
            let w = weights[i] as f64;
            let c = compensation.get(i).copied().unwrap_or(0.0) as f64;
            let g = weight_gradient[i] + step.weight_decay as f64 * w;
            w + c - step.learning_rate as f64 * g
        })
        .collect();
    Outcome { loss, logits, input_gradient, weight_gradient, before_rounding }
}

/// The `k` best labels of every row by the F64 logits of [`step`], ties to the lower label: `(score, label)`.
pub fn top_k(segment: &Segment, logits: &[f64], batch: usize, k: usize) -> Vec<Vec<(f64, u64)>> {
    (0..batch)
        .map(|b| {
            let mut row: Vec<(f64, u64)> =
                (0..segment.labels).map(|l| (logits[l * batch + b], segment.first_label + l as u64)).collect();
            row.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            row.truncate(k);
            row
        })
        .collect()
}
