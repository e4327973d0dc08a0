//! What a configuration says about the model.

use super::optional;
use crate::{
    data::StripAccents,
    encoder::{Output, PoolMode},
};
use elmo_kernels::Format;
use serde::{Deserialize, Serialize};

/// `dataset.model`: encoder, bottleneck and classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Text to vector.
    pub encoder: Encoder,
    /// A narrower layer between encoder and classifier.
    pub bottleneck: Bottleneck,
    /// Vector to one score per label.
    pub xmc: Xmc,
}

impl Model {
    /// What comes behind the layers of the encoder.
    pub fn output(&self) -> Output {
        Output {
            pool_mode: self.encoder.pool_mode,
            feature_layers: self.encoder.feature_layers,
            bottleneck_size: (self.bottleneck.use_bottleneck_layer).then_some(self.bottleneck.bottleneck_size),
        }
    }
}

/// `dataset.model.encoder`: the transformer that makes a vector of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoder {
    /// A Hugging Face folder on disk, or `scratch` for the encoder that `scratch` describes.
    pub encoder_model: String,
    /// Folder of the tokenizer. `None`: that of `encoder_model`.
    #[serde(with = "optional")]
    pub encoder_tokenizer: Option<String>,
    /// How token vectors become one text vector.
    pub pool_mode: PoolMode,
    /// Number of last layers that pooling reads: more than one for [`PoolMode::LastNhiddenConlast`] only.
    pub feature_layers: usize,
    /// Dropout rate on the text vector.
    pub embed_dropout: f64,
    /// Type of weights and arithmetic. `bfloat16` is for GPUs that have it; others, and the CPU, compute in `float32`.
    #[serde(with = "float")]
    pub dtype: Format,
    /// What of a layer is kept for the backward pass.
    pub activations: Activations,
    /// Start from the encoder weights of an NGAME model, instead of those of `encoder_model`.
    pub use_ngame_encoder_weights: bool,
    /// The file of these weights. `None`: `NGAME_ENCODERS/DATASET/state_dict.pt`.
    #[serde(with = "optional")]
    pub ngame_checkpoint: Option<String>,
    /// The encoder that `encoder_model = "scratch"` builds.
    pub scratch: Scratch,
}

impl Encoder {
    /// Whether the encoder is built and trained from nothing, as [`Scratch`] describes it.
    pub fn is_scratch(&self) -> bool {
        self.encoder_model == "scratch"
    }
}

/// How much of every layer is kept for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activations {
    /// As [`Balanced`](Self::Balanced) if that fits into the GPU's free memory, else [`Least`](Self::Least).
    Auto,
    /// What costs a matrix product to compute again.
    Balanced,
    /// The layer's input alone: the layer is computed again.
    Least,
}

/// `dataset.model.encoder.scratch`: a small BERT to train from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scratch {
    /// At most so many word pieces are learned from the training texts and the label titles, unless
    /// there is an `encoder_tokenizer`.
    pub vocab_size: usize,
    /// Read capital letters as small ones.
    pub lowercase: bool,
    /// Whether letters are read without accents and other marks: `auto`, `always`, `never`.
    pub strip_accents: StripAccents,
    /// Width, a multiple of `num_attention_heads`.
    pub hidden_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Dropout rate inside the layers.
    pub dropout: f64,
}

/// `dataset.model.bottleneck`: a narrower layer between encoder and classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// Whether there is one.
    pub use_bottleneck_layer: bool,
    /// Its width.
    pub bottleneck_size: usize,
}

/// `dataset.model.xmc`: the classifier, one weight vector per label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Xmc {
    /// How weights are kept and updated.
    pub implementation: Implementation,
    /// Type of the weights of [`Implementation::Chunked`]; the others keep E4M3 and ignore it.
    #[serde(with = "float")]
    pub dtype: Format,
    /// The labels are worked through in so many chunks, or more where the device takes fewer labels at once. `None`:
    /// chosen from the batch size and the device.
    #[serde(with = "optional")]
    pub num_chunks: Option<usize>,
    /// Labels per chunk; wins over `num_chunks`.
    #[serde(with = "optional")]
    pub chunk_size: Option<usize>,
    /// A dropout of the classifier's own on its input. Not available in this version: always false.
    pub using_dropout: bool,
    /// Type of the compensation of [`Implementation::Fp8ChunkedHeadKahan`].
    #[serde(with = "compensation")]
    pub compensation: Format,
}

/// How the classifier's weights are kept and updated. Always chunk by chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Implementation {
    /// Weights of type `dtype`, plain gradient descent, stochastic rounding for BF16.
    Chunked,
    /// E4M3 weights, updated in place with stochastic rounding.
    Fp8Chunked,
    /// As [`Fp8Chunked`](Self::Fp8Chunked); the most frequent labels keep what rounding loses. They must come first:
    /// only with `label_sort`.
    Fp8ChunkedHeadKahan,
}

impl Implementation {
    /// Whether the weights are E4M3, one byte each.
    pub fn is_fp8(self) -> bool {
        self != Self::Chunked
    }
}

/// Number formats by the names that configurations have for them; each key takes some formats only.
macro_rules! format_names {
    ($name:ident: $($format:ident = $text:literal),+) => {
        mod $name {
            use elmo_kernels::Format;
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub fn serialize<S: Serializer>(format: &Format, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(match format {
                    $(Format::$format => $text,)+
                    other => other.name(),
                })
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
                let name = String::deserialize(deserializer)?;
                match name.parse() {
                    $(Ok(Format::$format) => Ok(Format::$format),)+
                    _ => Err(D::Error::unknown_variant(&name, &[$($text),+])),
                }
            }
        }
    };
}

format_names!(float: F32 = "float32", Bf16 = "bfloat16");
format_names!(compensation: Bf16 = "bfloat16", E5m2 = "e5m2");
