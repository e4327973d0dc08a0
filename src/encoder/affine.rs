//! Linear layers and layer norms, with the gradients of their vectors summed in two steps on a GPU.
//!
//! The gradient of a bias is a sum over all tokens of all texts. Burn's reduction gives each of its columns to one
//! unit, which walks thousands of rows by itself: on a large GPU that took half of a training step. So there a vector
//! is spread out over the tokens before it is added: the sum over the texts is then taken for every token and column,
//! and only the sum over the tokens is left to one unit a column.

use burn::{
    module::{Module, Param},
    nn::{Initializer, Linear},
    tensor::{DType, Device, Tensor, module},
};

use crate::device::is_cpu;

/// [`Linear::forward`] on `[batch, tokens, d_input]`.
pub(super) fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    match &layer.bias {
        Some(bias) if !is_cpu(&x.device()) => {
            let [_, tokens, _] = x.dims();
            module::linear(x, layer.weight.val(), None) + spread(bias.val(), tokens)
        }
        _ => layer.forward(x),
    }
}

/// Layer norm (Ba et al., 2016) over the last axis.
#[derive(Module, Debug)]
pub(super) struct Norm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl Norm {
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self { gamma: Initializer::Ones.init([width], device), beta: Initializer::Zeros.init([width], device), epsilon }
    }

    /// `[batch, tokens, width]` to the same; in F32 on a GPU, whatever the type.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        if is_cpu(&x.device()) {
            return module::layer_norm(x, gamma, Some(beta), self.epsilon);
        }
        let dtype = x.dtype();
        let [_, tokens, _] = x.dims();
        let x = x.cast(DType::F32);
        let centred = x.clone() - x.mean_dim(2);
        let variance = (centred.clone() * centred.clone()).mean_dim(2);
        let normal = centred / (variance + self.epsilon).sqrt();
        let vector = |vector: Tensor<1>| spread(vector.cast(DType::F32), tokens);
        (normal * vector(gamma) + vector(beta)).cast(dtype)
    }
}

/// A vector once for every token: `[1, tokens, width]`.
fn spread(vector: Tensor<1>, tokens: usize) -> Tensor<3> {
    let [width] = vector.dims();
    vector.reshape([1, 1, width]).expand([1, tokens, width])
}
