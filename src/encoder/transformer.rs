//! The transformer of all families: embeddings, and layers that end in a norm (post-norm).
//!
//! Families differ in [`Switches`], sizes and the names of their tensors; the arithmetic is here once.
//!
//! Written for what one training step costs, on a CPU as on a GPU:
//! - no pooler, no key-value cache, no cross attention: they are not used here;
//! - queries, keys and values are views of three plain products. One fused product would need the weights joined, or
//!   its result cut, in every step, and the backward pass of a cut is a copy;
//! - the attention scale is applied to the queries, which are smaller than the scores as soon as a text has more tokens
//!   than a head is wide.

use burn::{
    module::Module,
    nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig},
    tensor::{Bool, Device, Int, Tensor, activation::softmax},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Activation,
    affine::{Norm, linear},
    dropout::dropout,
    shown::shown,
};

/// The sizes of a transformer, under the names that BERT's `config.json` has for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransformerConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width `D` of a token's vector.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width between the two linear layers of a feed-forward block.
    pub intermediate_size: usize,
    /// Non-linearity of the feed-forward blocks.
    pub hidden_act: Activation,
    /// Rows of the position embedding: the longest sequence, and the family's offset.
    pub max_position_embeddings: usize,
    /// Number of segments. Only the first one is used: there is one text.
    pub type_vocab_size: usize,
    /// Added to the variance in a layer norm.
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

/// What a family has or does otherwise than another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switches {
    /// Whether a vector for the segment is added to every token.
    pub token_types: bool,
    /// The row of the position embedding that the first token has.
    pub position_offset: usize,
}

/// A parameter: its path in the module, and its shape there.
pub(super) struct Parameter {
    pub path: String,
    pub shape: Vec<usize>,
    /// Whether it is the weight of a linear layer, which other frameworks keep as `[out, in]`.
    pub linear: bool,
}

/// An invalid field: its name, what was expected, what is there.
type Wrong<Name> = (Name, String, String);

impl Default for TransformerConfig {
    fn default() -> Self {
        Self::bert_base()
    }
}

impl TransformerConfig {
    /// The fields without which it is another model: they are never left to a default of a later version.
    pub(super) const SIZES: [&str; 6] = [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ];

    /// That of `bert-base-uncased`.
    pub(super) fn bert_base() -> Self {
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

    /// The fields by their names.
    pub(super) fn to_fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => unreachable!("a struct of numbers and a name is a JSON object"),
        }
    }

    /// `defaults` with the fields that are `given`. The default's type tells which value is invalid.
    pub(super) fn from_fields(
        mut defaults: Map<String, Value>,
        mut given: impl FnMut(&str) -> Option<Value>,
    ) -> Result<Self, Wrong<String>> {
        for (name, field) in &mut defaults {
            let Some(value) = given(name).filter(|value| !value.is_null()) else {
                continue;
            };
            let (fits, expected) = match field {
                Value::Number(number) if number.is_u64() => (value.is_u64(), "a whole number, 0 or more"),
                Value::Number(_) => (value.is_number(), "a number"),
                _ => (Activation::deserialize(&value).is_ok(), Activation::READ),
            };
            if !fits {
                return Err((name.clone(), expected.into(), shown(&value)));
            }
            *field = value;
        }
        // All types were looked at, so what is left is a number that this machine cannot hold.
        serde_json::from_value(Value::Object(defaults))
            .map_err(|error| ("configuration".into(), "sizes of an encoder".into(), error.to_string()))
    }

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

    /// The first field that no model can be made of: its name, what was expected, what is there.
    pub(super) fn violation(&self, switches: Switches) -> Option<Wrong<&'static str>> {
        // More than any encoder has; what is computed from them stays within 64 bits.
        const MOST_IDS: usize = 1 << 24;
        const MOST_FEATURES: usize = 1 << 20;
        const MOST_LAYERS: usize = 1 << 10;
        let sizes = [
            ("vocab_size", self.vocab_size, 1, MOST_IDS),
            ("hidden_size", self.hidden_size, 1, MOST_FEATURES),
            ("num_hidden_layers", self.num_hidden_layers, 0, MOST_LAYERS),
            ("num_attention_heads", self.num_attention_heads, 1, MOST_FEATURES),
            ("intermediate_size", self.intermediate_size, 1, MOST_FEATURES),
            ("max_position_embeddings", self.max_position_embeddings, 1 + switches.position_offset, MOST_IDS),
            ("type_vocab_size", self.type_vocab_size, usize::from(switches.token_types), MOST_IDS),
        ];
        for (field, value, least, most) in sizes {
            if value < least {
                let expected = match least {
                    1 => "a positive number".into(),
                    _ => format!("at least {least}"),
                };
                return Some((field, expected, value.to_string()));
            }
            if value > most {
                return Some((field, format!("at most {most}"), value.to_string()));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of the hidden size, {}", self.hidden_size);
            let found = self.num_attention_heads.to_string();
            return Some(("num_attention_heads", expected, found));
        }
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        let wrong = probabilities.into_iter().find(|(_, value)| !(0.0..1.0).contains(value));
        if let Some((field, value)) = wrong {
            return Some((field, "a probability, 0 or more and below 1".into(), value.to_string()));
        }
        let positive = [("layer_norm_eps", self.layer_norm_eps), ("initializer_range", self.initializer_range)];
        let wrong = positive.into_iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite()));
        wrong.map(|(field, value)| (field, "0 or more".into(), value.to_string()))
    }

    /// All parameters of the model that [`init`](Self::init) makes, in its order.
    pub(super) fn shapes(&self, switches: Switches) -> Vec<Parameter> {
        let (narrow, wide) = (self.hidden_size, self.intermediate_size);
        let mut parameters = Vec::new();
        let mut add = |path: String, shape: &[usize], linear| {
            let shape = shape.to_vec();
            parameters.push(Parameter { path, shape, linear });
        };
        add("embeddings.word.weight".into(), &[self.vocab_size, narrow], false);
        let positions = [self.max_position_embeddings, narrow];
        add("embeddings.position.weight".into(), &positions, false);
        if switches.token_types {
            add("embeddings.token_type.weight".into(), &[self.type_vocab_size, narrow], false);
        }
        add("embeddings.norm.gamma".into(), &[narrow], false);
        add("embeddings.norm.beta".into(), &[narrow], false);
        for layer in 0..self.num_hidden_layers {
            let mut linear = |module: &str, input, output| {
                add(format!("layers.{layer}.{module}.weight"), &[input, output], true);
                add(format!("layers.{layer}.{module}.bias"), &[output], false);
            };
            for module in ["query", "key", "value", "output"] {
                linear(&format!("attention.{module}"), narrow, narrow);
            }
            linear("intermediate", narrow, wide);
            linear("output", wide, narrow);
            for module in ["attention.norm", "norm"] {
                add(format!("layers.{layer}.{module}.gamma"), &[narrow], false);
                add(format!("layers.{layer}.{module}.beta"), &[narrow], false);
            }
        }
        parameters
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
        Norm::new(self.hidden_size, self.layer_norm_eps, device)
    }

    fn dropout(&self) -> Dropout {
        DropoutConfig::new(self.hidden_dropout_prob).init()
    }
}

/// A transformer without pooler. Made by [`TransformerConfig`].
#[derive(Module, Debug)]
pub(super) struct Transformer {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

impl Transformer {
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
        self.layers.iter().fold(hidden, |hidden, layer| layer.forward(hidden, bias.clone()))
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
    /// Absent in families without segments.
    token_type: Option<Embedding>,
    norm: Norm,
    dropout: Dropout,
    position_offset: usize,
}

impl Embeddings {
    fn new(config: &TransformerConfig, switches: Switches, device: &Device) -> Self {
        Self {
            word: config.embedding(config.vocab_size, device),
            position: config.embedding(config.max_position_embeddings, device),
            token_type: (switches.token_types).then(|| config.embedding(config.type_vocab_size, device)),
            norm: config.norm(device),
            dropout: config.dropout(),
            position_offset: switches.position_offset,
        }
    }

    /// `[batch, tokens]` to `[batch, tokens, hidden_size]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, tokens] = ids.dims();
        let [rows, _] = self.position.weight.dims();
        let positions = rows - self.position_offset;
        assert!(tokens <= positions, "a batch is {tokens} tokens wide, and the encoder has {positions} positions");
        // Positions and segment are the same for all rows: two slices and an addition on [tokens, hidden_size], where
        // looking them up would cost two gathers of the full size, and two scatters in the backward pass.
        let mut same = self.position.weight.val().narrow(0, self.position_offset, tokens);
        if let Some(token_type) = &self.token_type {
            same = same + token_type.weight.val().narrow(0, 0, 1);
        }
        let hidden = self.word.forward(ids) + same.unsqueeze();
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
    fn new(config: &TransformerConfig, device: &Device) -> Self {
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
    fn new(config: &TransformerConfig, device: &Device) -> Self {
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
