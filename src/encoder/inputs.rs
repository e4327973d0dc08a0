//! What an encoder reads: the token ids of texts.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use elmo_kernels::encoder::{PackedTexts, TextLayout};

/// The texts of a batch on a device, one behind the other, without padding.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub(super) layout: TextLayout,
    /// [`PackedTexts::words`].
    pub(super) words: Tensor<1, Int>,
    /// The row at which each text begins, and the number of tokens.
    pub(super) starts: Arc<[u32]>,
}

impl Inputs {
    /// Brings a batch to the device, in one piece.
    pub fn new(texts: PackedTexts, device: &Device) -> Self {
        let PackedTexts { layout, words } = texts;
        let length = words.len();
        let starts = words[layout.starts()].into();
        Self { layout, starts, words: Tensor::from_data(TensorData::new(words, [length]), (device, DType::U32)) }
    }

    /// Texts given as their token ids.
    pub fn of_texts<T: AsRef<[u32]>>(texts: &[T], device: &Device) -> Self {
        Self::new(PackedTexts::new(texts), device)
    }

    /// Rows of the batch: texts.
    pub fn rows(&self) -> usize {
        self.layout.texts
    }

    /// Tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.layout.tokens
    }
}
