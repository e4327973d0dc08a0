//! What the operations are asked to do: plain values that host and device share.

use crate::{
    numbers::{
        Format,
        random::{self, Stream},
    },
    path::KernelPath,
};

/// A run of consecutive labels whose weights lie in one buffer.
///
/// A classifier is cut into segments because no device promises a buffer of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The classifier's index of the segment's first label.
    pub first_label: u64,
    /// Labels in the segment: rows.
    pub labels: usize,
    /// Features of a label: columns, `D`.
    pub dim: usize,
    /// How the weights are stored, one of [`Format::WEIGHTS`].
    pub precision: Format,
    /// The classifier's first labels, by its own index, keep a compensation for what rounding takes from them.
    pub head: Option<Head>,
}

/// The labels that keep a compensation: those with an index below `labels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many labels of the whole classifier.
    pub labels: u64,
    /// The format of the compensation, one of [`Format::COMPENSATIONS`].
    pub compensation: Format,
}

impl Segment {
    /// # Panics
    /// If weights or compensation have a format in which they are never stored.
    pub(crate) fn check(&self) {
        assert!(Format::WEIGHTS.contains(&self.precision), "weights in {}", self.precision);
        if let Some(head) = self.head {
            let compensation = head.compensation;
            assert!(Format::COMPENSATIONS.contains(&compensation), "compensation in {compensation}");
        }
    }

    /// Words of the segment's weights.
    pub fn words(&self) -> usize {
        self.labels * self.precision.row_words(self.dim)
    }

    /// Rows of the segment that keep a compensation; they come first.
    pub fn head_rows(&self) -> usize {
        self.head.map_or(0, |head| (head.labels.saturating_sub(self.first_label) as usize).min(self.labels))
    }

    /// Words of the segment's compensation.
    pub fn compensation_words(&self) -> usize {
        self.head.map_or(0, |head| self.head_rows() * head.compensation.row_words(self.dim))
    }
}

/// One training step over one segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The format to which `X` is rounded for the product that gives the logits: E4M3, as tensor cores with 8-bit
    /// operands take it; BF16 ("simulated FP8", and BF16 weights); F32, as it is. Sums are F32 always.
    pub operands: Format,
    /// Labels whose logits exist at one time; chosen by the kernels if `None`. It changes memory and speed, never the
    /// weights.
    pub chunk: Option<usize>,
    /// Bytes of all the classifier's weights on this device: beside many a larger chunk counts for little, and it
    /// saves launches.
    pub weight_bytes: u64,
    /// The step of the gradient descent.
    pub learning_rate: f32,
    /// Multiplies the weight in the gradient (`wd` in the paper's update).
    pub weight_decay: f32,
    /// Key of the bits that round the update: see [`Step::rounding_key`].
    pub rounding_key: u32,
    /// Whether the loss is wanted. The update does not need it.
    pub loss: bool,
    /// The most of a GPU that may be used.
    pub kernels: KernelPath,
}

impl Step {
    /// The key for optimizer step `step` of a run with this seed.
    pub fn rounding_key(seed: u64, step: u64) -> u32 {
        random::step_key(seed, Stream::Rounding, step)
    }
}

/// The best labels of a batch over one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// As in [`Step`].
    pub operands: Format,
    /// Labels whose logits exist at one time, where they are stored; chosen by the kernels if `None`. Hopper's kernels
    /// store none, and always choose by themselves.
    pub chunk: Option<usize>,
    /// Labels to find for each row.
    pub k: usize,
    /// The most of a GPU that may be used.
    pub kernels: KernelPath,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_ends_inside_a_segment() {
        let segment = |first_label| Segment {
            first_label,
            labels: 100,
            dim: 5,
            precision: Format::E4m3,
            head: Some(Head { labels: 130, compensation: Format::Bf16 }),
        };
        assert_eq!(segment(0).head_rows(), 100);
        assert_eq!(segment(100).head_rows(), 30);
        assert_eq!(segment(200).head_rows(), 0);
        assert_eq!(segment(100).compensation_words(), 30 * 4);
    }
}
