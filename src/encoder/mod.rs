//! Text encoders: token ids in, one vector a text out.
//!
//! The room has one door. [`EncoderConfig`] says which family and how large, and makes an [`Encoder`] with fresh or
//! pretrained weights; [`Encoder::forward`] embeds texts; [`Encoder::forward_train`] hands back a [`Pass`], which
//! takes the gradient of the embedding and gives those of the parameters.

mod activation;
mod bert;
mod config;
mod config_json;
mod dropout;
mod facts;
mod family;
mod folder;
mod inputs;
mod pass;
mod shown;
#[cfg(test)]
mod tests;
mod transformer;
mod weights;

use burn::{module::Module, tensor::Tensor};
use elmo_kernels::{
    KernelPath,
    encoder::{self as kernels, MeanCall},
};

pub use activation::Activation;
pub use config::EncoderConfig;
use dropout::Dropouts;
pub use elmo_kernels::encoder::{Activations, PackedTexts};
pub use family::Family;
pub use inputs::Inputs;
pub use pass::Pass;
pub use transformer::TransformerConfig;
use transformer::{Manner, Transformer};

/// A transformer with pooling, and dropout on the embedding in training. Built by [`EncoderConfig`].
#[derive(Module, Debug)]
pub struct Encoder {
    /// Of whatever family; the first one gave the field its name, which stands in all checkpoints.
    bert: Transformer,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    kernels: KernelPath,
    #[module(skip)]
    activations: Activations,
}

impl Encoder {
    fn new(bert: Transformer) -> Self {
        Self { bert, dropout: 0.0, kernels: KernelPath::default(), activations: Activations::default() }
    }

    /// The same with this probability that an element of the embedding is dropped in training.
    ///
    /// # Panics
    /// If it is outside `[0, 1)`.
    pub fn with_embedding_dropout(mut self, probability: f64) -> Self {
        assert!((0.0..1.0).contains(&probability), "a probability of {probability}");
        self.dropout = probability;
        self
    }

    /// The same with this much of a GPU used; all of it by default.
    pub fn with_kernels(mut self, most: KernelPath) -> Self {
        self.kernels = most;
        self
    }

    /// The same with so much of every layer kept for the backward pass. It changes memory and time, never the result.
    pub fn with_activations(mut self, activations: Activations) -> Self {
        self.activations = activations;
        self
    }

    /// What of every layer is kept for the backward pass.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// One vector for each row: the mean over its tokens; zero for a text without tokens. A row's vector does not
    /// depend on the other rows.
    ///
    /// Nothing is dropped; on an autodiff device the result is on the graph.
    ///
    /// # Shapes
    /// - returns `[batch, dim]`
    ///
    /// # Panics
    /// If a text has more tokens than the encoder has positions.
    pub fn forward(&self, inputs: Inputs) -> Tensor<2> {
        self.embed(&inputs, Dropouts::NONE)
    }

    /// [`forward`](Self::forward) with dropout, a function of `key`: for those who train with a loss of their own. The
    /// same key drops the same elements on every device.
    ///
    /// # Panics
    /// If a text has more tokens than the encoder has positions.
    pub fn forward_dropped(&self, inputs: Inputs, key: u64) -> Tensor<2> {
        self.embed(&inputs, Dropouts::of_pass(key))
    }

    fn embed(&self, inputs: &Inputs, dropouts: Dropouts) -> Tensor<2> {
        let hidden =
            self.bert.forward(inputs, Manner { dropouts, kernels: self.kernels, activations: self.activations });
        let call =
            MeanCall { texts: inputs.layout, dim: self.dim(), dropout: dropouts.at(Dropouts::EMBEDDING, self.dropout) };
        kernels::mean(hidden, inputs.words.clone(), call)
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
