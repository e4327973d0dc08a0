//! What all paths share: what they are asked to do, and the kernels around the three products.

pub mod loss;
pub mod operands;
pub mod parts;
pub mod run;
pub mod search;

use burn_cubecl::tensor::CubeTensor;

use crate::{
    classifier::{
        positives::Positives,
        problem::{Search, Segment, Step},
    },
    numbers::Format,
};
use run::UpdateArgsLaunch;
use search::Best;

/// One way to do the classifier's operations. It does what it can on the device of the tensors.
pub trait Path {
    /// One training step; returns the report. `None`, with nothing done, if this path has no kernels for it.
    fn step(&self, input: &StepInput) -> Option<CubeTensor>;

    /// The best labels of a segment, merged into those so far. `None` if this path has no kernels for it.
    fn search(&self, input: &SearchInput) -> Option<Best>;
}

/// A product that turns the logits of a chunk into the gradient, without its positives.
pub trait ChunkGradient {
    /// The number of partial sums of the loss over all chunks.
    fn losses(&self) -> usize;

    /// Writes `gradient` and, if the step asks for them, the partial sums of the loss.
    fn launch(&self, gradient: &CubeTensor, losses: &CubeTensor, chunk: Chunk);
}

/// One step over one segment. Tensors are contiguous, and those that change have no other owner.
pub struct StepInput<'a> {
    pub words: CubeTensor,
    /// The head's compensation; a buffer of any size where there is no head.
    pub compensation: CubeTensor,
    pub x: CubeTensor,
    pub input_gradient: CubeTensor,
    pub positives: &'a Positives,
    pub segment: &'a Segment,
    pub step: &'a Step,
}

impl StepInput<'_> {
    /// Rows of the batch.
    pub fn batch(&self) -> usize {
        self.x.meta.shape()[0]
    }

    /// The segment's positives.
    pub fn positives(&self) -> &[(u32, u32)] {
        self.positives.in_labels(self.segment.first_label, self.segment.labels)
    }

    /// The segment's positives as (row of the segment, row of the batch), one pair behind the other.
    pub fn pairs(&self) -> Vec<u32> {
        let first = self.segment.first_label;
        (self.positives().iter()).flat_map(|(label, row)| [(u64::from(*label) - first) as u32, *row]).collect()
    }

    /// The format of the compensation, if rows of this segment keep one.
    pub fn compensation_format(&self) -> Option<Format> {
        let head = self.segment.head.filter(|_| self.segment.head_rows() > 0)?;
        Some(head.compensation)
    }

    /// What the update depends on. The gradient is stored multiplied by `scale`; rows of compensations are counted in
    /// `unit` words.
    pub fn update_args(&self, scale: f32, unit: usize) -> UpdateArgsLaunch {
        let (segment, step) = (self.segment, self.step);
        let compensation_words = (segment.head).map_or(0, |head| head.compensation.row_words(segment.dim));
        UpdateArgsLaunch {
            first_label_low: segment.first_label as u32,
            first_label_high: (segment.first_label >> 32) as u32,
            rounding_key: step.rounding_key,
            learning_rate: step.learning_rate / scale,
            weight_decay: step.weight_decay * scale,
            head_rows: segment.head_rows(),
            compensation_size: compensation_words / unit,
            dim: segment.dim,
        }
    }
}

/// A search of one segment. Tensors are contiguous.
pub struct SearchInput<'a> {
    pub words: CubeTensor,
    pub x: CubeTensor,
    /// The best labels of earlier segments.
    pub best: Best,
    pub segment: &'a Segment,
    pub search: &'a Search,
}

/// 16-byte parts of a row of weights.
pub fn row_parts(segment: &Segment) -> usize {
    segment.precision.row_words(segment.dim) / 4
}

/// Consecutive rows of a segment.
#[derive(Clone, Copy)]
pub struct Chunk {
    pub first: usize,
    pub labels: usize,
}

/// The chunks of `labels` labels, `size` each.
pub fn chunks(labels: usize, size: usize) -> impl Iterator<Item = Chunk> {
    (0..labels).step_by(size).map(move |first| Chunk { first, labels: size.min(labels - first) })
}
