//! What a configuration says about the model.

use super::optional;
use crate::data::StripAccents;
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

/// Type of weights and arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE single precision, 4 bytes.
    Float32,
    /// The upper half of a `Float32`, 2 bytes.
    BFloat16,
}

/// `dataset.model.encoder`: the transformer that makes a vector of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoder {
    /// A Hugging Face folder on disk, or `scratch` (the default) for the encoder that `scratch` describes.
    pub encoder_model: String,
    /// Folder of the tokenizer. Default: that of `encoder_model`.
    #[serde(with = "optional")]
    pub encoder_tokenizer: Option<String>,
    /// How token vectors become one text vector. Default `last_hidden_avg`.
    pub pool_mode: PoolMode,
    /// Number of last layers that pooling reads. 1 in this version.
    pub feature_layers: usize,
    /// Dropout rate on the text vector, in [0, 1). Default 0.2.
    pub embed_dropout: f64,
    /// Type of weights and arithmetic. `bfloat16` is for GPUs that have it; others, and the CPU, compute in `float32`.
    /// Default `float32`.
    pub dtype: DType,
    /// Start from the encoder weights of an NGAME model. Not available in this version: always false.
    pub use_ngame_encoder_weights: bool,
    /// The encoder that `encoder_model = "scratch"` builds.
    pub scratch: Scratch,
}

impl Encoder {
    /// Whether the encoder is built and trained from nothing, as [`Scratch`] describes it.
    pub fn is_scratch(&self) -> bool {
        self.encoder_model == "scratch"
    }
}

/// How the vectors of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// The mean of the last layer's vectors over the tokens that are not padding.
    LastHiddenAvg,
    /// The means of the last `feature_layers` layers, one after the other. Not available in this version.
    LastNhiddenConlast,
    /// A learned weighting of the last layer's vectors. Not available in this version.
    LastHiddenWeightedAvg,
}

/// `dataset.model.encoder.scratch`: a small BERT to train from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scratch {
    /// At most so many word pieces, 100 or more, are learned from the training texts and the label titles, unless
    /// there is an `encoder_tokenizer`. Default 16384.
    pub vocab_size: usize,
    /// Read capital letters as small ones. Default true.
    pub lowercase: bool,
    /// Read letters without accents and other marks. Default `auto`: if no two words of the texts differ in them alone.
    pub strip_accents: StripAccents,
    /// Width, a multiple of `num_attention_heads`, at most 65 536. Default 128.
    pub hidden_size: usize,
    /// Transformer layers, at most 256. Default 2.
    pub num_hidden_layers: usize,
    /// Attention heads per layer, at most 1024. Default 4.
    pub num_attention_heads: usize,
    /// Width of the feed-forward part, at most 65 536. Default 512.
    pub intermediate_size: usize,
    /// Dropout rate inside the layers, in [0, 1). Default 0.2.
    pub dropout: f64,
}

/// `dataset.model.bottleneck`: a narrower layer between encoder and classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// Whether there is one. Not available in this version: always false.
    pub use_bottleneck_layer: bool,
}

/// `dataset.model.xmc`: the classifier, one weight vector per label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Xmc {
    /// How weights are kept and updated. Default `fp8chunked`.
    pub implementation: Implementation,
    /// Type of the weights of [`Implementation::Chunked`]; the others keep E4M3 and ignore it. Default `bfloat16`.
    pub dtype: DType,
    /// The labels are worked through in so many chunks; on a GPU in more, where one would have more than 65 535 labels.
    /// Default: chosen from the batch size.
    #[serde(with = "optional")]
    pub num_chunks: Option<usize>,
    /// Labels per chunk, at most 65 535; wins over `num_chunks`. Default: none.
    #[serde(with = "optional")]
    pub chunk_size: Option<usize>,
    /// A dropout of the classifier's own on its input. Not available in this version: always false.
    pub using_dropout: bool,
    /// Type of the compensation of [`Implementation::Fp8ChunkedHeadKahan`]. Default `bfloat16`.
    pub compensation: Compensation,
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

/// Type of a Kahan compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compensation {
    /// 2 bytes per weight.
    BFloat16,
    /// 1 byte per weight: 5 bits of exponent, 2 of mantissa.
    E5M2,
}
