//! The operations written down as slowly and plainly as possible, in F64: the truth that tests compare with.
//!
//! Rows that belong to no token are zero, in results and in gradients.

use super::{
    problem::{Activation, Dropout, EmbeddingCall, LayerCall, MeanCall},
    texts::PackedTexts,
    weights::{EMBEDDING_WEIGHTS, LAYER_WEIGHTS},
};

/// In the order of [`LayerWeights::into_array`](super::LayerWeights::into_array).
pub type Layer = [Vec<f64>; LAYER_WEIGHTS];
/// In the order of [`EmbeddingWeights::into_array`](super::EmbeddingWeights::into_array).
pub type Embedding = [Vec<f64>; EMBEDDING_WEIGHTS];

/// All values of a layer's forward pass, of the rows of tokens.
struct Pass {
    queries: Vec<f64>,
    keys: Vec<f64>,
    values: Vec<f64>,
    context: Vec<f64>,
    attention_sum: Vec<f64>,
    normed: Vec<f64>,
    before: Vec<f64>,
    after: Vec<f64>,
    sum: Vec<f64>,
}

fn pass(x: &[f64], weights: &Layer, texts: &PackedTexts, call: &LayerCall) -> Pass {
    let [qw, qb, kw, kb, vw, vb, ow, ob, ag, ab, uw, ub, dw, db, _, _] = weights;
    let x = &x[..call.texts.tokens * call.dim];
    let (queries, keys, values) = (linear(x, qw, qb), linear(x, kw, kb), linear(x, vw, vb));
    let mut context = vec![0.0; x.len()];
    for (text, start, length) in spans(texts) {
        for head in 0..call.heads {
            let at = |place, feature| (start + place) * call.dim + head * (call.dim / call.heads) + feature;
            for query in 0..length {
                let p = probabilities(&queries, &keys, call, at, query, length);
                let dropout = call.probabilities.probabilities(text, head, call.heads);
                for key in 0..length {
                    for d in 0..call.dim / call.heads {
                        context[at(query, d)] += p[key] * factor(dropout, query, key) * values[at(key, d)];
                    }
                }
            }
        }
    }
    let attention_sum = add(x, &dropped(&linear(&context, ow, ob), call.dim, call.attention));
    let normed = norm(&attention_sum, ag, ab, call.epsilon);
    let before = linear(&normed, uw, ub);
    let after: Vec<f64> = before.iter().map(|x| activated(call.activation, *x)).collect();
    let sum = add(&normed, &dropped(&linear(&after, dw, db), call.dim, call.feed_forward));
    Pass { queries, keys, values, context, attention_sum, normed, before, after, sum }
}

/// The layer's result, `[rows, dim]`, from `x` of that shape.
pub fn layer(x: &[f64], weights: &Layer, texts: &PackedTexts, call: &LayerCall) -> Vec<f64> {
    let sum = pass(x, weights, texts, call).sum;
    padded(norm(&sum, &weights[14], &weights[15], call.epsilon), call.texts.rows() * call.dim)
}

/// The gradients by `x` and by the weights, from the gradient by the result.
pub fn layer_backward(
    gradient: &[f64],
    x: &[f64],
    weights: &Layer,
    texts: &PackedTexts,
    call: &LayerCall,
) -> (Vec<f64>, Layer) {
    let [qw, _, kw, _, vw, _, ow, _, ag, _, uw, _, dw, _, ng, _] = weights;
    let p = pass(x, weights, texts, call);
    let x = &x[..call.texts.tokens * call.dim];
    let (d_sum, d_ng, d_nb) = norm_backward(&gradient[..x.len()], &p.sum, ng, call.epsilon);
    let d_down = dropped(&d_sum, call.dim, call.feed_forward);
    let (d_after, d_dw, d_db) = linear_backward(&d_down, &p.after, dw, call.wide, call.dim);
    let d_before: Vec<f64> = d_after.iter().zip(&p.before).map(|(d, x)| d * slope(call.activation, *x)).collect();
    let (d_normed, d_uw, d_ub) = linear_backward(&d_before, &p.normed, uw, call.dim, call.wide);
    let (d_asum, d_ag, d_ab) = norm_backward(&add(&d_normed, &d_sum), &p.attention_sum, ag, call.epsilon);
    let d_output = dropped(&d_asum, call.dim, call.attention);
    let (d_context, d_ow, d_ob) = linear_backward(&d_output, &p.context, ow, call.dim, call.dim);

    let mut d_queries = vec![0.0; x.len()];
    let mut d_keys = vec![0.0; x.len()];
    let mut d_values = vec![0.0; x.len()];
    let width = call.dim / call.heads;
    for (text, start, length) in spans(texts) {
        for head in 0..call.heads {
            let at = |place, feature| (start + place) * call.dim + head * width + feature;
            let dropout = call.probabilities.probabilities(text, head, call.heads);
            for query in 0..length {
                let probabilities = probabilities(&p.queries, &p.keys, call, at, query, length);
                let mut d_p = vec![0.0; length];
                for key in 0..length {
                    let f = factor(dropout, query, key);
                    for d in 0..width {
                        d_p[key] += f * d_context[at(query, d)] * p.values[at(key, d)];
                        d_values[at(key, d)] += f * probabilities[key] * d_context[at(query, d)];
                    }
                }
                let delta: f64 = d_p.iter().zip(&probabilities).map(|(d, p)| d * p).sum();
                for key in 0..length {
                    let d_score = probabilities[key] * (d_p[key] - delta) / (width as f64).sqrt();
                    for d in 0..width {
                        d_queries[at(query, d)] += d_score * p.keys[at(key, d)];
                        d_keys[at(key, d)] += d_score * p.queries[at(query, d)];
                    }
                }
            }
        }
    }
    let (from_q, d_qw, d_qb) = linear_backward(&d_queries, x, qw, call.dim, call.dim);
    let (from_k, d_kw, d_kb) = linear_backward(&d_keys, x, kw, call.dim, call.dim);
    let (from_v, d_vw, d_vb) = linear_backward(&d_values, x, vw, call.dim, call.dim);
    let d_x = add(&add(&d_asum, &from_q), &add(&from_k, &from_v));
    let weights = [d_qw, d_qb, d_kw, d_kb, d_vw, d_vb, d_ow, d_ob, d_ag, d_ab, d_uw, d_ub, d_dw, d_db, d_ng, d_nb];
    (padded(d_x, call.texts.rows() * call.dim), weights)
}

/// The sums that the embeddings' norm is applied to, of the rows of tokens.
fn embedding_sums(weights: &Embedding, texts: &PackedTexts, call: &EmbeddingCall) -> Vec<f64> {
    let [word, position, segment, _, _] = weights;
    let ids = &texts.words[texts.layout.ids()];
    let mut sums = Vec::new();
    for (_, start, length) in spans(texts) {
        for place in 0..length {
            for d in 0..call.dim {
                let id = ids[start + place] as usize;
                let segment = if call.segments { segment[d] } else { 0.0 };
                sums.push(word[id * call.dim + d] + position[(call.position_offset + place) * call.dim + d] + segment);
            }
        }
    }
    sums
}

/// `[rows, dim]`: the embeddings.
pub fn embed(weights: &Embedding, texts: &PackedTexts, call: &EmbeddingCall) -> Vec<f64> {
    let normed = norm(&embedding_sums(weights, texts, call), &weights[3], &weights[4], call.epsilon);
    padded(dropped(&normed, call.dim, call.dropout), call.texts.rows() * call.dim)
}

/// The gradients of the embeddings' parameters.
pub fn embed_backward(gradient: &[f64], weights: &Embedding, texts: &PackedTexts, call: &EmbeddingCall) -> Embedding {
    let sums = embedding_sums(weights, texts, call);
    let gradient = dropped(&gradient[..sums.len()], call.dim, call.dropout);
    let (d_sums, d_gamma, d_beta) = norm_backward(&gradient, &sums, &weights[3], call.epsilon);
    let [mut word, mut position, mut segment] = [0, 1, 2].map(|at| vec![0.0; weights[at].len()]);
    let ids = &texts.words[texts.layout.ids()];
    for (_, start, length) in spans(texts) {
        for place in 0..length {
            for d in 0..call.dim {
                let gradient = d_sums[(start + place) * call.dim + d];
                word[ids[start + place] as usize * call.dim + d] += gradient;
                position[(call.position_offset + place) * call.dim + d] += gradient;
                if call.segments {
                    segment[d] += gradient;
                }
            }
        }
    }
    [word, position, segment, d_gamma, d_beta]
}

/// `[texts, dim]`: the means.
pub fn mean(x: &[f64], texts: &PackedTexts, call: &MeanCall) -> Vec<f64> {
    let mut means = vec![0.0; call.texts.texts * call.dim];
    for (text, start, length) in spans(texts) {
        for row in start..start + length {
            for d in 0..call.dim {
                means[text * call.dim + d] += x[row * call.dim + d] / length as f64;
            }
        }
    }
    dropped(&means, call.dim, call.dropout)
}

/// `[rows, dim]`, from the gradient by the means.
pub fn mean_backward(gradient: &[f64], texts: &PackedTexts, call: &MeanCall) -> Vec<f64> {
    let gradient = dropped(gradient, call.dim, call.dropout);
    let mut d_x = vec![0.0; call.texts.rows() * call.dim];
    for (text, start, length) in spans(texts) {
        for row in start..start + length {
            for d in 0..call.dim {
                d_x[row * call.dim + d] = gradient[text * call.dim + d] / length as f64;
            }
        }
    }
    d_x
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => x * normal(x),
        Activation::GeluTanh => x * (1.0 + tanh_argument(x).tanh()) / 2.0,
        Activation::Relu => x.max(0.0),
    }
}

/// Its derivative.
fn slope(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => normal(x) + x * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt(),
        Activation::GeluTanh => {
            let tanh = tanh_argument(x).tanh();
            let inner = std::f64::consts::FRAC_2_PI.sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
            (1.0 + tanh) / 2.0 + x * (1.0 - tanh * tanh) * inner / 2.0
        }
        Activation::Relu => f64::from(x > 0.0),
    }
}

fn tanh_argument(x: f64) -> f64 {
    std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)
}

/// The normal distribution function, by the series of positive terms `phi(x) (x + x^3 / 3 + x^5 / (3 5) + ...)`.
fn normal(x: f64) -> f64 {
    if x.abs() > 9.0 {
        return f64::from(x > 0.0);
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..300 {
        term *= x * x / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// Number, first row and length of every text.
fn spans(texts: &PackedTexts) -> Vec<(usize, usize, usize)> {
    let starts = &texts.words[texts.layout.starts()];
    starts.windows(2).enumerate().map(|(text, w)| (text, w[0] as usize, (w[1] - w[0]) as usize)).collect()
}

/// The softmax of one query's scores.
fn probabilities(
    queries: &[f64],
    keys: &[f64],
    call: &LayerCall,
    at: impl Fn(usize, usize) -> usize,
    query: usize,
    length: usize,
) -> Vec<f64> {
    let width = call.dim / call.heads;
    let scores: Vec<f64> = (0..length)
        .map(|key| (0..width).map(|d| queries[at(query, d)] * keys[at(key, d)]).sum::<f64>() / (width as f64).sqrt())
        .collect();
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
    scores.iter().map(|score| (score - highest).exp() / total).collect()
}

fn factor(dropout: Dropout, row: usize, column: usize) -> f64 {
    f64::from(dropout.factor(row, column))
}

fn dropped(x: &[f64], columns: usize, dropout: Dropout) -> Vec<f64> {
    x.iter().enumerate().map(|(at, x)| x * factor(dropout, at / columns, at % columns)).collect()
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn padded(mut x: Vec<f64>, length: usize) -> Vec<f64> {
    x.resize(length, 0.0);
    x
}

fn linear(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    let mut y = Vec::new();
    for x in x.chunks(inputs) {
        for o in 0..outputs {
            y.push(bias[o] + (0..inputs).map(|i| x[i] * weight[i * outputs + o]).sum::<f64>());
        }
    }
    y
}

/// By the input, the weight and the bias.
fn linear_backward(
    gradient: &[f64],
    x: &[f64],
    weight: &[f64],
    inputs: usize,
    outputs: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut d_x, mut d_weight, mut d_bias) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; outputs]);
    for (row, d_y) in gradient.chunks(outputs).enumerate() {
        for o in 0..outputs {
            d_bias[o] += d_y[o];
            for i in 0..inputs {
                d_x[row * inputs + i] += d_y[o] * weight[i * outputs + o];
                d_weight[i * outputs + o] += d_y[o] * x[row * inputs + i];
            }
        }
    }
    (d_x, d_weight, d_bias)
}

/// Mean, and reciprocal of the standard deviation.
fn statistics(x: &[f64], epsilon: f32) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    (mean, 1.0 / (variance + f64::from(epsilon)).sqrt())
}

fn norm(x: &[f64], gamma: &[f64], beta: &[f64], epsilon: f32) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks(gamma.len()) {
        let (mean, scale) = statistics(x, epsilon);
        y.extend((0..x.len()).map(|d| (x[d] - mean) * scale * gamma[d] + beta[d]));
    }
    y
}

/// By the input, gamma and beta.
fn norm_backward(gradient: &[f64], x: &[f64], gamma: &[f64], epsilon: f32) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let dim = gamma.len();
    let (mut d_x, mut d_gamma, mut d_beta) = (Vec::new(), vec![0.0; dim], vec![0.0; dim]);
    for (d_y, x) in gradient.chunks(dim).zip(x.chunks(dim)) {
        let (mean, scale) = statistics(x, epsilon);
        let normed: Vec<f64> = x.iter().map(|x| (x - mean) * scale).collect();
        let g: Vec<f64> = d_y.iter().zip(gamma).map(|(d, gamma)| d * gamma).collect();
        let along_one = g.iter().sum::<f64>() / dim as f64;
        let along_normed = g.iter().zip(&normed).map(|(g, n)| g * n).sum::<f64>() / dim as f64;
        for d in 0..dim {
            d_gamma[d] += d_y[d] * normed[d];
            d_beta[d] += d_y[d];
            d_x.push(scale * (g[d] - along_one - normed[d] * along_normed));
        }
    }
    (d_x, d_gamma, d_beta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::KernelPath;

    fn values(count: usize, seed: u32) -> Vec<f64> {
        let bits = |at| crate::random::pair_bits(crate::random::row_key(seed, 1), at as u32);
        (0..count).map(|at| f64::from(bits(at)) / f64::from(u32::MAX) * 1.6 - 0.8).collect()
    }

    /// That every derivative of `sum(f * direction)` by an input is the gradient, by central differences.
    fn check(inputs: &[Vec<f64>], gradients: &[Vec<f64>], direction: &[f64], f: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
        const STEP: f64 = 1e-5;
        for (which, input) in inputs.iter().enumerate() {
            assert_eq!(input.len(), gradients[which].len());
            for at in 0..input.len() {
                let value = |step: f64| -> f64 {
                    let mut moved = inputs.to_vec();
                    moved[which][at] += step;
                    f(&moved).iter().zip(direction).map(|(y, d)| y * d).sum()
                };
                let slope = (value(STEP) - value(-STEP)) / (2.0 * STEP);
                let gradient = gradients[which][at];
                assert!((slope - gradient).abs() < 1e-6 * (1.0 + slope.abs()), "{which}, {at}: {slope}, {gradient}");
            }
        }
    }

    fn texts() -> PackedTexts {
        PackedTexts::new(&[vec![2, 0, 2], vec![], vec![1], vec![0, 3]])
    }

    #[test]
    fn gradients_of_a_layer_are_its_derivatives() {
        let texts = texts();
        let layout = texts.layout;
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            for probability in [0.0, 0.3] {
                let site = |site| Dropout::new(5, site, probability);
                let call = LayerCall {
                    texts: layout,
                    dim: 6,
                    heads: 2,
                    wide: 5,
                    activation,
                    epsilon: 1e-3,
                    probabilities: site(0),
                    attention: site(1),
                    feed_forward: site(2),
                    keep: true,
                    activations: crate::encoder::Activations::Balanced,
                    kernels: KernelPath::default(),
                };
                let sizes = [36, 6, 36, 6, 36, 6, 36, 6, 6, 6, 30, 5, 30, 6, 6, 6];
                let mut inputs = vec![padded(values(layout.tokens * 6, 3), layout.rows() * 6)];
                inputs.extend(sizes.iter().zip(10..).map(|(size, seed)| values(*size, seed)));
                let direction = values(layout.rows() * 6, 4);
                let layer_of = |inputs: &[Vec<f64>]| -> Layer { inputs[1..].to_vec().try_into().expect("16 weights") };
                let (d_x, d_weights) = layer_backward(&direction, &inputs[0], &layer_of(&inputs), &texts, &call);
                let gradients: Vec<_> = [d_x].into_iter().chain(d_weights).collect();
                check(&inputs, &gradients, &direction, |inputs| layer(&inputs[0], &layer_of(inputs), &texts, &call));
            }
        }
    }

    #[test]
    fn gradients_of_embeddings_and_means_are_their_derivatives() {
        let texts = texts();
        let layout = texts.layout;
        for (segments, probability) in [(false, 0.0), (true, 0.3)] {
            let dropout = Dropout::new(5, 7, probability);
            let call = EmbeddingCall { texts: layout, dim: 5, position_offset: 2, segments, epsilon: 1e-3, dropout };
            let inputs: Vec<_> = [25, 30, 10, 5, 5].iter().zip(1..).map(|(n, seed)| values(*n, seed)).collect();
            let direction = values(layout.rows() * 5, 9);
            let of = |inputs: &[Vec<f64>]| -> Embedding { inputs.to_vec().try_into().expect("5 weights") };
            let gradients = embed_backward(&direction, &of(&inputs), &texts, &call);
            check(&inputs, &gradients, &direction, |inputs| embed(&of(inputs), &texts, &call));

            let call = MeanCall { texts: layout, dim: 5, dropout };
            let x = vec![values(layout.rows() * 5, 8)];
            let direction = values(layout.texts * 5, 6);
            let gradients = vec![mean_backward(&direction, &texts, &call)];
            check(&x, &gradients, &direction, |x| mean(&x[0], &texts, &call));
        }
    }

    #[test]
    fn normal_distribution() {
        for (x, expected) in
            [(0.0, 0.5), (1.0, 0.841344746068543), (-1.96, 0.024997895148220), (5.0, 0.999999713348428)]
        {
            assert!((normal(x) - expected).abs() < 1e-13, "{x}");
        }
    }
}
