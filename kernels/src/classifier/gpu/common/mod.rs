//! What all paths share.

pub mod loss;
pub mod operands;
pub mod parts;
pub mod run;
pub mod search;

use burn_cubecl::tensor::CubeTensor;

use crate::{
    classifier::problem::{Positives, Segment, Step},
    numbers::device::Format,
};

/// One step over one segment. Tensors are contiguous, and those that change are held by nobody else.
pub struct StepInput<'a> {
    pub words: CubeTensor,
    /// The head's compensation; something of any size where there is no head.
    pub held: CubeTensor,
    pub x: CubeTensor,
    pub input_gradient: CubeTensor,
    pub positives: &'a Positives,
    pub segment: &'a Segment,
    pub step: &'a Step,
}

impl StepInput<'_> {
    pub fn batch(&self) -> usize {
        self.x.meta.shape()[0]
    }

    /// The segment's positives, (row of the segment, row of the batch), one behind the other.
    ///
    /// # Panics
    /// If a positive lies outside of the batch.
    pub fn pairs(&self) -> Vec<u32> {
        let Segment {
            first_label, labels, ..
        } = *self.segment;
        (self.positives.of_labels(first_label, labels).iter())
            .flat_map(|(label, row)| {
                assert!((*row as usize) < self.batch(), "a positive's row");
                [(u64::from(*label) - first_label) as u32, *row]
            })
            .collect()
    }

    pub fn compensation_row_words(&self) -> usize {
        self.segment
            .head
            .map_or(0, |head| head.compensation.row_words(self.segment.dim))
    }

    pub fn compensation_format(&self) -> Option<Format> {
        self.segment
            .head
            .filter(|_| self.segment.head_rows() > 0)
            .map(|head| head.compensation.into())
    }
}

/// 16-byte parts of a row of weights.
pub fn row_parts(segment: &Segment) -> usize {
    segment.precision.row_words(segment.dim) / 4
}

/// A run of the segment's rows.
#[derive(Clone, Copy)]
pub struct Chunk {
    pub first: usize,
    pub labels: usize,
}

/// The chunks of so many labels.
pub fn chunks(labels: usize, size: usize) -> impl Iterator<Item = Chunk> {
    (0..labels).step_by(size).map(move |first| Chunk {
        first,
        labels: size.min(labels - first),
    })
}
