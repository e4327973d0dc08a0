//! The transformer of all families: embeddings, and layers that end in a norm (post-norm).
//!
//! Families differ in [`Switches`], sizes and the names of their tensors. The modules here hold the parameters; the
//! arithmetic, forward and backward, is in `elmo_kernels::encoder`: a layer is one operation there, on texts without
//! padding. No pooler, no key-value cache, no cross attention: they are not used here.

use burn::{
    module::{Module, Param},
    nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig},
    tensor::{Device, Tensor},
};
use elmo_kernels::{
    KernelPath,
    encoder::{self as kernels, Activations, EmbeddingCall, LayerCall},
};

use super::{Activation, Inputs, TransformerConfig, dropout::Dropouts, sizes::Switches};

impl TransformerConfig {
    /// A model with fresh weights: normal(0, `initializer_range`), biases 0, norms 1 and 0.
    ///
    /// # Panics
    /// If [`violation`](Self::violation) finds one.
    pub(super) fn init(&self, switches: Switches, device: &Device) -> Transformer {
        if let Some((field, expected, found)) = self.violation(switches) {
            panic!("{field}: expected {expected}, found {found}");
        }
        Transformer {
            embeddings: Embeddings::new(self, switches, device),
            layers: (0..self.num_hidden_layers).map(|_| Layer::new(self, device)).collect(),
        }
    }

    fn normal(&self) -> Initializer {
        Initializer::Normal { mean: 0.0, std: self.initializer_range }
    }

    fn embedding(&self, rows: usize, device: &Device) -> Embedding {
        EmbeddingConfig::new(rows, self.hidden_size).with_initializer(self.normal()).init(device)
    }

    fn linear(&self, d_input: usize, d_output: usize, device: &Device) -> Linear {
        let linear = LinearConfig::new(d_input, d_output).with_initializer(self.normal()).init(device);
        Linear {
            // The initializer above is the weight's and the bias's alike.
            bias: Some(Initializer::Zeros.init([d_output], device)),
            ..linear
        }
    }

    fn norm(&self, device: &Device) -> Norm {
        let width = [self.hidden_size];
        Norm { gamma: Initializer::Ones.init(width, device), beta: Initializer::Zeros.init(width, device) }
    }
}

/// A transformer without pooler. Made by [`TransformerConfig`].
#[derive(Module, Debug)]
pub(super) struct Transformer {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

/// How a pass through the transformer is done.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Where dropout comes from.
    pub dropouts: Dropouts,
    /// The most of a GPU that kernels may use.
    pub kernels: KernelPath,
    /// What of a layer is kept for the backward pass.
    pub activations: Activations,
}

impl Transformer {
    /// The width of a token's vector.
    pub fn dim(&self) -> usize {
        let [_, width] = self.embeddings.word.weight.lazy_shape().dims();
        width
    }

    /// The vectors that the `last` layers have for every token, the last layer's first; the embeddings count as one
    /// layer more. Each is `[rows, hidden_size]`, see [`TextLayout`](elmo_kernels::encoder::TextLayout).
    ///
    /// # Panics
    ///
    /// Panics if a text has more tokens than the model has positions.
    pub fn forward(&self, inputs: &Inputs, manner: Manner, last: usize) -> Vec<Tensor<2>> {
        let mut hidden = self.embeddings.forward(inputs, manner);
        let mut kept = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            if number + last > self.layers.len() {
                kept.push(hidden.clone());
            }
            hidden = layer.forward(hidden, inputs, manner, (1 + number * Layer::DROPOUTS) as u32);
        }
        kept.push(hidden);
        kept.reverse();
        kept
    }
}

/// Layer norm (Ba et al., 2016).
#[derive(Module, Debug)]
struct Norm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
}

impl Norm {
    fn weights(&self) -> kernels::Norm<burn::backend::Dispatch> {
        kernels::Norm::new(self.gamma.val(), self.beta.val())
    }
}

#[derive(Module, Debug)]
struct Embeddings {
    word: Embedding,
    position: Embedding,
    /// Absent in families without segments.
    token_type: Option<Embedding>,
    norm: Norm,
    #[module(skip)]
    position_offset: usize,
    #[module(skip)]
    epsilon: f32,
    #[module(skip)]
    dropout: f64,
}

impl Embeddings {
    fn new(config: &TransformerConfig, switches: Switches, device: &Device) -> Self {
        Self {
            word: config.embedding(config.vocab_size, device),
            position: config.embedding(config.max_position_embeddings, device),
            token_type: (switches.token_types).then(|| config.embedding(config.type_vocab_size, device)),
            norm: config.norm(device),
            position_offset: config.position_offset(switches),
            epsilon: config.layer_norm_eps as f32,
            dropout: config.hidden_dropout_prob,
        }
    }

    fn forward(&self, inputs: &Inputs, manner: Manner) -> Tensor<2> {
        let word = self.word.weight.val();
        let call = EmbeddingCall {
            texts: inputs.layout,
            dim: word.dims()[1],
            position_offset: self.position_offset,
            segments: self.token_type.is_some(),
            epsilon: self.epsilon,
            dropout: manner.dropouts.at(0, self.dropout),
        };
        let segment = self.token_type.as_ref().map(|segment| segment.weight.val());
        let weights = kernels::EmbeddingWeights::new(word, self.position.weight.val(), segment, self.norm.weights());
        kernels::embed(weights, inputs.words.clone(), call)
    }
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    intermediate: Linear,
    output: Linear,
    norm: Norm,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    epsilon: f32,
    #[module(skip)]
    dropout: f64,
}

/// The parameters of multi-head self-attention and of the norm that follows.
#[derive(Module, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: Norm,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    dropout: f64,
}

impl Layer {
    /// Places of dropout in a layer.
    const DROPOUTS: usize = 3;

    fn new(config: &TransformerConfig, device: &Device) -> Self {
        let (narrow, wide) = (config.hidden_size, config.intermediate_size);
        let square = || config.linear(narrow, narrow, device);
        Self {
            attention: Attention {
                query: square(),
                key: square(),
                value: square(),
                output: square(),
                norm: config.norm(device),
                heads: config.num_attention_heads,
                dropout: config.attention_probs_dropout_prob,
            },
            intermediate: config.linear(narrow, wide, device),
            output: config.linear(wide, narrow, device),
            norm: config.norm(device),
            activation: config.hidden_act,
            epsilon: config.layer_norm_eps as f32,
            dropout: config.hidden_dropout_prob,
        }
    }

    /// `[rows, hidden_size]` to the same; its dropouts begin with number `place`.
    fn forward(&self, hidden: Tensor<2>, inputs: &Inputs, manner: Manner, place: u32) -> Tensor<2> {
        let attention = &self.attention;
        let [dim, wide] = self.intermediate.weight.lazy_shape().dims();
        let call = LayerCall {
            texts: inputs.layout,
            dim,
            heads: attention.heads,
            wide,
            activation: self.activation.into(),
            epsilon: self.epsilon,
            probabilities: manner.dropouts.at(place, attention.dropout),
            attention: manner.dropouts.at(place + 1, self.dropout),
            feed_forward: manner.dropouts.at(place + 2, self.dropout),
            // Set by autodiff, where there is a backward pass.
            keep: false,
            activations: manner.activations,
            kernels: manner.kernels,
        };
        let weights = kernels::LayerWeights {
            query: affine(&attention.query),
            key: affine(&attention.key),
            value: affine(&attention.value),
            output: affine(&attention.output),
            attention_norm: attention.norm.weights(),
            up: affine(&self.intermediate),
            down: affine(&self.output),
            norm: self.norm.weights(),
        };
        kernels::layer(hidden, weights, inputs.words.clone(), call)
    }
}

fn affine(layer: &Linear) -> kernels::Affine<burn::backend::Dispatch> {
    let bias = layer.bias.as_ref().expect("all linear layers of these families have a bias");
    kernels::Affine::new(layer.weight.val(), bias.val())
}
