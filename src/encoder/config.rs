//! Which architecture an encoder has, and how large it is.

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{BertConfig, Encoder, pretrained};
use crate::Result;

/// The architecture of an encoder, as the `config.json` of a Hugging Face folder tells it: tagged by `model_type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum EncoderConfig {
    /// BERT (Devlin et al., 2019).
    Bert(BertConfig),
}

impl EncoderConfig {
    /// Reads the `config.json` of a Hugging Face folder.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), or [`Error::Data`](crate::Error::Data) if it is not that of an encoder known here.
    pub fn from_pretrained(dir: &Path) -> Result<Self> {
        pretrained::read_config(&dir.join("config.json")).map(Self::Bert)
    }

    /// An encoder with fresh weights: normal(0, `initializer_range`), biases 0, norms 1 and 0.
    ///
    /// # Panics
    /// Unless [`check`](Self::check) says that it is possible.
    pub fn init(&self, device: &Device) -> Encoder {
        match self {
            Self::Bert(bert) => Encoder::new(bert.init(device)),
        }
    }

    /// An encoder with the weights of a Hugging Face folder, of which this is the configuration.
    ///
    /// Weights may be F64, F32, F16 or BF16; they take the type of the device's floats. The folder's task heads are left
    /// out.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io) if the file cannot be read;
    /// - [`Error::Weights`](crate::Error::Weights) if tensors are missing, unknown, or of another shape than the
    ///   configuration says; it names them.
    pub fn load_pretrained(&self, dir: &Path, device: &Device) -> Result<Encoder> {
        match self {
            Self::Bert(bert) => pretrained::load(dir, bert, device).map(Encoder::new),
        }
    }

    /// The first field that no encoder can be made of: its name, what was expected, what is there.
    ///
    /// # Errors
    /// These three, if there is one.
    pub fn check(&self) -> Result<(), (&'static str, String, String)> {
        match self {
            Self::Bert(bert) => bert.violation().map_or(Ok(()), Err),
        }
    }

    /// The width of the embedding.
    pub fn dim(&self) -> usize {
        let Self::Bert(bert) = self;
        bert.hidden_size
    }

    /// The number of token ids that it can embed.
    pub fn vocab_size(&self) -> usize {
        let Self::Bert(bert) = self;
        bert.vocab_size
    }

    /// The longest text, in tokens.
    pub fn max_tokens(&self) -> usize {
        let Self::Bert(bert) = self;
        bert.max_position_embeddings
    }

    /// The number of weights.
    pub fn parameters(&self) -> u64 {
        let Self::Bert(bert) = self;
        let (h, i) = (bert.hidden_size as u64, bert.intermediate_size as u64);
        let embeddings = bert.vocab_size + bert.max_position_embeddings + bert.type_vocab_size;
        let layer = 4 * h * (h + 1) + 2 * h * i + i + h + 4 * h;
        embeddings as u64 * h + 2 * h + bert.num_hidden_layers as u64 * layer
    }

    /// Bytes that it holds in F32 of a batch of `batch` texts of `tokens` tokens: for training everything that the way
    /// back needs, else one layer's worth.
    pub fn activation_bytes(&self, batch: usize, tokens: usize, training: bool) -> u64 {
        let Self::Bert(bert) = self;
        let width = tokens as u64;
        let (h, i) = (bert.hidden_size as u64, bert.intermediate_size as u64);
        // Tensors that a layer's graph holds, as measured: MiniLM with 64 rows of 64 tokens peaks at 1.4 GiB in all.
        let layer = batch as u64 * width * (12 * h + 3 * i + 3 * bert.num_attention_heads as u64 * width);
        let layers = if training { bert.num_hidden_layers as u64 } else { 1 };
        4 * layer * layers
    }
}
