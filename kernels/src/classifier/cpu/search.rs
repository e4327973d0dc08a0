//! The best labels of every row, kept while chunks of logits pass by; scores never exist as `[batch, labels]`.

use rayon::prelude::*;

use super::{Chunk, Embeddings, Work};
use crate::classifier::{
    chunk,
    problem::{Search, Segment},
};
use crate::gemm::InstructionSet;

/// The `k` best labels of every row so far, best first; ties to the lower label.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    k: usize,
    /// `[batch, k]`; places not yet taken hold [`Best::NO_SCORE`].
    pub scores: Vec<f32>,
    /// `[batch, k]`; places not yet taken hold [`Best::NO_LABEL`].
    pub labels: Vec<i32>,
}

impl Best {
    /// The label of a place that is not taken.
    pub const NO_LABEL: i32 = -1;
    /// The score of a place that is not taken. A NaN score ranks here as well, and is never kept.
    pub const NO_SCORE: f32 = f32::NEG_INFINITY;

    /// Nothing found yet.
    pub fn new(batch: usize, k: usize) -> Self {
        Self { k, scores: vec![Self::NO_SCORE; batch * k], labels: vec![Self::NO_LABEL; batch * k] }
    }

    /// Takes up what an earlier segment found.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of `k`.
    pub fn from_parts(k: usize, scores: Vec<f32>, labels: Vec<i32>) -> Self {
        assert!(scores.len() == labels.len() && scores.len().is_multiple_of(k));
        Self { k, scores, labels }
    }
}

/// Puts one label in its place. Labels come in ascending order, so an equal score goes behind.
fn insert(scores: &mut [f32], labels: &mut [i32], score: f32, label: i32) {
    let at = scores.partition_point(|s| *s >= score);
    scores[at..].rotate_right(1);
    labels[at..].rotate_right(1);
    scores[at] = score;
    labels[at] = label;
}

/// Merges the labels of one segment into `best`. Segments are searched in ascending order of their labels.
///
/// # Shapes
/// - `words`: the segment's
/// - `x`: `[batch, dim]`
///
/// # Panics
/// If a shape is wrong, or the chunk or `k` is zero.
pub fn search(segment: &Segment, search: &Search, words: &[u32], x: &[f32], best: &mut Best) {
    assert_eq!(words.len(), segment.words(), "words of the segment's weights");
    assert!(search.k > 0 && search.k == best.k);
    let batch = x.len() / segment.dim;
    assert_eq!(batch * search.k, best.scores.len());
    let chunk_labels = chunk::on_cpu(search.chunk, segment.dim, batch).min(segment.labels);
    if batch == 0 || chunk_labels == 0 {
        return;
    }
    let work = Work { set: InstructionSet::detect(), segment, x: Embeddings::new(x, segment.dim, search.operands) };
    let mut chunk = Chunk::new(chunk_labels, &work.x);
    let row_words = segment.precision.row_words(segment.dim);
    for (index, words) in words.chunks(chunk_labels * row_words).enumerate() {
        let first = segment.first_label + (index * chunk_labels) as u64;
        chunk.fill(&work, words, |_, _| {});
        let k = search.k;
        best.scores.par_chunks_mut(k).zip(best.labels.par_chunks_mut(k)).enumerate().for_each(
            |(b, (scores, labels))| {
                let row = chunk.logits.iter().skip(b).step_by(work.x.padded_batch);
                for (l, score) in row.take(chunk.labels).enumerate() {
                    if *score > scores[k - 1] {
                        insert(scores, labels, *score, (first + l as u64) as i32);
                    }
                }
            },
        );
    }
}
