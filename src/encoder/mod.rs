//! Text encoders: token ids in, one vector a text out.
//!
//! The room has one door. [`EncoderConfig`] says which family and how large, and makes an [`Encoder`] with fresh or
//! pretrained weights; [`Encoder::forward`] embeds texts; [`Encoder::forward_train`] hands back a [`Pass`], which
//! takes the gradient of the embedding and gives those of the parameters.

mod activation;
mod affine;
mod bert;
mod config;
mod config_json;
mod dropout;
mod facts;
mod family;
mod folder;
mod inputs;
mod pass;
mod pooling;
mod shown;
#[cfg(test)]
mod tests;
mod transformer;
mod weights;

use burn::{
    module::Module,
    nn::{Dropout, DropoutConfig},
    tensor::{DType, FloatDType, Tensor},
};

pub use activation::Activation;
pub use config::EncoderConfig;
pub use family::Family;
pub use inputs::Inputs;
pub use pass::Pass;
pub use pooling::last_hidden_avg;
use transformer::Transformer;
pub use transformer::TransformerConfig;

/// A transformer with pooling, and dropout on the embedding in training. Built by [`EncoderConfig`].
#[derive(Module, Debug)]
pub struct Encoder {
    /// Of whatever family; the first one gave the field its name, which stands in all checkpoints.
    bert: Transformer,
    dropout: Dropout,
}

impl Encoder {
    fn new(bert: Transformer) -> Self {
        Self { bert, dropout: DropoutConfig::new(0.0).init() }
    }

    /// The same with this probability that an element of the embedding is dropped in training.
    ///
    /// # Panics
    /// If it is outside `[0, 1]`.
    pub fn with_embedding_dropout(mut self, probability: f64) -> Self {
        self.dropout = DropoutConfig::new(probability).init();
        self
    }

    /// One vector for each row: the mean over its real tokens. Padding does not change a row's vector.
    ///
    /// On an autodiff device dropout is active.
    ///
    /// # Shapes
    /// - returns `[batch, dim]`
    ///
    /// # Panics
    /// If there are more tokens than the encoder has positions.
    pub fn forward(&self, inputs: Inputs) -> Tensor<2> {
        let Inputs { ids, mask } = inputs;
        let pooled = last_hidden_avg(self.bert.forward(ids, mask.clone()), mask);
        dropout::dropout(&self.dropout, pooled)
    }

    /// The width of the output.
    pub fn dim(&self) -> usize {
        self.bert.dim()
    }

    /// A weight with one of these in its path does not decay: biases, and both vectors of a layer norm.
    pub const WITHOUT_DECAY: [&str; 3] = ["bias", "gamma", "beta"];

    /// The number of weights, all of them trainable.
    pub fn parameter_count(&self) -> usize {
        self.num_params()
    }
}

/// The type to compute in where 16 bits would lose too much.
fn accumulation_dtype(dtype: DType) -> FloatDType {
    match dtype {
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    }
}
