//! Multi-head self-attention within each text.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    super::problem::{Dropout, LayerCall},
    activation::exp,
    norm::{drop_row, sum},
};
use crate::gemm::InstructionSet;

/// The attention of a batch.
pub struct Attention<'a> {
    /// `[tokens, 3 dim]`: queries, keys and values side by side.
    pub qkv: &'a [f32],
    /// Rows of each text.
    pub texts: &'a [Range<usize>],
    pub call: &'a LayerCall,
    pub set: InstructionSet,
}

/// Memory for one head of one text of `S` tokens.
#[derive(Default)]
struct Scratch {
    /// `[head, S]`, transposed: keys.
    keys: Vec<f32>,
    /// `[head, S]`, transposed: values.
    values: Vec<f32>,
    /// `[S]`: a query's probabilities, before and after dropout.
    probabilities: Vec<f32>,
    dropped: Vec<f32>,
    /// `[S]`: their gradients.
    gradients: Vec<f32>,
}

/// One head of one text.
struct Head<'a> {
    /// Rows of the text alone: `[S, 3 dim]`.
    qkv: &'a [f32],
    dim: usize,
    /// Columns of the head in queries, keys and values each.
    columns: Range<usize>,
    dropout: Dropout,
}

impl Attention<'_> {
    /// The heads' results: `[tokens, dim]`.
    pub fn forward(&self) -> Vec<f32> {
        let dim = self.call.dim;
        let mut context = vec![0.0; self.qkv.len() / 3];
        let pieces = pieces(&mut context, self.texts, dim);
        pieces.into_par_iter().enumerate().for_each_init(Scratch::default, |scratch, (text, context)| {
            self.set.run(|| {
                for head in 0..self.call.heads {
                    self.head(text, head).forward(scratch, context);
                }
            });
        });
        context
    }

    /// `[tokens, 3 dim]`: by `qkv`, where `gradient` is by the heads' results; and these again.
    pub fn backward(&self, gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let dim = self.call.dim;
        let mut context = vec![0.0; gradient.len()];
        let mut out = vec![0.0; self.qkv.len()];
        let contexts = pieces(&mut context, self.texts, dim);
        let outs = pieces(&mut out, self.texts, 3 * dim);
        contexts.into_par_iter().zip(outs).enumerate().for_each_init(
            Scratch::default,
            |scratch, (text, (context, out))| {
                let rows = &self.texts[text];
                let gradient = &gradient[rows.start * dim..rows.end * dim];
                self.set.run(|| {
                    for head in 0..self.call.heads {
                        self.head(text, head).backward(scratch, gradient, context, out);
                    }
                });
            },
        );
        (out, context)
    }

    fn head(&self, text: usize, head: usize) -> Head<'_> {
        let LayerCall { dim, heads, probabilities, .. } = *self.call;
        let rows = &self.texts[text];
        let width = dim / heads;
        Head {
            qkv: &self.qkv[rows.start * 3 * dim..rows.end * 3 * dim],
            dim,
            columns: head * width..(head + 1) * width,
            dropout: probabilities.probabilities(text, head, heads),
        }
    }
}

/// The rows of each text as slices of their own.
fn pieces<'a>(mut values: &'a mut [f32], texts: &[Range<usize>], width: usize) -> Vec<&'a mut [f32]> {
    let mut pieces = Vec::with_capacity(texts.len());
    for rows in texts {
        let (piece, rest) = values.split_at_mut(rows.len() * width);
        pieces.push(piece);
        values = rest;
    }
    pieces
}

impl Head<'_> {
    fn length(&self) -> usize {
        self.qkv.len() / (3 * self.dim)
    }

    /// A row of the queries (`part` 0), keys (1) or values (2).
    #[inline(always)]
    fn row(&self, part: usize, row: usize) -> &[f32] {
        let first = (3 * row + part) * self.dim;
        &self.qkv[first + self.columns.start..first + self.columns.end]
    }

    /// `[width, S]`
    #[inline(always)]
    fn transposed(&self, part: usize, out: &mut Vec<f32>) {
        let length = self.length();
        out.clear();
        out.resize(self.columns.len() * length, 0.0);
        for row in 0..length {
            for (at, number) in self.row(part, row).iter().enumerate() {
                out[at * length + row] = *number;
            }
        }
    }

    /// A query's probabilities into `out`.
    #[inline(always)]
    fn probabilities(&self, query: usize, keys: &[f32], out: &mut Vec<f32>) {
        let length = self.length();
        let scale = (self.columns.len() as f32).sqrt().recip();
        out.clear();
        out.resize(length, 0.0);
        for (number, keys) in self.row(0, query).iter().zip(keys.chunks_exact(length)) {
            add_scaled(out, number * scale, keys);
        }
        let largest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for score in out.iter_mut() {
            *score = exp(*score - largest);
        }
        let reciprocal = 1.0 / sum(length, |at| out[at]);
        for score in out.iter_mut() {
            *score *= reciprocal;
        }
    }

    #[inline(always)]
    fn forward(&self, scratch: &mut Scratch, context: &mut [f32]) {
        self.transposed(1, &mut scratch.keys);
        for query in 0..self.length() {
            self.probabilities(query, &scratch.keys, &mut scratch.probabilities);
            drop_row(&mut scratch.probabilities, self.dropout, query);
            let context = &mut context[query * self.dim..][self.columns.clone()];
            for (key, probability) in scratch.probabilities.iter().enumerate() {
                add_scaled(context, *probability, self.row(2, key));
            }
        }
    }

    #[inline(always)]
    fn backward(&self, scratch: &mut Scratch, gradient: &[f32], context: &mut [f32], out: &mut [f32]) {
        let (length, dim) = (self.length(), self.dim);
        let scale = (self.columns.len() as f32).sqrt().recip();
        let Scratch { keys, values, probabilities, dropped, gradients } = scratch;
        self.transposed(1, keys);
        self.transposed(2, values);
        for query in 0..length {
            self.probabilities(query, keys, probabilities);
            dropped.clone_from(probabilities);
            drop_row(dropped, self.dropout, query);
            let by_context = &gradient[query * dim..][self.columns.clone()];
            gradients.clear();
            gradients.resize(length, 0.0);
            for (number, values) in by_context.iter().zip(values.chunks_exact(length)) {
                add_scaled(gradients, *number, values);
            }
            drop_row(gradients, self.dropout, query);
            let mean = sum(length, |at| gradients[at] * probabilities[at]);
            for (gradient, probability) in gradients.iter_mut().zip(&*probabilities) {
                *gradient = (*gradient - mean) * probability * scale;
            }
            let at = |part: usize, row: usize| {
                let first = (3 * row + part) * dim;
                first + self.columns.start..first + self.columns.end
            };
            for key in 0..length {
                add_scaled(&mut out[at(0, query)], gradients[key], self.row(1, key));
                add_scaled(&mut out[at(1, key)], gradients[key], self.row(0, query));
                add_scaled(&mut out[at(2, key)], dropped[key], by_context);
                add_scaled(&mut context[query * dim..][self.columns.clone()], dropped[key], self.row(2, key));
            }
        }
    }
}

#[inline(always)]
fn add_scaled(to: &mut [f32], scale: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += scale * from;
    }
}
