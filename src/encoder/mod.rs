//! Text encoders: token ids in, one vector a text out.
//!
//! The room has one door. [`EncoderConfig`] says which family and how large, and makes an [`Encoder`] with fresh or
//! pretrained weights; [`Encoder::forward`] embeds texts; [`Encoder::forward_train`] hands back a [`Pass`], which
//! takes the gradient of the embedding and gives those of the parameters.

mod activation;
mod bert;
mod config;
mod config_json;
mod distilbert;
mod dropout;
mod facts;
mod family;
mod folder;
mod inputs;
mod pass;
mod pooling;
mod roberta;
mod shown;
mod sizes;
#[cfg(test)]
mod tests;
mod transformer;
mod weights;

use burn::{module::Module, nn::Linear, tensor::Tensor};
use elmo_kernels::KernelPath;

pub use activation::Activation;
pub use config::EncoderConfig;
use dropout::Dropouts;
pub use elmo_kernels::encoder::{Activations, PackedTexts};
pub use family::Family;
pub use inputs::Inputs;
pub use pass::Pass;
pub use pooling::{Output, PoolMode};
pub use sizes::TransformerConfig;
use transformer::{Manner, Transformer};

/// A transformer with pooling, dropout in training, and a bottleneck layer if there is to be one. Built by
/// [`EncoderConfig`].
#[derive(Module, Debug)]
pub struct Encoder {
    /// Of whatever family; the first one gave the field its name, which stands in all checkpoints.
    bert: Transformer,
    /// Behind pooling and its dropout.
    bottleneck: Option<Linear>,
    #[module(skip)]
    pool_mode: PoolMode,
    #[module(skip)]
    feature_layers: usize,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    kernels: KernelPath,
    #[module(skip)]
    activations: Activations,
}

impl Encoder {
    fn new(bert: Transformer, output: Output, bottleneck: Option<Linear>) -> Self {
        let Output { pool_mode, feature_layers, .. } = output;
        let (kernels, activations) = (KernelPath::default(), Activations::default());
        Self { bert, bottleneck, pool_mode, feature_layers, dropout: 0.0, kernels, activations }
    }

    /// The same with this probability that an element of the text's vector is dropped in training, before the bottleneck
    /// layer if there is one.
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

    /// One vector for each row; of a text without tokens pooling makes zeros. A row's vector does not depend on the other
    /// rows.
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
        let manner = Manner { dropouts, kernels: self.kernels, activations: self.activations };
        let hidden = self.bert.forward(inputs, manner, self.feature_layers);
        let dropout = dropouts.at(Dropouts::EMBEDDING, self.dropout);
        let pooled = pooling::pool(self.pool_mode, hidden, inputs, dropout);
        match &self.bottleneck {
            Some(bottleneck) => bottleneck.forward(pooled),
            None => pooled,
        }
    }

    /// The width of the output.
    pub fn dim(&self) -> usize {
        match &self.bottleneck {
            Some(bottleneck) => bottleneck.weight.lazy_shape().dims::<2>()[1],
            None => self.feature_layers * self.bert.dim(),
        }
    }

    /// A weight with one of these in its path does not decay: biases, both vectors of a layer norm, the bottleneck layer.
    pub const WITHOUT_DECAY: [&str; 4] = ["bias", "gamma", "beta", "bottleneck"];

    /// The number of weights, all of them trainable.
    pub fn parameter_count(&self) -> usize {
        self.num_params()
    }
}
