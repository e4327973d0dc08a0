//! What the operations are asked to do: plain values that host and device share.

use std::sync::Arc;

use super::layout::{Compensation, Precision};
use crate::numbers::random::{self, Stream};

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
    /// How the weights are stored.
    pub precision: Precision,
    /// The classifier's first labels, by its own index, keep a compensation for what rounding takes from them.
    pub head: Option<Head>,
}

/// The labels that keep a compensation: those with an index below `labels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub labels: u64,
    pub compensation: Compensation,
}

impl Segment {
    /// Words of the segment's weights.
    pub fn words(&self) -> usize {
        self.labels * self.precision.row_words(self.dim)
    }

    /// Rows of the segment that keep a compensation; they come first.
    pub fn head_rows(&self) -> usize {
        self.head.map_or(0, |head| {
            (head.labels.saturating_sub(self.first_label) as usize).min(self.labels)
        })
    }

    /// Words of the segment's compensation.
    pub fn compensation_words(&self) -> usize {
        self.head
            .map_or(0, |head| self.head_rows() * head.compensation.row_words(self.dim))
    }
}

/// In what precision `X` meets the weights in the product that gives the logits. Sums are F32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operands {
    /// `X` rounded to E4M3, as tensor cores with 8-bit operands take it.
    E4m3,
    /// `X` rounded to BF16: simulated FP8, and BF16 weights.
    Bf16,
    /// `X` as it is.
    F32,
}

/// One training step over one segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub operands: Operands,
    /// Labels whose logits exist at one time. It changes memory and speed, never the weights.
    pub chunk: usize,
    pub learning_rate: f32,
    /// Multiplies the weight in the gradient (`wd` in the paper's update).
    pub weight_decay: f32,
    /// Key of the bits that round the update: see [`Step::rounding_key`].
    pub rounding_key: u32,
    /// Whether the loss is wanted. The update does not need it.
    pub loss: bool,
}

impl Step {
    /// The key for optimizer step `step` of a run with this seed.
    pub fn rounding_key(seed: u64, step: u64) -> u32 {
        random::step_key(seed, Stream::Rounding, step)
    }
}

/// Rows that kernels compute at most for a batch: whole tiles, of all kernels.
pub fn padded_batch(batch: usize) -> usize {
    match batch {
        0..=64 => 64,
        65..=128 => 128,
        _ => batch.next_multiple_of(256),
    }
}

/// The best labels of a batch over one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    pub operands: Operands,
    /// Labels whose logits exist at one time, where they are stored: Hopper's kernels do not, and choose by themselves.
    pub chunk: usize,
    /// How many labels are kept a row.
    pub k: usize,
}

/// The positives of a batch: unique (label, row) pairs, sorted by label, then by row. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positives(Arc<[(u32, u32)]>);

impl Positives {
    /// Sorts the pairs and drops repeated ones.
    pub fn new(mut label_row: Vec<(u32, u32)>) -> Self {
        label_row.sort_unstable();
        label_row.dedup();
        Self(label_row.into())
    }

    /// All pairs.
    pub fn pairs(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// The pairs of the labels `first..first + labels`.
    pub fn of_labels(&self, first: u64, labels: usize) -> &[(u32, u32)] {
        let from = self.0.partition_point(|pair| (pair.0 as u64) < first);
        let to = self.0.partition_point(|pair| (pair.0 as u64) < first + labels as u64);
        &self.0[from..to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positives_are_unique_and_found_by_label() {
        let positives = Positives::new(vec![(9, 1), (3, 2), (3, 0), (9, 1), (40, 0)]);
        assert_eq!(positives.pairs(), [(3, 0), (3, 2), (9, 1), (40, 0)]);
        assert_eq!(positives.of_labels(3, 7), [(3, 0), (3, 2), (9, 1)]);
        assert_eq!(positives.of_labels(4, 5), []);
        assert_eq!(positives.of_labels(41, 100), []);
    }

    #[test]
    fn the_head_ends_inside_a_segment() {
        let segment = |first_label| Segment {
            first_label,
            labels: 100,
            dim: 5,
            precision: Precision::E4m3,
            head: Some(Head {
                labels: 130,
                compensation: Compensation::Bf16,
            }),
        };
        assert_eq!(segment(0).head_rows(), 100);
        assert_eq!(segment(100).head_rows(), 30);
        assert_eq!(segment(200).head_rows(), 0);
        assert_eq!(segment(100).compensation_words(), 30 * 4);
    }
}
