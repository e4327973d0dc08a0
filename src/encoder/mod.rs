//! Text encoders: token ids in, one vector a text out.
//!
//! [`Encoder`] is a transformer ([`Bert`]) followed by [pooling](last_hidden_avg). It starts from
//! fresh weights ([`Encoder::scratch`]) or from a Hugging Face folder ([`Encoder::from_pretrained`]).

mod activation;
mod affine;
mod bert;
mod dropout;
mod pooling;
mod pretrained;
#[cfg(test)]
mod tests;

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Bool, DType, Device, FloatDType, Int, Tensor},
};

use crate::Result;

pub use activation::Activation;
pub use bert::{Bert, BertConfig};
pub(crate) use dropout::{dropout, seeded};
pub use pooling::last_hidden_avg;

/// A transformer with pooling.
#[derive(Module, Debug)]
pub struct Encoder {
    bert: Bert,
}

impl Encoder {
    /// An encoder with fresh weights.
    ///
    /// # Panics
    ///
    /// As [`BertConfig::init`].
    pub fn scratch(config: &BertConfig, device: &Device) -> Self {
        Self {
            bert: config.init(device),
        }
    }

    /// The encoder of a Hugging Face folder: `config.json` and `model.safetensors`.
    ///
    /// Weights may be F64, F32, F16 or BF16; they take the type of the device's floats. The folder's
    /// heads (`pooler.*`, `cls.*`) are left out. The dropout probabilities are the folder's.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`](crate::Error::Io) if one of the two files cannot be read;
    /// - [`Error::Data`](crate::Error::Data) if `config.json` is not that of a BERT;
    /// - [`Error::Weights`](crate::Error::Weights) if tensors are missing, unknown, or of another
    ///   shape than `config.json` says; it names them.
    pub fn from_pretrained(dir: &Path, device: &Device) -> Result<(Self, BertConfig)> {
        let (bert, config) = pretrained::load(dir, device)?;
        Ok((Self { bert }, config))
    }

    /// One vector for each row: the mean over its real tokens.
    ///
    /// `mask` is true at real tokens. Padding does not change a row's vector. On an autodiff device
    /// dropout is active.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, tokens]`
    /// - mask: `[batch, tokens]`
    /// - output: `[batch, dim]`
    ///
    /// # Panics
    ///
    /// Panics if there are more tokens than the model has positions.
    pub fn forward(&self, ids: Tensor<2, Int>, mask: Tensor<2, Bool>) -> Tensor<2> {
        last_hidden_avg(self.bert.forward(ids, mask.clone()), mask)
    }

    /// The width of the output.
    pub fn dim(&self) -> usize {
        self.bert.dim()
    }

    /// The number of weights, all of them trainable.
    pub fn parameter_count(&self) -> usize {
        self.num_params()
    }
}

/// The type to compute in where 16 bits would lose too much.
fn accumulation_dtype(dtype: DType) -> FloatDType {
    match dtype {
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    }
}

impl BertConfig {
    /// Reads the `config.json` of a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io), or [`Error::Data`](crate::Error::Data) if it is not that of a BERT.
    pub fn from_pretrained(dir: &Path) -> Result<Self> {
        pretrained::read_config(&dir.join("config.json"))
    }
}
