//! The non-linearity of the feed-forward blocks, as configurations name it.

use elmo_kernels::encoder as kernels;
use serde::{Deserialize, Serialize};

/// Non-linearity of the feed-forward blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `x Phi(x)` with the normal distribution function `Phi`; not the tanh approximation.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// The tanh approximation: `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluTanh,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// The names that are read, as a message lists them.
    pub(super) const READ: &str =
        "one of `gelu`, `gelu_python` (the same), `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast` (the same), `relu`";
}

impl From<Activation> for kernels::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Gelu => Self::Gelu,
            Activation::GeluTanh => Self::GeluTanh,
            Activation::Relu => Self::Relu,
        }
    }
}
