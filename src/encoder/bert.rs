//! BERT (Devlin et al., 2019), the encoder part: embeddings and post-norm transformer layers.
//!
//! Written for what one training step costs, on a CPU as on a GPU:
//! - no pooler, no key-value cache, no cross attention: they are not used here;
//! - queries, keys and values are views of three plain products. One fused product would need the
//!   weights joined, or its result cut, in every step, and the backward pass of a cut is a copy;
//! - the attention scale is applied to the queries, which are smaller than the scores as soon as a
//!   text has more tokens than a head is wide.

use burn::{
    module::Module,
    nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig},
    tensor::{Bool, Device, Int, Tensor, activation::softmax},
};
use serde::{Deserialize, Serialize};

use super::{
    Activation,
    affine::{Norm, linear},
    dropout::dropout,
};

/// The shape of a BERT, under the names of a Hugging Face `config.json`.
///
/// Keys that a file lacks take the values of `bert-base-uncased`; keys of other purposes are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width `D` of a token's vector.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    /// Attention heads of a layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width between the two linear layers of a feed-forward block.
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Number of segments. Only the first one is used: there is one text.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    /// Dropout after the embeddings and after either half of a layer, in `[0, 1)`.
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention probabilities, in `[0, 1)`.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Token id that fills up short rows. For the caller: the model goes by the mask alone.
    pub pad_token_id: usize,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            initializer_range: 0.02,
            pad_token_id: 0,
        }
    }
}

impl BertConfig {
    /// A model with fresh weights: normal(0, `initializer_range`), biases 0, norms 1 and 0.
    ///
    /// # Panics
    ///
    /// Panics if a size is zero, `num_attention_heads` does not divide `hidden_size`, or a dropout
    /// probability is outside `[0, 1)`.
    pub fn init(&self, device: &Device) -> Bert {
        if let Some((field, expected, found)) = self.violation() {
            panic!("{field}: expected {expected}, found {found}");
        }
        Bert {
            embeddings: Embeddings::new(self, device),
            layers: (0..self.num_hidden_layers).map(|_| Layer::new(self, device)).collect(),
        }
    }

    /// Whether a model can be made of it; [`init`](Self::init) panics otherwise.
    pub fn is_possible(&self) -> bool {
        self.violation().is_none()
    }

    /// The first field that no model can be made of: its name, what was expected, what is there.
    pub(super) fn violation(&self) -> Option<(&'static str, String, String)> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        if let Some((field, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Some((field, "a positive number".into(), "0".into()));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of the hidden size, {}", self.hidden_size);
            let found = self.num_attention_heads.to_string();
            return Some(("num_attention_heads", expected, found));
        }
        probabilities
            .into_iter()
            .find(|(_, value)| !(0.0..1.0).contains(value))
            .map(|(field, value)| {
                let expected = "a probability, 0 or more and below 1".into();
                (field, expected, value.to_string())
            })
    }

    fn normal(&self) -> Initializer {
        Initializer::Normal {
            mean: 0.0,
            std: self.initializer_range,
        }
    }

    fn embedding(&self, rows: usize, device: &Device) -> Embedding {
        EmbeddingConfig::new(rows, self.hidden_size)
            .with_initializer(self.normal())
            .init(device)
    }

    fn linear(&self, d_input: usize, d_output: usize, device: &Device) -> Linear {
        let linear = LinearConfig::new(d_input, d_output)
            .with_initializer(self.normal())
            .init(device);
        Linear {
            // The initializer above is the weight's and the bias's alike.
            bias: Some(Initializer::Zeros.init([d_output], device)),
            ..linear
        }
    }

    fn norm(&self, device: &Device) -> Norm {
        Norm::new(self.hidden_size, self.layer_norm_eps, device)
    }

    fn dropout(&self) -> Dropout {
        DropoutConfig::new(self.hidden_dropout_prob).init()
    }
}

/// A BERT encoder, without pooler.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

impl Bert {
    /// The width of a token's vector.
    pub fn dim(&self) -> usize {
        let [_, width] = self.embeddings.word.weight.lazy_shape().dims();
        width
    }

    /// The last layer's vector of every token. `mask` is true at real tokens, false at padding.
    ///
    /// The vectors at padding are finite and mean nothing; no other vector depends on them.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, tokens]`
    /// - mask: `[batch, tokens]`
    /// - output: `[batch, tokens, hidden_size]`
    ///
    /// # Panics
    ///
    /// Panics if there are more tokens than the model has positions.
    pub fn forward(&self, ids: Tensor<2, Int>, mask: Tensor<2, Bool>) -> Tensor<3> {
        let hidden = self.embeddings.forward(ids);
        let bias = attention_bias(mask, &hidden);
        self.layers
            .iter()
            .fold(hidden, |hidden, layer| layer.forward(hidden, bias.clone()))
    }
}

/// What is added to the attention scores `[batch, heads, query, key]`: 0 for a real key, for
/// padding a number so low that its probability is exactly zero.
///
/// Half the lowest number of the type: with the score added it is still finite, so that a row
/// without any real token gets finite garbage rather than NaN, which would poison all gradients.
fn attention_bias(mask: Tensor<2, Bool>, like: &Tensor<3>) -> Tensor<4> {
    let dtype = like.dtype();
    let lowest = dtype.finfo().expect("activations are floats").min;
    let [batch, tokens] = mask.dims();
    Tensor::<2>::zeros([batch, tokens], (&like.device(), dtype))
        .mask_fill(mask.bool_not(), lowest / 2.0)
        .reshape([batch, 1, 1, tokens])
}

#[derive(Module, Debug)]
struct Embeddings {
    word: Embedding,
    position: Embedding,
    token_type: Embedding,
    norm: Norm,
    dropout: Dropout,
}

impl Embeddings {
    fn new(config: &BertConfig, device: &Device) -> Self {
        Self {
            word: config.embedding(config.vocab_size, device),
            position: config.embedding(config.max_position_embeddings, device),
            token_type: config.embedding(config.type_vocab_size, device),
            norm: config.norm(device),
            dropout: config.dropout(),
        }
    }

    /// `[batch, tokens]` to `[batch, tokens, hidden_size]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, tokens] = ids.dims();
        let [positions, _] = self.position.weight.dims();
        assert!(
            tokens <= positions,
            "a batch is {tokens} tokens wide, and the encoder has {positions} positions"
        );
        // Positions and segment are the same for all rows: two slices and an addition on
        // [tokens, hidden_size], where looking them up would cost two gathers of the full size,
        // and two scatters in the backward pass.
        let position = self.position.weight.val().narrow(0, 0, tokens);
        let segment = self.token_type.weight.val().narrow(0, 0, 1);
        let hidden = self.word.forward(ids) + (position + segment).unsqueeze();
        dropout(&self.dropout, self.norm.forward(hidden))
    }
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    intermediate: Linear,
    output: Linear,
    norm: Norm,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let (narrow, wide) = (config.hidden_size, config.intermediate_size);
        Self {
            attention: Attention::new(config, device),
            intermediate: config.linear(narrow, wide, device),
            output: config.linear(wide, narrow, device),
            norm: config.norm(device),
            dropout: config.dropout(),
            activation: config.hidden_act,
        }
    }

    /// `[batch, tokens, hidden_size]` to the same; `bias` is [`attention_bias`].
    fn forward(&self, hidden: Tensor<3>, bias: Tensor<4>) -> Tensor<3> {
        let hidden = self.attention.forward(hidden, bias);
        let wide = linear(&self.intermediate, hidden.clone());
        let wide = self.activation.forward(wide);
        let update = dropout(&self.dropout, linear(&self.output, wide));
        self.norm.forward(hidden + update)
    }
}

/// Multi-head self-attention, the residual connection and its norm.
#[derive(Module, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: Norm,
    probs_dropout: Dropout,
    dropout: Dropout,
    heads: usize,
}

impl Attention {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let square = || config.linear(config.hidden_size, config.hidden_size, device);
        Self {
            query: square(),
            key: square(),
            value: square(),
            output: square(),
            norm: config.norm(device),
            probs_dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
            dropout: config.dropout(),
            heads: config.num_attention_heads,
        }
    }

    /// `[batch, tokens, hidden_size]` to the same; `bias` is [`attention_bias`].
    fn forward(&self, hidden: Tensor<3>, bias: Tensor<4>) -> Tensor<3> {
        let [batch, tokens, width] = hidden.dims();
        let head = width / self.heads;
        // [batch, tokens, width] -> [batch, heads, tokens, head]: views, no copies.
        let split = |x: Tensor<3>| x.reshape([batch, tokens, self.heads, head]).swap_dims(1, 2);
        let scale = (head as f64).sqrt().recip();
        let query = split(linear(&self.query, hidden.clone()) * scale);
        let key = split(linear(&self.key, hidden.clone()));
        let value = split(linear(&self.value, hidden.clone()));

        let probs = softmax(query.matmul(key.transpose()) + bias, 3);
        let context = dropout(&self.probs_dropout, probs).matmul(value);
        let context = context.swap_dims(1, 2).reshape([batch, tokens, width]);
        let update = dropout(&self.dropout, linear(&self.output, context));
        self.norm.forward(hidden + update)
    }
}
