//! Norm with residual, bias and dropout, forward and backward.

use rayon::prelude::*;

use super::super::problem::Dropout;
use crate::gemm::InstructionSet;

/// Rows whose part of a vector's gradient is summed together: a number that does not depend on the threads.
const SUMMED: usize = 64;

/// `y = gamma (s - mean) / deviation + beta`; puts mean and reciprocal of the deviation into `statistics`.
#[inline(always)]
pub fn norm_row(s: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32, y: &mut [f32], statistics: &mut [f32]) {
    let width = s.len() as f32;
    let mean = sum(s.len(), |at| s[at]) / width;
    let variance = sum(s.len(), |at| (s[at] - mean) * (s[at] - mean)) / width;
    let reciprocal = 1.0 / (variance + epsilon).sqrt();
    for ((y, s), (gamma, beta)) in y.iter_mut().zip(s).zip(gamma.iter().zip(beta)) {
        *y = (s - mean) * reciprocal * gamma + beta;
    }
    statistics.copy_from_slice(&[mean, reciprocal]);
}

/// The sum of `of(0)` to `of(count - 1)`, in sixteen strands, which vectorises.
#[inline(always)]
pub fn sum(count: usize, of: impl Fn(usize) -> f32) -> f32 {
    const STRANDS: usize = 16;
    let mut strands = [0.0f32; STRANDS];
    let whole = count / STRANDS * STRANDS;
    for first in (0..whole).step_by(STRANDS) {
        for (at, strand) in strands.iter_mut().enumerate() {
            *strand += of(first + at);
        }
    }
    let rest: f32 = (whole..count).map(of).sum();
    strands.iter().sum::<f32>() + rest
}

/// `row *= dropout.factor(number, ..)`.
#[inline(always)]
pub fn drop_row(row: &mut [f32], dropout: Dropout, number: usize) {
    if !dropout.is_active() {
        return;
    }
    let row_key = crate::random::row_key(dropout.key, number as u64);
    let scale = dropout.scale();
    let factor = |bits: u32| if bits & 0xffff < dropout.keep { scale } else { 0.0 };
    for (pair, numbers) in row.chunks_mut(2).enumerate() {
        let bits = crate::random::pair_bits(row_key, pair as u32);
        numbers[0] *= factor(bits);
        if let Some(second) = numbers.get_mut(1) {
            *second *= factor(bits >> 16);
        }
    }
}

/// What the backward pass of a norm starts from.
pub struct NormBackward<'a> {
    /// `[rows, width]`: by `y`.
    pub gradient: &'a [f32],
    /// `[rows, width]`: what was normed.
    pub sum: &'a [f32],
    /// `[rows, 2]`
    pub statistics: &'a [f32],
    pub gamma: &'a [f32],
    /// Of what was added to the residual.
    pub dropout: Dropout,
}

/// What it gives.
pub struct NormGradients {
    /// `[rows, width]`: by what was normed.
    pub sum: Vec<f32>,
    /// `[rows, width]`: by what was dropped and added; absent where nothing is dropped, as it is the same then.
    pub update: Option<Vec<f32>>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    /// By a bias added to the update: its column sums.
    pub bias: Vec<f32>,
}

impl NormGradients {
    pub fn update(&self) -> &[f32] {
        self.update.as_deref().unwrap_or(&self.sum)
    }
}

impl NormBackward<'_> {
    pub fn run(&self, set: InstructionSet) -> NormGradients {
        let width = self.gamma.len();
        let length = self.gradient.len();
        let mut sum = vec![0.0; length];
        let mut update = self.dropout.is_active().then(|| vec![0.0; length]);
        let blocks = (length / width).div_ceil(SUMMED);
        // Of each block the sums of gamma's, beta's and the bias's gradients.
        let mut parts = vec![0.0; blocks * 3 * width];
        let updates: Vec<&mut [f32]> = match &mut update {
            Some(update) => update.chunks_mut(SUMMED * width).collect(),
            None => (0..blocks).map(|_| &mut [] as &mut [f32]).collect(),
        };
        (sum.par_chunks_mut(SUMMED * width), updates, parts.par_chunks_mut(3 * width))
            .into_par_iter()
            .enumerate()
            .for_each(|(block, (sum, update, parts))| {
                set.run(|| self.block(block * SUMMED, sum, update, parts));
            });
        let vectors = add_parts(&parts, 3 * width);
        NormGradients {
            sum,
            update,
            gamma: vectors[..width].to_vec(),
            beta: vectors[width..2 * width].to_vec(),
            bias: vectors[2 * width..].to_vec(),
        }
    }

    #[inline(always)]
    fn block(&self, first: usize, sums: &mut [f32], mut updates: &mut [f32], parts: &mut [f32]) {
        let width = self.gamma.len();
        let (gammas, rest) = parts.split_at_mut(width);
        let (betas, biases) = rest.split_at_mut(width);
        for (row, sum_gradient) in (first..).zip(sums.chunks_exact_mut(width)) {
            let gradient = &self.gradient[row * width..][..width];
            let s = &self.sum[row * width..][..width];
            let (mean, reciprocal) = (self.statistics[2 * row], self.statistics[2 * row + 1]);
            let normal = |s: f32| (s - mean) * reciprocal;
            let along = sum(width, |at| gradient[at] * self.gamma[at]) / width as f32;
            let across = sum(width, |at| gradient[at] * self.gamma[at] * normal(s[at])) / width as f32;
            for at in 0..width {
                let normal = normal(s[at]);
                gammas[at] += gradient[at] * normal;
                betas[at] += gradient[at];
                sum_gradient[at] = (gradient[at] * self.gamma[at] - along - normal * across) * reciprocal;
            }
            let dropped = match self.dropout.is_active() {
                true => {
                    let (update, rest) = updates.split_at_mut(width);
                    updates = rest;
                    update.copy_from_slice(sum_gradient);
                    drop_row(update, self.dropout, row);
                    update
                }
                false => sum_gradient,
            };
            for (bias, dropped) in biases.iter_mut().zip(&*dropped) {
                *bias += dropped;
            }
        }
    }
}

/// The sum of the rows of `parts`, in their order.
pub fn add_parts(parts: &[f32], width: usize) -> Vec<f32> {
    let mut all = vec![0.0; width];
    for part in parts.chunks_exact(width) {
        for (sum, part) in all.iter_mut().zip(part) {
            *sum += part;
        }
    }
    all
}

/// The sums of the columns of `[rows, width]`.
pub fn column_sums(x: &[f32], width: usize, set: InstructionSet) -> Vec<f32> {
    let mut parts = vec![0.0; x.len().div_ceil(SUMMED * width) * width];
    parts.par_chunks_mut(width).zip(x.par_chunks(SUMMED * width)).for_each(|(part, x)| {
        set.run(|| {
            for row in x.chunks_exact(width) {
                for (sum, x) in part.iter_mut().zip(row) {
                    *sum += x;
                }
            }
        });
    });
    add_parts(&parts, width)
}
