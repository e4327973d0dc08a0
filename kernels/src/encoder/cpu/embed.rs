//! The embeddings, and the mean over a text, forward and backward.

use rayon::prelude::*;

use super::{
    super::problem::{Dropout, EmbeddingCall, MeanCall},
    Texts,
    layer::{Norm, Numbers},
    norm::{NormBackward, column_sums, drop_row, norm_row},
};
use crate::gemm::InstructionSet;

/// The parameters of the embeddings, or their gradients.
pub struct Weights<'a> {
    /// `[ids, dim]`
    pub word: Numbers<'a>,
    /// `[positions, dim]`
    pub position: Numbers<'a>,
    /// `[segments, dim]`; not read where there are none.
    pub segment: Numbers<'a>,
    pub norm: Norm<'a>,
}

/// The embeddings' call.
pub struct Embed<'a> {
    pub weights: &'a Weights<'a>,
    pub texts: &'a Texts,
    pub call: &'a EmbeddingCall,
    pub set: InstructionSet,
}

impl Embed<'_> {
    /// `[rows, dim]`, and for each row mean and reciprocal of the deviation.
    pub fn forward(&self) -> (Vec<f32>, Vec<f32>) {
        let dim = self.call.dim;
        let mut y = vec![0.0; self.call.texts.rows() * dim];
        let mut statistics = vec![0.0; self.call.kept_words()];
        let rows = y.par_chunks_mut(dim).zip(statistics.par_chunks_mut(2)).enumerate().take(self.call.texts.tokens);
        rows.with_min_len(16).for_each_init(
            || vec![0.0; dim],
            |sum, (row, (y, statistics))| {
                self.sum_into(row, sum);
                let Norm { gamma, beta } = &self.weights.norm;
                self.set.run(|| {
                    norm_row(sum, gamma, beta, self.call.epsilon, y, statistics);
                    drop_row(y, self.call.dropout, row);
                });
            },
        );
        (y, statistics)
    }

    fn sum_into(&self, row: usize, sum: &mut [f32]) {
        let dim = self.call.dim;
        let id = self.texts.word(self.call.texts.ids(), row);
        let position = self.texts.position(row) + self.call.position_offset;
        sum.copy_from_slice(&self.weights.word[id * dim..][..dim]);
        add(sum, &self.weights.position[position * dim..][..dim]);
        if self.call.segments {
            add(sum, &self.weights.segment[..dim]);
        }
    }

    /// The gradients of the parameters.
    pub fn backward(&self, gradient: &[f32], statistics: &[f32]) -> Weights<'static> {
        let dim = self.call.dim;
        let layout = &self.call.texts;
        let length = layout.tokens * dim;
        let mut sums = vec![0.0; length];
        sums.par_chunks_mut(dim).enumerate().for_each(|(row, sum)| self.sum_into(row, sum));
        let mut gradient = gradient[..length].to_vec();
        gradient.par_chunks_mut(dim).enumerate().for_each(|(row, gradient)| {
            self.set.run(|| drop_row(gradient, self.call.dropout, row));
        });
        let norm = NormBackward {
            gradient: &gradient,
            sum: &sums,
            statistics,
            gamma: &self.weights.norm.gamma,
            dropout: Dropout::NONE,
        }
        .run(self.set);
        let mut word = vec![0.0; self.weights.word.len()];
        for at in 0..layout.distinct {
            let id = self.texts.word(layout.distinct_ids(), at);
            let starts = [at, at + 1].map(|at| self.texts.word(layout.id_starts(), at));
            for row in starts[0]..starts[1] {
                let row = self.texts.word(layout.rows_by_id(), row);
                add(&mut word[id * dim..][..dim], &norm.sum[row * dim..][..dim]);
            }
        }
        let mut position = vec![0.0; self.weights.position.len()];
        for at in 0..layout.longest {
            let starts = [at, at + 1].map(|at| self.texts.word(layout.position_starts(), at));
            let to = (at + self.call.position_offset) * dim;
            for row in starts[0]..starts[1] {
                let row = self.texts.word(layout.rows_by_position(), row);
                add(&mut position[to..][..dim], &norm.sum[row * dim..][..dim]);
            }
        }
        let mut segment = vec![0.0; self.weights.segment.len()];
        if self.call.segments {
            segment[..dim].copy_from_slice(&column_sums(&norm.sum, dim, self.set));
        }
        Weights {
            word: word.into(),
            position: position.into(),
            segment: segment.into(),
            norm: Norm { gamma: norm.gamma.into(), beta: norm.beta.into() },
        }
    }
}

/// The mean of each text's rows of `x`: `[texts, dim]`.
pub fn mean(x: &[f32], texts: &Texts, call: &MeanCall) -> Vec<f32> {
    let dim = call.dim;
    let mut out = vec![0.0; call.texts.texts * dim];
    out.par_chunks_mut(dim).enumerate().for_each(|(text, out)| {
        let rows = &texts.rows[text];
        for row in rows.clone() {
            add(out, &x[row * dim..][..dim]);
        }
        let share = 1.0 / rows.len().max(1) as f32;
        out.iter_mut().for_each(|sum| *sum *= share);
        drop_row(out, call.dropout, text);
    });
    out
}

/// The gradient by `x`, `[rows, dim]`, from that by the means.
pub fn mean_backward(gradient: &[f32], texts: &Texts, call: &MeanCall) -> Vec<f32> {
    let dim = call.dim;
    let mut out = vec![0.0; call.texts.rows() * dim];
    for (text, rows) in texts.rows.iter().enumerate() {
        let share = 1.0 / rows.len().max(1) as f32;
        let mut by_row: Vec<f32> = gradient[text * dim..][..dim].iter().map(|gradient| gradient * share).collect();
        drop_row(&mut by_row, call.dropout, text);
        for row in rows.clone() {
            out[row * dim..][..dim].copy_from_slice(&by_row);
        }
    }
    out
}

fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}
