//! What an encoder reads: token ids, and which of them are padding.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// The texts of a batch on a device.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[batch, width]`: token ids, filled up with the padding id.
    pub(super) ids: Tensor<2, Int>,
    /// `[batch, width]`: true at real tokens.
    pub(super) mask: Tensor<2, Bool>,
}

impl Inputs {
    /// Brings a batch to the device: `ids` is `[lengths.len(), width]`, of which the first `lengths[row]` of a row are
    /// real tokens.
    ///
    /// # Panics
    /// If `ids` has another size.
    pub fn padded(ids: Vec<i32>, lengths: &[u32], width: usize, device: &Device) -> Self {
        let shape = [lengths.len(), width];
        let mask: Vec<bool> =
            (lengths.iter()).flat_map(|length| (0..width).map(move |at| at < *length as usize)).collect();
        Self {
            ids: Tensor::from_data(TensorData::new(ids, shape), device),
            mask: Tensor::from_data(TensorData::new(mask, shape), device),
        }
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.ids.dims()[0]
    }

    pub(super) fn device(&self) -> Device {
        self.ids.device()
    }

    /// The rows in `parts` parts of like size, in order.
    pub(super) fn cut(self, parts: usize) -> Vec<Self> {
        let ids = self.ids.chunk(parts, 0).into_iter();
        let mask = self.mask.chunk(parts, 0);
        ids.zip(mask).map(|(ids, mask)| Self { ids, mask }).collect()
    }
}
