//! One layer, forward and backward.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{
    super::{problem::LayerCall, weights::LAYER_WEIGHTS},
    Texts,
    attention::Attention,
    norm::{NormBackward, column_sums, drop_row, norm_row},
    product::{Operand, Product},
};
use crate::gemm::InstructionSet;

/// Numbers of a tensor, its own memory where that holds F32.
pub type Numbers<'a> = Cow<'a, [f32]>;

/// A linear layer: `[in, out]` and `[out]`.
pub struct Affine<'a> {
    pub weight: Numbers<'a>,
    pub bias: Numbers<'a>,
}

/// The parameters of a norm, or their gradients.
pub struct Norm<'a> {
    pub gamma: Numbers<'a>,
    pub beta: Numbers<'a>,
}

/// The parameters of a layer, or their gradients.
pub struct Weights<'a> {
    pub query: Affine<'a>,
    pub key: Affine<'a>,
    pub value: Affine<'a>,
    pub output: Affine<'a>,
    pub attention_norm: Norm<'a>,
    pub up: Affine<'a>,
    pub down: Affine<'a>,
    pub norm: Norm<'a>,
}

impl<'a> Weights<'a> {
    /// In the order of [`LayerWeights::into_array`](super::super::weights::LayerWeights::into_array).
    pub fn into_array(self) -> [Numbers<'a>; LAYER_WEIGHTS] {
        let Self { query: q, key: k, value: v, output: o, attention_norm: a, up: u, down: d, norm: n } = self;
        [
            q.weight, q.bias, k.weight, k.bias, v.weight, v.bias, o.weight, o.bias, a.gamma, a.beta, u.weight, u.bias,
            d.weight, d.bias, n.gamma, n.beta,
        ]
    }
}

/// A layer's call.
pub struct Layer<'a> {
    /// `[rows, dim]`
    pub x: &'a [f32],
    pub weights: &'a Weights<'a>,
    pub texts: &'a Texts,
    pub call: &'a LayerCall,
    pub set: InstructionSet,
}

impl Layer<'_> {
    /// `[rows, dim]`, and what is kept as [`LayerCall::kept`] says.
    pub fn forward(&self) -> (Vec<f32>, Vec<f32>) {
        let LayerCall { dim, wide, activation, .. } = *self.call;
        let tokens = self.call.texts.tokens;
        let Weights { query, key, value, output, attention_norm, up, down, norm } = self.weights;
        let kept = self.call.kept(4);
        let mut store = vec![0.0; kept.words()];

        let mut qkv = vec![0.0; tokens * 3 * dim];
        for (part, layer) in [query, key, value].into_iter().enumerate() {
            let end = qkv.len();
            let to = &mut qkv[(part * dim).min(end)..];
            self.affine(self.x, dim, layer, dim).each_row(self.set, to, 3 * dim, |_, sums, out| {
                add(out, sums, &layer.bias);
            });
        }
        let context = Attention { qkv: &qkv, texts: &self.texts.rows, call: self.call, set: self.set }.forward();
        let update = self.affine(&context, dim, output, dim).values(self.set);
        let first = Half { update: &update, bias: &output.bias, norm: attention_norm, dropout: self.call.attention };
        let first = self.half(self.x, &first);
        let mut before = vec![0.0; tokens * wide];
        self.affine(&first.y, dim, up, wide).each_row(self.set, &mut before, wide, |_, sums, out| {
            add(out, sums, &up.bias);
        });
        let mut values = vec![0.0; before.len()];
        values.par_chunks_mut(4096).zip(before.par_chunks(4096)).for_each(|(values, before)| {
            self.set.run(|| {
                for (value, before) in values.iter_mut().zip(before) {
                    *value = activation.value(*before);
                }
            });
        });
        let update = self.affine(&values, wide, down, dim).values(self.set);
        let second = Half { update: &update, bias: &down.bias, norm, dropout: self.call.feed_forward };
        let second = self.half(&first.y, &second);
        if self.call.keep {
            let mut keep = |range: std::ops::Range<usize>, values: &[f32]| {
                store[range.start / 4..][..values.len()].copy_from_slice(values);
            };
            keep(kept.qkv, &qkv);
            keep(kept.attention_sum, &first.sum);
            keep(kept.before_activation, &before);
            keep(kept.sum, &second.sum);
            let half = kept.statistics.len() / 2;
            let start = kept.statistics.start;
            keep(start..start + half, &first.statistics);
            keep(start + half..start + 2 * half, &second.statistics);
        }
        let mut y = second.y;
        y.resize(self.call.texts.rows() * dim, 0.0);
        (y, store)
    }

    /// The gradients by `x`, `[rows, dim]`, and by the parameters, from that of the result.
    pub fn backward(&self, gradient: &[f32], store: &[f32]) -> (Vec<f32>, Weights<'static>) {
        let LayerCall { dim, wide, activation, .. } = *self.call;
        let tokens = self.call.texts.tokens;
        let Weights { query, key, value, output, attention_norm, up, down, norm } = self.weights;
        let kept = LayerCall { keep: true, ..*self.call }.kept(4);
        let part = |range: &std::ops::Range<usize>, columns: usize| &store[range.start / 4..][..tokens * columns];
        let half = kept.statistics.len() / 2;
        let start = kept.statistics.start;
        let (qkv, before) = (part(&kept.qkv, 3 * dim), part(&kept.before_activation, wide));

        let second = NormBackward {
            gradient: &gradient[..tokens * dim],
            sum: part(&kept.sum, dim),
            statistics: part(&(start + half..start + 2 * half), 2),
            gamma: &norm.gamma,
            dropout: self.call.feed_forward,
        }
        .run(self.set);
        // By the activation's values, then by what it was applied to.
        let mut by_wide = self.input_gradient(second.update(), dim, down, wide).values(self.set);
        let mut values = vec![0.0; by_wide.len()];
        (by_wide.par_chunks_mut(4096), values.par_chunks_mut(4096), before.par_chunks(4096)).into_par_iter().for_each(
            |(gradient, values, before)| {
                self.set.run(|| {
                    for ((gradient, value), before) in gradient.iter_mut().zip(values).zip(before) {
                        *gradient *= activation.slope(*before);
                        *value = activation.value(*before);
                    }
                });
            },
        );
        let down_weight = self.weight_gradient(&values, wide, second.update(), dim);
        drop(values);
        let mut by_first = vec![0.0; tokens * dim];
        self.input_gradient(&by_wide, wide, up, dim).each_row(self.set, &mut by_first, dim, |row, sums, out| {
            add(out, sums, &second.sum[row * dim..][..dim]);
        });
        let first = NormBackward {
            gradient: &by_first,
            sum: part(&kept.attention_sum, dim),
            statistics: part(&(start..start + half), 2),
            gamma: &attention_norm.gamma,
            dropout: self.call.attention,
        }
        .run(self.set);
        let normed = self.normed(part(&kept.attention_sum, dim), attention_norm);
        let up_weight = self.weight_gradient(&normed, dim, &by_wide, wide);
        let up_bias = column_sums(&by_wide, wide, self.set);
        drop((normed, by_wide, by_first));

        let by_context = self.input_gradient(first.update(), dim, output, dim).values(self.set);
        let attention = Attention { qkv, texts: &self.texts.rows, call: self.call, set: self.set };
        let (by_qkv, context) = attention.backward(&by_context);
        let output_weight = self.weight_gradient(&context, dim, first.update(), dim);
        drop(context);

        let mut by_x = first.sum;
        let biases = column_sums(&by_qkv, 3 * dim, self.set);
        let mut gradients = Vec::new();
        for (part, layer) in [query, key, value].into_iter().enumerate() {
            let by_part = Operand::rows(&by_qkv[(part * dim).min(by_qkv.len())..], 3 * dim);
            let weight = Operand::rows(&layer.weight, dim).transposed();
            let product = Product { a: by_part, b: weight, rows: tokens, depth: dim, columns: dim };
            product.each_row(self.set, &mut by_x, dim, |_, sums, out| {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out += sum;
                }
            });
            let x = Operand::rows(self.x, dim).transposed();
            let weight = Product { a: x, b: by_part, rows: dim, depth: tokens, columns: dim }.values(self.set);
            gradients.push(Affine { weight: weight.into(), bias: biases[part * dim..][..dim].to_vec().into() });
        }
        by_x.resize(self.call.texts.rows() * dim, 0.0);
        let mut gradients = gradients.into_iter();
        let mut next = || gradients.next().expect("three parts");
        let (query, key, value) = (next(), next(), next());
        let weights = Weights {
            query,
            key,
            value,
            output: Affine { weight: output_weight.into(), bias: first.bias.into() },
            attention_norm: Norm { gamma: first.gamma.into(), beta: first.beta.into() },
            up: Affine { weight: up_weight.into(), bias: up_bias.into() },
            down: Affine { weight: down_weight.into(), bias: second.bias.into() },
            norm: Norm { gamma: second.gamma.into(), beta: second.beta.into() },
        };
        (by_x, weights)
    }

    fn affine<'a>(&self, x: &'a [f32], input: usize, layer: &'a Affine<'a>, output: usize) -> Product<'a> {
        Product {
            a: Operand::rows(x, input),
            b: Operand::rows(&layer.weight, output),
            rows: self.call.texts.tokens,
            depth: input,
            columns: output,
        }
    }

    /// `gradient W^T` for a layer of `[input, output]`.
    fn input_gradient<'a>(
        &self,
        gradient: &'a [f32],
        output: usize,
        layer: &'a Affine<'a>,
        input: usize,
    ) -> Product<'a> {
        Product {
            a: Operand::rows(gradient, output),
            b: Operand::rows(&layer.weight, output).transposed(),
            rows: self.call.texts.tokens,
            depth: output,
            columns: input,
        }
    }

    /// `x^T gradient`: `[input, output]`.
    fn weight_gradient(&self, x: &[f32], input: usize, gradient: &[f32], output: usize) -> Vec<f32> {
        Product {
            a: Operand::rows(x, input).transposed(),
            b: Operand::rows(gradient, output),
            rows: input,
            depth: self.call.texts.tokens,
            columns: output,
        }
        .values(self.set)
    }

    /// The norm of `residual + dropped(update + bias)`.
    fn half(&self, residual: &[f32], half: &Half) -> Normed {
        let dim = self.call.dim;
        let length = self.call.texts.tokens * dim;
        let mut normed =
            Normed { sum: vec![0.0; length], y: vec![0.0; length], statistics: vec![0.0; 2 * self.call.texts.tokens] };
        let rows = (normed.sum.par_chunks_mut(dim), normed.y.par_chunks_mut(dim), normed.statistics.par_chunks_mut(2));
        rows.into_par_iter().with_min_len(16).enumerate().for_each(|(row, (sum, y, statistics))| {
            self.set.run(|| {
                add(sum, &half.update[row * dim..][..dim], half.bias);
                drop_row(sum, half.dropout, row);
                for (sum, residual) in sum.iter_mut().zip(&residual[row * dim..]) {
                    *sum += residual;
                }
                norm_row(sum, &half.norm.gamma, &half.norm.beta, self.call.epsilon, y, statistics);
            });
        });
        normed
    }

    /// The norm's result once more.
    fn normed(&self, sums: &[f32], norm: &Norm) -> Vec<f32> {
        let dim = self.call.dim;
        let mut y = vec![0.0; sums.len()];
        y.par_chunks_mut(dim).zip(sums.par_chunks(dim)).with_min_len(16).for_each(|(y, sum)| {
            self.set.run(|| norm_row(sum, &norm.gamma, &norm.beta, self.call.epsilon, y, &mut [0.0; 2]));
        });
        y
    }
}

/// What one half of a layer adds to its input, and the norm after it.
struct Half<'a> {
    update: &'a [f32],
    bias: &'a [f32],
    norm: &'a Norm<'a>,
    dropout: super::super::problem::Dropout,
}

struct Normed {
    sum: Vec<f32>,
    y: Vec<f32>,
    statistics: Vec<f32>,
}

/// `out = a + b`
#[inline(always)]
fn add(out: &mut [f32], a: &[f32], b: &[f32]) {
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        *out = a + b;
    }
}
