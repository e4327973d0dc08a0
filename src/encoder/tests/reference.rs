//! BERT once more, a token at a time in F64 and without padding, straight from the formulas.

use std::collections::BTreeMap;

use super::{Activation, TransformerConfig};

/// Hugging Face name to shape and values.
pub type Weights = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

/// A small model with weights large enough for every part to show in the result.
pub fn tiny() -> (TransformerConfig, Weights) {
    let config = TransformerConfig {
        vocab_size: 11,
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_position_embeddings: 8,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.5,
        ..TransformerConfig::default()
    };
    let (d, wide) = (config.hidden_size, config.intermediate_size);
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![11, d]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![8, d]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, d]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![d]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![d]),
    ];
    for layer in 0..config.num_hidden_layers {
        for (name, output, input) in [
            ("attention.self.query", d, d),
            ("attention.self.key", d, d),
            ("attention.self.value", d, d),
            ("attention.output.dense", d, d),
            ("intermediate.dense", wide, d),
            ("output.dense", d, wide),
        ] {
            let name = format!("encoder.layer.{layer}.{name}");
            shapes.push((format!("{name}.weight"), vec![output, input]));
            shapes.push((format!("{name}.bias"), vec![output]));
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            let name = format!("encoder.layer.{layer}.{name}");
            shapes.push((format!("{name}.weight"), vec![d]));
            shapes.push((format!("{name}.bias"), vec![d]));
        }
    }
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // F32 numbers in [-0.8, 0.8), so that writing them as F32 loses nothing.
        f64::from(((state >> 40) as f32 / (1u32 << 24) as f32) * 1.6 - 0.8)
    };
    let weights = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product()).map(|_| uniform()).collect();
            (name, (shape, values))
        })
        .collect();
    (config, weights)
}

/// The mean of the last layer's vectors for one text.
pub fn encode(config: &TransformerConfig, weights: &Weights, ids: &[u32]) -> Vec<f64> {
    let get = |name: &str| weights[name].1.as_slice();
    let d = config.hidden_size;
    let row = |name: &str, i: usize| &get(name)[i * d..(i + 1) * d];
    let linear = |name: &str, x: &[f64]| -> Vec<f64> {
        let bias = get(&format!("{name}.bias"));
        get(&format!("{name}.weight")).chunks(x.len()).zip(bias).map(|(w, b)| dot(w, x) + b).collect()
    };
    let norm = |name: &str, x: &[f64]| -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let deviation = (variance + config.layer_norm_eps).sqrt();
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        (0..x.len()).map(|i| (x[i] - mean) / deviation * weight[i] + bias[i]).collect()
    };

    let mut tokens: Vec<Vec<f64>> = ids
        .iter()
        .enumerate()
        .map(|(position, &id)| {
            let word = row("embeddings.word_embeddings.weight", id as usize);
            let position = row("embeddings.position_embeddings.weight", position);
            let segment = row("embeddings.token_type_embeddings.weight", 0);
            norm("embeddings.LayerNorm", &add(&add(word, position), segment))
        })
        .collect();

    let head = d / config.num_attention_heads;
    for layer in 0..config.num_hidden_layers {
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        let project = |part: &str| -> Vec<Vec<f64>> { tokens.iter().map(|x| linear(&at(part), x)).collect() };
        let query = project("attention.self.query");
        let key = project("attention.self.key");
        let value = project("attention.self.value");
        tokens = (0..tokens.len())
            .map(|i| {
                let mut context = vec![0.0; d];
                for h in (0..d).step_by(head) {
                    let scores: Vec<f64> = key
                        .iter()
                        .map(|k| dot(&query[i][h..h + head], &k[h..h + head]) / (head as f64).sqrt())
                        .map(f64::exp)
                        .collect();
                    let sum: f64 = scores.iter().sum();
                    for (score, v) in scores.iter().zip(&value) {
                        for j in h..h + head {
                            context[j] += score / sum * v[j];
                        }
                    }
                }
                let update = linear(&at("attention.output.dense"), &context);
                let x = norm(&at("attention.output.LayerNorm"), &add(&tokens[i], &update));
                let wide: Vec<f64> = linear(&at("intermediate.dense"), &x)
                    .into_iter()
                    .map(|v| match config.hidden_act {
                        Activation::Gelu => v * normal_distribution(v),
                        Activation::GeluTanh => {
                            let inner = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3));
                            v / 2.0 * (1.0 + inner.tanh())
                        }
                        Activation::Relu => v.max(0.0),
                    })
                    .collect();
                let update = linear(&at("output.dense"), &wide);
                norm(&at("output.LayerNorm"), &add(&x, &update))
            })
            .collect();
    }
    let sum = tokens.iter().fold(vec![0.0; d], |sum, x| add(&sum, x));
    sum.into_iter().map(|v| v / ids.len() as f64).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + ...)`, all terms of one sign; good for |x| < 10.
fn normal_distribution(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..300 {
        term *= x * x / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}
