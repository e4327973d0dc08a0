//! How many labels are worked on at one time. Nobody else chooses it.
//!
//! On a CPU as many as its caches hold; on a GPU enough labels for the time of launching
//! kernels to be small beside that of running them; the more weights, the larger the chunk.

use burn::tensor::Device;

use super::problem::{Search, Step};

/// Bytes of logits and decoded weights that a chunk may take on a CPU: what its caches hold.
const CPU_BYTES: usize = 4 << 20;
/// Bytes of a chunk's scores in a search on a GPU.
const GPU_SCORE_BYTES: usize = 32 << 20;
/// Bytes of a chunk's gradient on a GPU: these and a 24th of the weights, but at most [`GPU_GRADIENT_LIMIT`].
const GPU_GRADIENT_BYTES: usize = 20 << 20;
const GPU_GRADIENT_LIMIT: usize = 128 << 20;

/// Rows that kernels compute at most for a batch: whole tiles, of all kernels.
pub(crate) fn padded_batch(batch: usize) -> usize {
    match batch {
        0..=64 => 64,
        65..=128 => 128,
        _ => batch.next_multiple_of(256),
    }
}

/// Labels of a chunk on a CPU.
///
/// # Panics
/// If none are asked for.
pub(crate) fn on_cpu(asked: Option<usize>, dim: usize, batch: usize) -> usize {
    checked(asked).unwrap_or_else(|| (CPU_BYTES / (4 * (dim + batch))).clamp(64, 8192))
}

impl Step {
    /// Labels of a chunk of this step, over `batch` rows on a GPU; the kernels there may round it, and never exceed
    /// what they can count.
    ///
    /// # Panics
    /// If none are asked for.
    pub(crate) fn chunk_on_gpu(&self, batch: usize) -> usize {
        checked(self.chunk).unwrap_or_else(|| {
            let share_of_weights = usize::try_from(self.weight_bytes / 24).unwrap_or(usize::MAX);
            let bytes = GPU_GRADIENT_BYTES.saturating_add(share_of_weights).min(GPU_GRADIENT_LIMIT);
            // The gradient has 16 bits. A chunk takes the same memory for every batch size.
            (bytes / (2 * padded_batch(batch))).max(256)
        })
    }

    /// Labels of a chunk of this step, over `batch` rows of `dim` features on `device`; for reports.
    ///
    /// # Panics
    /// If none are asked for.
    pub fn chunk_on(&self, device: &Device, dim: usize, batch: usize) -> usize {
        match is_cpu(device) {
            true => on_cpu(self.chunk, dim, batch),
            false => self.chunk_on_gpu(batch),
        }
    }
}

impl Search {
    /// As for a [`Step`].
    pub(crate) fn chunk_on_gpu(&self, batch: usize) -> usize {
        checked(self.chunk).unwrap_or_else(|| (GPU_SCORE_BYTES / (4 * padded_batch(batch))).max(256))
    }

    /// Labels of a chunk of this search, over `batch` rows of `dim` features on `device`; for reports.
    ///
    /// # Panics
    /// If none are asked for.
    pub fn chunk_on(&self, device: &Device, dim: usize, batch: usize) -> usize {
        match is_cpu(device) {
            true => on_cpu(self.chunk, dim, batch),
            false => self.chunk_on_gpu(batch),
        }
    }
}

fn checked(asked: Option<usize>) -> Option<usize> {
    assert!(asked != Some(0), "a chunk has labels");
    asked
}

fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().without_autodiff() == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KernelPath, numbers::Format};

    #[test]
    fn a_chunk_of_a_large_classifier_takes_the_same_memory_for_every_batch() {
        const MIB: usize = 1 << 20;
        let step = Step {
            operands: Format::E4m3,
            chunk: None,
            weight_bytes: 500 << 20,
            learning_rate: 0.0,
            weight_decay: 0.0,
            rounding_key: 0,
            loss: false,
            kernels: KernelPath::default(),
        };
        for batch in [1, 64, 65, 128, 129, 192, 256, 257, 300, 512, 700] {
            let bytes = 2 * step.chunk_on_gpu(batch) * padded_batch(batch);
            let most = 20 * MIB + 500 * MIB / 24;
            assert!((most - MIB..=most).contains(&bytes), "{batch}: {bytes}");
        }
    }

    #[test]
    fn what_is_asked_for_is_what_is_used() {
        assert_eq!(on_cpu(Some(7), 768, 128), 7);
        assert_eq!(on_cpu(None, 768, 128), 1170);
        assert_eq!(on_cpu(None, 1, 1), 8192);
        assert_eq!(on_cpu(None, 1 << 20, 1), 64);
    }
}
