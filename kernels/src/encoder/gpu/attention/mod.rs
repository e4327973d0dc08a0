//! Multi-head self-attention within each text, forward and backward.

mod mma;
mod portable;
#[cfg(test)]
mod tests;

use burn_cubecl::tensor::CubeTensor;

use super::super::{problem::Dropout, texts::TextLayout};
use crate::path::KernelPath;
use mma::Mma;

/// The attention of a batch. Queries, keys and values lie side by side in `[rows, 3 dim]`.
pub struct Attention<'a> {
    pub texts: TextLayout,
    /// U32: the lists of the texts.
    pub words: &'a CubeTensor,
    pub dim: usize,
    pub heads: usize,
    /// Of the probabilities.
    pub dropout: Dropout,
    pub most: KernelPath,
}

impl Attention<'_> {
    /// The heads' results into `context`, `[rows, dim]`; zero in rows without a token.
    pub fn forward(&self, qkv: &CubeTensor, context: &CubeTensor) {
        match Mma::new(self, qkv, mma::FORWARD) {
            Some(mma) => mma.forward(qkv, context),
            None => portable::forward(self, qkv, context),
        }
    }

    /// From the gradient by the heads' results that by `qkv`, zero in rows without a token; and the results again.
    pub fn backward(&self, qkv: &CubeTensor, gradient: &CubeTensor, qkv_gradient: &CubeTensor, context: &CubeTensor) {
        match Mma::new(self, qkv, mma::BACKWARD) {
            Some(mma) => mma.backward(qkv, gradient, qkv_gradient, context),
            None => portable::backward(self, qkv, gradient, qkv_gradient, context),
        }
    }

    /// Numbers of a head.
    fn width(&self) -> usize {
        self.dim / self.heads
    }
}
