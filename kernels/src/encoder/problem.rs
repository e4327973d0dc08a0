//! What the encoder's operations are asked to do: sizes, non-linearity, dropout.

use std::{fmt, ops::Range, str::FromStr};

use super::texts::TextLayout;
use crate::{
    path::KernelPath,
    random::{pair_bits, row_key},
};

/// Non-linearity of the feed-forward half of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x Phi(x)` with the normal distribution function `Phi`, to within 1e-6.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`
    GeluTanh,
    /// `max(x, 0)`
    Relu,
}

/// Dropout of one place of a pass. An element is kept where its 16 random bits are below [`keep`](Self::keep).
///
/// The bits are a function of the key, of the element's row and of its column: of neither the launch nor the device.
/// Rows count in [`TextLayout`]; those of the attention's probabilities are `text * heads + head` in place of the key's
/// stream, then the query's place in its text, with the key's place as the column: see [`Dropout::probabilities`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dropout {
    /// Of the place in this pass.
    pub key: u32,
    /// Of 65536 values the number that keep the element; 65536 drops nothing.
    pub keep: u32,
}

impl Dropout {
    /// What drops nothing.
    pub const NONE: Self = Self { key: 0, keep: 1 << 16 };

    /// Drops elements with this `probability`, in `[0, 1)`, rounded to 16 bits, in place `site` of the pass of `key`.
    pub fn new(key: u32, site: u32, probability: f64) -> Self {
        let keep = (((1.0 - probability) * 65536.0).round() as u32).clamp(1, 1 << 16);
        Self { key: row_key(key, u64::from(site)), keep }
    }

    /// Whether it drops anything.
    pub fn is_active(self) -> bool {
        self.keep < 1 << 16
    }

    /// What an element that is kept is multiplied by, so that the expectation stays.
    pub fn scale(self) -> f32 {
        (65536.0 / f64::from(self.keep)) as f32
    }

    /// That of the probabilities of one head of one text: rows are queries, columns are keys, both by their place in
    /// the text.
    pub fn probabilities(self, text: usize, head: usize, heads: usize) -> Self {
        Self { key: row_key(self.key, (text * heads + head) as u64), ..self }
    }

    /// What the element is multiplied by: 0 or [`scale`](Self::scale).
    pub fn factor(self, row: usize, column: usize) -> f32 {
        let bits = pair_bits(row_key(self.key, row as u64), column as u32 / 2) >> (16 * (column % 2));
        if bits & 0xffff < self.keep { self.scale() } else { 0.0 }
    }
}

/// How much of a layer lives on until its backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// What costs a product to compute again ([`LayerCall::kept`]): 15 KB a token and layer at width 768 in 16 bits.
    #[default]
    Balanced,
    /// The layer's input alone, a tenth of that: the backward pass computes the layer once more. It gives the same bits.
    Least,
}

impl Activations {
    /// Both, the one that keeps more first.
    pub const ALL: [Self; 2] = [Self::Balanced, Self::Least];

    /// `balanced`, `least`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Least => "least",
        }
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Activations {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|level| level.name() == name);
        level.ok_or_else(|| format!("expected balanced or least, found {name}"))
    }
}

/// One layer's call: sizes and what else is no tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerCall {
    /// The batch.
    pub texts: TextLayout,
    /// Width `D` of a token's vector.
    pub dim: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width `F` between the two linear layers of the feed-forward half.
    pub wide: usize,
    /// Between them.
    pub activation: Activation,
    /// Added to the variance in both norms.
    pub epsilon: f32,
    /// Of the attention's probabilities.
    pub probabilities: Dropout,
    /// Of what the attention adds to its input.
    pub attention: Dropout,
    /// Of what the feed-forward half adds to its input.
    pub feed_forward: Dropout,
    /// Whether this call keeps what its backward pass needs. On a graph of automatic differentiation that is settled by
    /// `activations`, whatever is set here.
    pub keep: bool,
    /// How much of the layer lives on until its backward pass.
    pub activations: Activations,
    /// The most of a GPU that kernels may use.
    pub kernels: KernelPath,
}

impl LayerCall {
    /// Where everything lies that is kept, where a number takes `size` bytes.
    pub fn kept(&self, size: usize) -> Kept {
        let rows = self.texts.rows();
        let mut end = 0;
        let mut add = |bytes: usize| {
            let range = end..end + bytes;
            end += bytes.next_multiple_of(Kept::ALIGNMENT);
            range
        };
        let mut numbers = |columns: usize| add(if self.keep { rows * columns * size } else { 0 });
        Kept {
            qkv: numbers(3 * self.dim),
            attention_sum: numbers(self.dim),
            before_activation: numbers(self.wide),
            sum: numbers(self.dim),
            statistics: add(if self.keep { rows * 4 * 4 } else { 0 }),
        }
    }
}

/// What a layer keeps for its backward pass, beside its input: ranges of bytes in one buffer.
///
/// That is all but what its backward pass gets again as a by-product: the normed sum after the attention, the heads'
/// results and the values of the activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `[rows, 3 dim]`: queries, keys and values side by side, with their biases.
    pub qkv: Range<usize>,
    /// `[rows, dim]`: the sum whose norm the attention's half ends with.
    pub attention_sum: Range<usize>,
    /// `[rows, wide]`: what the activation is applied to.
    pub before_activation: Range<usize>,
    /// `[rows, dim]`: the sum whose norm the layer ends with.
    pub sum: Range<usize>,
    /// F32, `[rows, 2]` for the first norm, then for the second: mean, and reciprocal of the standard deviation.
    pub statistics: Range<usize>,
}

impl Kept {
    /// Of the beginning of each part, in bytes.
    pub(super) const ALIGNMENT: usize = 256;

    /// F32 words of the buffer.
    pub fn words(&self) -> usize {
        (self.statistics.end / 4).max(1)
    }
}

/// The embeddings' call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingCall {
    /// The batch.
    pub texts: TextLayout,
    /// Width of a token's vector.
    pub dim: usize,
    /// The row of the position embedding that the first token of a text has.
    pub position_offset: usize,
    /// Whether the first row of the segment embedding is added to every token.
    pub segments: bool,
    /// Added to the variance in the norm.
    pub epsilon: f32,
    /// Of the embeddings.
    pub dropout: Dropout,
}

impl EmbeddingCall {
    /// F32 words that are kept: for each row the mean and the reciprocal of the standard deviation.
    pub fn kept_words(&self) -> usize {
        2 * self.texts.rows()
    }
}

/// The call of the mean over each text's tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanCall {
    /// The batch.
    pub texts: TextLayout,
    /// Width of a token's vector.
    pub dim: usize,
    /// Of the means; rows are texts.
    pub dropout: Dropout,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_its_share_and_the_expectation() {
        let dropout = Dropout::new(7, 3, 0.25);
        let count = 400 * 250;
        let kept = (0..count).filter(|at| dropout.factor(at / 250, at % 250) != 0.0).count() as f64 / count as f64;
        // Six standard deviations.
        assert!((kept - 0.75).abs() < 6.0 * (0.75 * 0.25 / count as f64).sqrt(), "{kept}");
        assert_eq!(dropout.scale(), (4.0f64 / 3.0) as f32);
        assert!((0..100).all(|at| Dropout::NONE.factor(at, at) == 1.0));
        assert!(!Dropout::new(1, 2, 0.0).is_active());
    }

    #[test]
    fn places_rows_and_columns_differ() {
        let row = |dropout: Dropout, row| (0..64).map(|column| dropout.factor(row, column) != 0.0).collect::<Vec<_>>();
        let dropout = Dropout::new(7, 3, 0.5);
        let other = [
            row(dropout, 1),
            row(Dropout::new(7, 4, 0.5), 0),
            row(Dropout::new(8, 3, 0.5), 0),
            row(dropout.probabilities(0, 0, 12), 0),
            row(dropout.probabilities(0, 1, 12), 0),
            row(dropout.probabilities(1, 0, 12), 0),
        ];
        assert!(other.iter().all(|other| *other != row(dropout, 0)));
    }
}
