//! The classifier on a CPU: plain Rust on the stored codes, chunk by chunk, in parallel.
//!
//! Beside the codes themselves a step holds one chunk: its decoded weights, its logits, which become the gradient in
//! place, and one row of weight gradient a thread. The gradient is kept in F32 here, not in 16 bits: it is one chunk
//! only, and conversions cost a CPU more than the bytes.
//!
//! Every sum runs in one order (see `gemm.rs`), so weights, loss and input gradient depend on neither the chunk size
//! nor the number of threads, bit for bit.

mod search;
mod update;

use rayon::prelude::*;

pub use search::{Best, search};

use super::{
    chunk,
    positives::Positives,
    problem::{Segment, Step},
};
use crate::{
    gemm::{self, InstructionSet, Panel, TILE_COLUMNS, TILE_ROWS},
    numbers::Format,
};

/// Labels that one task of the thread pool works on.
const TASK_LABELS: usize = 4 * TILE_ROWS;

/// What a step or a search works with.
struct Work<'a> {
    set: InstructionSet,
    segment: &'a Segment,
    x: Embeddings,
}

/// What a step reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Sum over labels and rows of the binary cross-entropy; 0 unless asked for.
    pub loss: f64,
    /// Weights that kept their value because the new one was not finite.
    pub non_finite: u64,
}

/// `X` as the two kinds of product need it.
struct Embeddings {
    batch: usize,
    dim: usize,
    /// `[batch, padded_dim]`, as given.
    rows: Vec<f32>,
    padded_dim: usize,
    /// `[dim, padded_batch]`, rounded as the logits want it.
    columns: Vec<f32>,
    padded_batch: usize,
}

impl Embeddings {
    fn new(x: &[f32], dim: usize, operands: Format) -> Self {
        let batch = x.len() / dim;
        let padded_dim = dim.next_multiple_of(TILE_COLUMNS);
        let padded_batch = batch.next_multiple_of(TILE_COLUMNS);
        let mut rows = vec![0.0; batch * padded_dim];
        let mut columns = vec![0.0; dim * padded_batch];
        for (b, x) in x.chunks(dim).enumerate() {
            rows[b * padded_dim..][..dim].copy_from_slice(x);
            for (d, value) in x.iter().enumerate() {
                columns[d * padded_batch + b] = operands.round(*value);
            }
        }
        Self { batch, dim, rows, padded_dim, columns, padded_batch }
    }
}

/// The decoded weights and the logits of one chunk.
struct Chunk {
    /// `[labels, padded_dim]`
    weights: Vec<f32>,
    /// `[labels, padded_batch]`
    logits: Vec<f32>,
    labels: usize,
}

impl Chunk {
    fn new(capacity: usize, x: &Embeddings) -> Self {
        Self { weights: vec![0.0; capacity * x.padded_dim], logits: vec![0.0; capacity * x.padded_batch], labels: 0 }
    }

    /// Decodes the rows of `words` and computes their logits; then `finish` sees every task's first label, its logits
    /// and one slot of a value a label.
    fn fill<F>(&mut self, work: &Work, words: &[u32], finish: F)
    where
        F: Fn(usize, &mut [f32]) + Sync,
    {
        let Work { set, segment, x } = work;
        let row_words = segment.precision.row_words(x.dim);
        self.labels = words.len() / row_words;
        let weights = self.weights.par_chunks_mut(TASK_LABELS * x.padded_dim);
        let logits = self.logits[..self.labels * x.padded_batch].par_chunks_mut(TASK_LABELS * x.padded_batch);
        words.par_chunks(TASK_LABELS * row_words).zip(weights).zip(logits).enumerate().for_each_init(
            Panel::default,
            |panel, (task, ((words, weights), logits))| {
                for (row, out) in words.chunks(row_words).zip(weights.chunks_mut(x.padded_dim)) {
                    segment.precision.decode_row(row, &mut out[..x.dim]);
                }
                logits.fill(0.0);
                let tiles = weights.chunks(TILE_ROWS * x.padded_dim).zip(logits.chunks_mut(TILE_ROWS * x.padded_batch));
                for (weights, logits) in tiles {
                    let rows = logits.len() / x.padded_batch;
                    panel.pack(weights, x.padded_dim, 1, rows, x.dim);
                    gemm::multiply_add(*set, panel, &x.columns, x.padded_batch, logits, x.padded_batch, x.padded_batch);
                }
                finish(task * TASK_LABELS, logits);
            },
        );
    }
}

/// One training step over one segment: updates `words` and `compensation` in place and adds to `input_gradient`.
///
/// # Shapes
/// - `words`, `compensation`: the segment's, see [`Segment::words`] and [`Segment::compensation_words`]
/// - `x`, `input_gradient`: `[batch, dim]`
///
/// # Panics
/// If a shape is wrong, the chunk is zero, or a positive names a row beyond the batch.
pub fn step(
    segment: &Segment,
    step: &Step,
    words: &mut [u32],
    compensation: &mut [u32],
    x: &[f32],
    positives: &Positives,
    input_gradient: &mut [f32],
) -> Report {
    let dim = segment.dim;
    assert_eq!(words.len(), segment.words(), "words of the segment's weights");
    assert!(compensation.len() >= segment.compensation_words());
    assert_eq!(x.len(), input_gradient.len(), "X and its gradient");
    assert!(x.len().is_multiple_of(dim), "whole rows of X");
    let batch = x.len() / dim;
    let chunk_labels = chunk::on_cpu(step.chunk, dim, batch).min(segment.labels);
    if batch == 0 || chunk_labels == 0 {
        return Report::default();
    }
    positives.check(batch);

    let work = Work { set: InstructionSet::detect(), segment, x: Embeddings::new(x, dim, step.operands) };
    let mut chunk = Chunk::new(chunk_labels, &work.x);
    let mut gradient = padded(input_gradient, dim, work.x.padded_dim);
    let row_words = segment.precision.row_words(dim);
    let compensation_words = segment.head.map_or(0, |h| h.compensation.row_words(dim));
    let mut report = Report::default();

    for (index, words) in words.chunks_mut(chunk_labels * row_words).enumerate() {
        let first = index * chunk_labels;
        let losses = bce_gradient(&work, step, words, first, &mut chunk, positives);
        // Label by label: a sum of sums would depend on the chunk size.
        report.loss = losses.iter().fold(report.loss, |sum, loss| sum + loss);
        add_input_gradient(&work, &chunk, &mut gradient);
        let head_rows = segment.head_rows().saturating_sub(first).min(chunk.labels);
        let compensation =
            &mut compensation[first.min(segment.head_rows()) * compensation_words..][..head_rows * compensation_words];
        report.non_finite += update::update(&work, step, words, compensation, first, &chunk);
    }
    for (out, row) in input_gradient.chunks_mut(dim).zip(gradient.chunks(work.x.padded_dim)) {
        out.copy_from_slice(&row[..dim]);
    }
    report
}

/// Bytes that a step takes beside the weights, if `chunk` labels are asked for at a time; positives are not counted.
pub fn step_bytes(chunk: Option<usize>, labels: usize, dim: usize, batch: usize) -> u64 {
    let chunk = chunk::on_cpu(chunk, dim, batch).min(labels);
    // A chunk's decoded weights and logits; X as given, X transposed, its gradient, and that with padded rows.
    4 * chunk as u64 * (dim + batch) as u64 + 4 * 4 * (batch * dim) as u64
}

/// Turns the chunk's logits into `sigmoid(Z) - Y`, and returns every label's loss if it is asked for. `first` is the
/// chunk's first row in the segment.
fn bce_gradient(
    work: &Work,
    step: &Step,
    words: &[u32],
    first: usize,
    chunk: &mut Chunk,
    positives: &Positives,
) -> Vec<f64> {
    let Work { segment, x, .. } = work;
    let first_label = segment.first_label + first as u64;
    let labels = words.len() / segment.precision.row_words(x.dim);
    let mut losses = vec![0.0; if step.loss { labels } else { 0 }];
    let all_losses = std::sync::Mutex::new(&mut losses);
    chunk.fill(work, words, |task_first, logits| {
        let task_labels = logits.len() / x.padded_batch;
        let pairs = positives.in_labels(first_label + task_first as u64, task_labels);
        let local = |pair: &(u32, u32)| {
            let row = (pair.0 as u64 - first_label) as usize - task_first;
            row * x.padded_batch + pair.1 as usize
        };
        if step.loss {
            let mut label_losses = vec![0.0f64; task_labels];
            for (loss, logits) in label_losses.iter_mut().zip(logits.chunks(x.padded_batch)) {
                *loss = logits[..x.batch].iter().map(|z| softplus(*z)).sum();
            }
            for pair in pairs {
                let at = local(pair);
                label_losses[at / x.padded_batch] -= logits[at] as f64;
            }
            let mut losses = all_losses.lock().expect("no task panics while it holds the losses");
            losses[task_first..][..task_labels].copy_from_slice(&label_losses);
        }
        for row in logits.chunks_mut(x.padded_batch) {
            for z in row[..x.batch].iter_mut() {
                *z = sigmoid(*z);
            }
            row[x.batch..].fill(0.0);
        }
        for pair in pairs {
            logits[local(pair)] -= 1.0;
        }
    });
    losses
}

/// `dX += G^T W`, over the chunk's labels upwards.
fn add_input_gradient(work: &Work, chunk: &Chunk, gradient: &mut [f32]) {
    let x = &work.x;
    gradient.par_chunks_mut(TILE_ROWS * x.padded_dim).enumerate().for_each_init(
        Panel::default,
        |panel, (tile, gradient)| {
            let rows = gradient.len() / x.padded_dim;
            panel.pack(&chunk.logits[tile * TILE_ROWS..], 1, x.padded_batch, rows, chunk.labels);
            gemm::multiply_add(work.set, panel, &chunk.weights, x.padded_dim, gradient, x.padded_dim, x.padded_dim);
        },
    );
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

/// `log(1 + e^z)` without overflow.
fn softplus(z: f32) -> f64 {
    let z = z as f64;
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

fn padded(rows: &[f32], dim: usize, padded_dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.len() / dim * padded_dim];
    for (out, row) in out.chunks_mut(padded_dim).zip(rows.chunks(dim)) {
        out[..dim].copy_from_slice(row);
    }
    out
}
