//! What the products take, in their layouts.

use cubecl::prelude::*;

use super::{
    positives::{first_positive, positive_logit},
    stream::{Operands, stored_column},
};
use crate::{
    classifier::gpu::common::operands::{columns_word, depth_stored_at, element},
    gpu::ptx::{Half, Words4, pack, scaled_sigmoid},
    numbers::device::{Format, Quad, encode_quad},
};

/// Rows of `X`, rounded to a format, in the order of [`stored_column()`], padded with zeros to whole slabs.
///
/// # Shapes
/// - `x`: `[batch, dim]`
/// - `out`: `[rows, row_words]`, codes or 16-bit numbers
#[cube(launch)]
pub fn rows<F: Float>(
    x: &[F],
    out: &mut [u32],
    batch: usize,
    dim: usize,
    row_words: usize,
    #[comptime] format: Format,
    #[comptime] operands: Operands,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = rows_word(x, ABSOLUTE_POS, batch, dim, row_words, format, operands);
    }
}

/// Word `at` of what [`rows()`] writes.
#[cube]
fn rows_word<F: Float>(
    x: &[F],
    at: usize,
    batch: usize,
    dim: usize,
    row_words: usize,
    #[comptime] format: Format,
    #[comptime] operands: Operands,
) -> u32 {
    let row = stored_column(at / row_words);
    let word = at % row_words;
    match comptime!(operands) {
        Operands::Codes => {
            let mut quad = Quad::empty();
            #[unroll]
            for k in 0..4usize {
                quad.insert(k, element(x, row, 4 * word + k, batch, dim, Format::F32));
            }
            encode_quad(quad, Format::E4m3).extract(0usize)
        }
        Operands::Decoded | Operands::Half(_) => {
            let stored = 2 * word;
            let column = match comptime!(operands) {
                Operands::Decoded => depth_stored_at(stored),
                _ => stored,
            };
            let low = element(x, row, column, batch, dim, format);
            let high = element(x, row, column + 1, batch, dim, format);
            let half = match comptime!(operands) {
                Operands::Half(half) => half,
                _ => Half::F16,
            };
            pack(low, high, half)
        }
    }
}

/// Units of a cube that prepares a step.
pub const PREPARERS: u32 = 256;

/// Which cubes of [`prepare()`] do what: those from each of these on.
#[derive(CubeType, CubeLaunch)]
pub struct Shares {
    pub columns: usize,
    pub starts: usize,
    pub positives: usize,
}

/// All that a step needs before its first chunk, in one launch: `X` in the layouts of both products, the positives'
/// gradients and places, and no value that was not finite.
///
/// # Shapes
/// - `x`: `[batch, dim]`
/// - `rows`: `[rows, row_words]`, see [`rows()`]
/// - `columns`: `[columns, batch_pairs]`, see [`columns_word()`]
/// - `words`, `pairs`, `gradients`, `logits`, `starts`, `count`: see [`positives`](super::positives)
/// - `non_finite`: `[1]`
#[cube(launch)]
pub fn prepare<F: Float>(
    x: &[F],
    words: &[Words4],
    pairs: &[u32],
    rows: &mut [u32],
    columns: &mut [u32],
    gradients: &mut [u32],
    logits: &mut [f32],
    starts: &mut [u32],
    non_finite: &mut [u32],
    shares: &Shares,
    batch: usize,
    dim: usize,
    row_words: usize,
    batch_pairs: usize,
    row_parts: usize,
    count: usize,
    #[comptime] format: Format,
    #[comptime] operands: Operands,
    #[define(F)] _dtype: ElemType,
) {
    let cube = CUBE_POS;
    let unit = UNIT_POS as usize;
    let units = comptime!(PREPARERS as usize);
    if cube < shares.columns {
        let at = cube * units + unit;
        if at < rows.len() {
            rows[at] = rows_word(x, at, batch, dim, row_words, format, operands);
        }
        if at == 0 {
            non_finite[0] = 0u32;
        }
    } else if cube < shares.starts {
        let at = (cube - shares.columns) * units + unit;
        if at < columns.len() {
            columns[at] = columns_word(x, at, batch, dim, batch_pairs, Half::F16);
        }
    } else if cube < shares.positives {
        let at = (cube - shares.starts) * units + unit;
        if at < starts.len() {
            starts[at] = first_positive(pairs, at, count);
        }
    } else {
        let positive = (cube - shares.positives) * comptime!(PREPARERS as usize / 32) + unit / 32;
        if positive < count {
            let z = positive_logit(words, x, pairs, positive, row_parts, dim, format);
            if UNIT_POS_PLANE == 0u32 {
                let gradient = -scaled_sigmoid(-z, Half::F16);
                gradients[positive] = pack(gradient, 0.0f32.runtime(), Half::F16);
                logits[positive] = z;
            }
        }
    }
}
