//! Initial weights, drawn by counter and rounded stochastically, so that their variance survives the format.
//!
//! Rounded to nearest, the Xavier-uniform weights of 8.6 million labels (below 0.0008) would all be zero in E4M3.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{layout::stored, problem::Segment};
use crate::numbers::random::{self, Stream};

/// The distribution of initial weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initializer {
    /// Normal with mean 0.
    Normal {
        /// The standard deviation.
        standard_deviation: f32,
    },
    /// Uniform in `[-bound, bound]`.
    Uniform {
        /// The largest magnitude.
        bound: f32,
    },
}

impl Initializer {
    /// Xavier-uniform for a layer of `labels` outputs and `dim` inputs.
    pub fn xavier_uniform(labels: usize, dim: usize) -> Self {
        Self::Uniform { bound: (6.0 / (labels as f64 + dim as f64)).sqrt() as f32 }
    }

    fn draw(self, key: u32, column: u32) -> f32 {
        // 24 bits fill an F32 mantissa; the half keeps the logarithm below finite.
        let uniform = |n: u32| ((random::pair_bits(key, n) >> 8) as f32 + 0.5) / 16_777_216.0;
        match self {
            Self::Uniform { bound } => (2.0 * uniform(2 * column) - 1.0) * bound,
            // Box-Muller.
            Self::Normal { standard_deviation } => {
                let radius = (-2.0 * uniform(2 * column).ln()).sqrt();
                let angle = std::f32::consts::TAU * uniform(2 * column + 1);
                radius * angle.cos() * standard_deviation
            }
        }
    }
}

/// The words of a segment's initial weights.
pub fn initial_words(segment: &Segment, initializer: Initializer, seed: u64) -> Vec<u32> {
    let row_words = segment.precision.row_words(segment.dim);
    let values = random::step_key(seed, Stream::Initial, 0);
    let rounding = random::step_key(seed, Stream::InitialRounding, 0);
    let mut words = vec![0; segment.words()];
    words.par_chunks_mut(row_words).enumerate().for_each_init(
        || vec![0.0; segment.dim],
        |row, (index, words)| {
            let label = segment.first_label + index as u64;
            let key = random::row_key(values, label);
            for (column, value) in row.iter_mut().enumerate() {
                let exact = initializer.draw(key, column as u32);
                *value = stored(segment.precision, exact, rounding, label, column);
            }
            segment.precision.encode_row(row, words);
        },
    );
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Format;

    fn weights(precision: Format, initializer: Initializer, first_label: u64) -> Vec<f32> {
        let segment = Segment { first_label, labels: 700, dim: 130, precision, head: None };
        segment.decode(&initial_words(&segment, initializer, 3))
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|v| *v as f64).sum::<f64>() / n;
        let square = values.iter().map(|v| (*v as f64).powi(2)).sum::<f64>() / n;
        (mean, square)
    }

    #[test]
    fn variance_survives_far_below_the_smallest_code() {
        // The bound for 8.6 million labels; a rounded draw w is 0 or 2^-9, with E[w^2] = E|w| 2^-9.
        let bound = 0.0008;
        let (mean, square) = moments(&weights(Format::E4m3, Initializer::Uniform { bound }, 0));
        let expected = bound as f64 / 2.0 / 512.0;
        assert!(mean.abs() < 1.3e-5, "{mean}");
        assert!((square / expected - 1.0).abs() < 0.03, "{square}");
    }

    #[test]
    fn normal_weights_have_their_deviation() {
        let initializer = Initializer::Normal { standard_deviation: 0.02 };
        let (mean, square) = moments(&weights(Format::F32, initializer, 0));
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((square.sqrt() / 0.02 - 1.0).abs() < 0.01, "{square}");
    }

    #[test]
    fn a_weight_depends_on_its_label_not_on_the_segment() {
        let initializer = Initializer::xavier_uniform(1000, 130);
        let whole = weights(Format::Bf16, initializer, 0);
        let later = weights(Format::Bf16, initializer, 500);
        assert_eq!(whole[500 * 130..], later[..200 * 130]);
    }
}
