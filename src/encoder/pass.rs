//! One training pass through the encoder: forward, then backward from the gradient of the embedding.
//!
//! Whoever trains sees two calls and plain tensors; that autodiff does the work stays in here.

use burn::{optim::GradientsParams, tensor::Tensor};

use super::{Encoder, Inputs, dropout::Dropouts};

/// A batch on its way through the encoder: made by [`Encoder::forward_train`], finished by
/// [`backward`](Self::backward).
pub struct Pass {
    /// `[batch, dim]`, off the autodiff graph: the embedding of every row, dropout included.
    pub embedding: Tensor<2>,
    /// The same on the graph.
    tracked: Tensor<2>,
    /// Whose gradients are asked for.
    encoder: Encoder,
}

impl Encoder {
    /// The embedding of every row with dropout, and what the backward pass needs.
    ///
    /// The dropout is a function of `key`, so that a step can be repeated, on every device.
    ///
    /// # Panics
    /// If a text has more tokens than the encoder has positions, or its parameters are not on an autodiff device.
    pub fn forward_train(&self, inputs: Inputs, key: u64) -> Pass {
        let tracked = self.embed(&inputs, Dropouts::of_pass(key));
        Pass { embedding: tracked.clone().inner(), tracked, encoder: self.clone() }
    }
}

impl Pass {
    /// The gradients of the encoder's parameters.
    ///
    /// # Shapes
    /// - `gradient`: `[batch, dim]`, of the loss by [`embedding`](Self::embedding); of any float type
    pub fn backward(self, gradient: Tensor<2>) -> GradientsParams {
        let Self { embedding, tracked, encoder } = self;
        drop(embedding);
        let gradient = Tensor::from_inner(gradient.cast(tracked.dtype()));
        // A scalar whose gradient by the embedding is the one given.
        let surrogate = (tracked * gradient).sum();
        GradientsParams::from_grads(surrogate.backward(), &encoder)
    }
}
