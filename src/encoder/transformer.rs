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
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Activation, Inputs, dropout::Dropouts, shown::shown};

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
        let width = [self.hidden_size];
        Norm { gamma: Initializer::Ones.init(width, device), beta: Initializer::Zeros.init(width, device) }
    }
}

/// A transformer without pooler. Made by [`TransformerConfig`].
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

    /// The last layer's vector of every token: `[rows, hidden_size]`, see
    /// [`TextLayout`](elmo_kernels::encoder::TextLayout).
    ///
    /// # Panics
    ///
    /// Panics if a text has more tokens than the model has positions.
    pub fn forward(&self, inputs: &Inputs, manner: Manner) -> Tensor<2> {
        let hidden = self.embeddings.forward(inputs, manner);
        let layers = (1..).step_by(Layer::DROPOUTS).zip(&self.layers);
        layers.fold(hidden, |hidden, (place, layer)| layer.forward(hidden, inputs, manner, place))
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
            position_offset: switches.position_offset,
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
