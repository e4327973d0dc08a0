//! The sizes of a transformer: read, checked, and the shapes of the parameters that follow from them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Activation, shown::shown};

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
    /// Token id that fills up short rows; there are none here, but some families count positions from it.
    pub pad_token_id: usize,
}

/// What a family has or does otherwise than another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switches {
    /// Whether a vector for the segment is added to every token.
    pub token_types: bool,
    /// Whether the first token's row of the position embedding is the one after the padding token's id; else it is row 0.
    pub positions_after_padding: bool,
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

    /// The row of the position embedding that the first token has.
    pub(super) fn position_offset(&self, switches: Switches) -> usize {
        match switches.positions_after_padding {
            true => self.pad_token_id.saturating_add(1),
            false => 0,
        }
    }

    /// The first field that no model can be made of: its name, what was expected, what is there.
    pub(super) fn violation(&self, switches: Switches) -> Option<Wrong<&'static str>> {
        // More than any encoder has; what is computed from them stays within 64 bits.
        const MOST_IDS: usize = 1 << 24;
        const MOST_FEATURES: usize = 1 << 20;
        const MOST_LAYERS: usize = 1 << 10;
        let least_positions = self.position_offset(switches).saturating_add(1);
        let sizes = [
            ("vocab_size", self.vocab_size, 1, MOST_IDS),
            ("hidden_size", self.hidden_size, 1, MOST_FEATURES),
            ("num_hidden_layers", self.num_hidden_layers, 0, MOST_LAYERS),
            ("num_attention_heads", self.num_attention_heads, 1, MOST_FEATURES),
            ("intermediate_size", self.intermediate_size, 1, MOST_FEATURES),
            ("max_position_embeddings", self.max_position_embeddings, least_positions, MOST_IDS),
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
}
