//! Weight gradient, SGD and rounding of one chunk: the weight gradient never exists beyond a few rows.

use rayon::prelude::*;

use super::{Chunk, Embeddings, Work};
use crate::{
    classifier::problem::{Head, Step},
    gemm::{self, Panel, TILE_ROWS},
    numbers::{Format, codes, random},
};

/// Updates the chunk's rows in place; returns how many weights kept their value because the new one was not finite.
///
/// `compensation` holds the rows of the chunk's head labels, which come first; `first` is the chunk's first row in the
/// segment.
pub(super) fn update(
    work: &Work,
    step: &Step,
    words: &mut [u32],
    compensation: &mut [u32],
    first: usize,
    chunk: &Chunk,
) -> u64 {
    let Work { set, segment, x } = work;
    let row_words = segment.precision.row_words(x.dim);
    let compensation_words = segment.head.map_or(0, |h| h.compensation.row_words(x.dim));
    // One slice of compensation a tile; empty where no label of the tile is in the head.
    let mut compensation: Vec<&mut [u32]> = compensation.chunks_mut((TILE_ROWS * compensation_words).max(1)).collect();
    compensation.resize_with(chunk.labels.div_ceil(TILE_ROWS), Default::default);

    words
        .par_chunks_mut(TILE_ROWS * row_words)
        .zip(compensation)
        .enumerate()
        .map_init(
            || Scratch::new(x),
            |scratch, (tile, (words, compensation))| {
                let first_row = tile * TILE_ROWS;
                let rows = words.len() / row_words;
                scratch.panel.pack(&chunk.logits[first_row * x.padded_batch..], x.padded_batch, 1, rows, x.batch);
                scratch.gradient.fill(0.0);
                gemm::multiply_add(
                    *set,
                    &scratch.panel,
                    &x.rows,
                    x.padded_dim,
                    &mut scratch.gradient,
                    x.padded_dim,
                    x.padded_dim,
                );
                let mut compensation = compensation.chunks_mut(compensation_words.max(1));
                let mut non_finite = 0;
                for (row, words) in words.chunks_mut(row_words).enumerate() {
                    let label = segment.first_label + (first + first_row + row) as u64;
                    let gradient = &mut scratch.gradient[row * x.padded_dim..][..x.dim];
                    let weights = &chunk.weights[(first_row + row) * x.padded_dim..][..x.dim];
                    let key = random::row_key(step.rounding_key, label);
                    let head = segment.head.zip(compensation.next());
                    non_finite += set.run(|| {
                        update_row(segment.precision, step, key, weights, gradient, head, &mut scratch.row, words)
                    });
                }
                non_finite
            },
        )
        .sum()
}

/// What one thread needs beside its rows.
struct Scratch {
    panel: Panel,
    /// `[TILE_ROWS, padded_dim]`
    gradient: Vec<f32>,
    row: RowScratch,
}

/// Buffers of one row.
struct RowScratch {
    /// The random bits of every column.
    random: Vec<u16>,
    compensation: Vec<f32>,
    codes: Vec<u8>,
}

impl Scratch {
    fn new(x: &Embeddings) -> Self {
        Self {
            panel: Panel::default(),
            gradient: vec![0.0; TILE_ROWS * x.padded_dim],
            row: RowScratch {
                random: vec![0; x.dim.next_multiple_of(2)],
                compensation: vec![0.0; x.dim],
                codes: vec![0; x.dim.next_multiple_of(4)],
            },
        }
    }
}

/// `W <- round(W - lr (G X + wd W))` for one label. `values` comes in as the weight gradient and is overwritten.
///
/// Separate plain loops, so that the compiler makes vectors of them.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn update_row(
    precision: Format,
    step: &Step,
    key: u32,
    weights: &[f32],
    values: &mut [f32],
    head: Option<(Head, &mut [u32])>,
    scratch: &mut RowScratch,
    words: &mut [u32],
) -> u64 {
    match &head {
        Some((head, words)) => head.compensation.decode_row(words, &mut scratch.compensation),
        None => scratch.compensation.fill(0.0),
    }
    let mut non_finite = 0;
    for ((value, w), c) in values.iter_mut().zip(weights).zip(&scratch.compensation) {
        let new = w + c - step.learning_rate * (*value + step.weight_decay * w);
        // A weight lies on the grid, so rounding gives it back as it was.
        *value = if new.is_finite() { new } else { *w };
        non_finite += u64::from(!new.is_finite());
    }

    if precision != Format::F32 {
        for (pair, random) in scratch.random.chunks_exact_mut(2).enumerate() {
            let bits = random::pair_bits(key, pair as u32);
            random[0] = bits as u16;
            random[1] = (bits >> 16) as u16;
        }
    }
    match precision {
        Format::E4m3 => {
            for ((code, value), random) in scratch.codes.iter_mut().zip(&*values).zip(&scratch.random) {
                *code = codes::f32_to_e4m3_stochastic(*value, *random);
            }
            let (quads, _) = scratch.codes.as_chunks::<4>();
            for (word, codes) in words.iter_mut().zip(quads) {
                *word = u32::from_le_bytes(*codes);
            }
        }
        Format::Bf16 => {
            let pairs = values.chunks(2).zip(scratch.random.chunks(2));
            for (word, (values, random)) in words.iter_mut().zip(pairs) {
                *word = values
                    .iter()
                    .zip(random)
                    .rev()
                    .fold(0, |word, (v, r)| word << 16 | codes::f32_to_bf16_stochastic(*v, *r) as u32);
            }
        }
        _ => {
            for (word, value) in words.iter_mut().zip(&*values) {
                *word = value.to_bits();
            }
        }
    }

    if let Some((head, compensation)) = head {
        precision.decode_row(words, &mut scratch.compensation);
        for (c, value) in scratch.compensation.iter_mut().zip(values) {
            *c = *value - *c;
        }
        head.compensation.encode_row(&scratch.compensation, compensation);
    }
    non_finite
}
