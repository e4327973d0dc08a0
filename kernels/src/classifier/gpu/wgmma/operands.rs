//! What the products take, in their layouts.

use cubecl::prelude::*;

use super::{
    positives::{first_positive, positive_logit},
    stream::{Multiplied, Stream, stored_column},
};
use crate::{
    classifier::gpu::common::{
        loss::scaled_sigmoid,
        operands::{XSize, columns_word, depth_stored_at, element},
    },
    gpu::ptx::{Words4, pack},
    numbers::{
        Format,
        device::{Quad, encode_quad},
    },
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
    size: &XSize,
    row_words: usize,
    #[comptime] format: Format,
    #[comptime] operands: Multiplied,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = rows_word(x, ABSOLUTE_POS, size, row_words, format, operands);
    }
}

/// Word `at` of what [`rows()`] writes.
#[cube]
fn rows_word<F: Float>(
    x: &[F],
    at: usize,
    size: &XSize,
    row_words: usize,
    #[comptime] format: Format,
    #[comptime] operands: Multiplied,
) -> u32 {
    let row = stored_column(at / row_words);
    let word = at % row_words;
    match comptime!(operands) {
        Multiplied::Codes => {
            let mut quad = Quad::empty();
            #[unroll]
            for k in 0..4usize {
                quad.insert(k, element(x, row, 4 * word + k, size, Format::F32));
            }
            encode_quad(quad, Format::E4m3).extract(0usize)
        }
        Multiplied::Decoded | Multiplied::Half(_) => {
            let stored = 2 * word;
            let column = match comptime!(operands) {
                Multiplied::Decoded => depth_stored_at(stored),
                _ => stored,
            };
            let low = element(x, row, column, size, format);
            let high = element(x, row, column + 1, size, format);
            let half = match comptime!(operands) {
                Multiplied::Half(half) => half,
                _ => Format::F16,
            };
            pack(low, high, half)
        }
    }
}

/// Units of a cube that prepares a step.
pub const PREPARERS: u32 = 256;

/// Sizes of [`prepare()`].
#[derive(CubeType, CubeLaunch)]
pub struct PrepareArgs {
    /// Cubes before this one make the rows of `X`; from here on its columns,
    pub columns: usize,
    /// the first positives of tiles,
    pub starts: usize,
    /// and the positives' gradients.
    pub positives: usize,
    pub x: XSize,
    /// Words of a row of `X` with padding.
    pub row_words: usize,
    /// Words of a column of `X` with padding.
    pub batch_pairs: usize,
    /// 16-byte parts of a row of weights.
    pub row_parts: usize,
    /// How many positives there are.
    pub count: usize,
}

/// What [`prepare()`] writes.
#[derive(CubeType, CubeLaunch)]
pub struct PreparedBuffers {
    /// `[rows, row_words]`, see [`rows()`]
    pub rows: Box<[u32]>,
    /// `[columns, batch_pairs]`, see [`columns_word()`]
    pub columns: Box<[u32]>,
    /// The gradient of every positive, in the lower 16 bits.
    pub gradients: Box<[u32]>,
    /// The logit of every positive.
    pub logits: Box<[f32]>,
    /// See [`positives`](super::positives).
    pub starts: Box<[u32]>,
    /// `[1]`
    pub non_finite: Box<[u32]>,
}

/// How `X` is rounded and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rounding {
    pub format: Format,
    pub operands: Multiplied,
}

impl Rounding {
    pub fn new(format: Format, stream: Stream) -> Self {
        Self { format, operands: stream.operands }
    }
}

/// All that a step needs before its first chunk, in one launch: `X` in the layouts of both products, the positives'
/// gradients and places, and the count of values that were not finite set to zero.
///
/// # Shapes
/// - `x`: `[batch, dim]`
/// - `words`: the segment's weights
/// - `pairs`: see [`positives`](super::positives)
#[cube(launch)]
pub fn prepare<F: Float>(
    x: &[F],
    words: &[Words4],
    pairs: &[u32],
    out: &mut PreparedBuffers,
    args: &PrepareArgs,
    #[comptime] rounding: Rounding,
    #[define(F)] _dtype: ElemType,
) {
    let format = comptime!(rounding.format);
    let operands = comptime!(rounding.operands);
    let cube = CUBE_POS;
    let unit = UNIT_POS as usize;
    let units = comptime!(PREPARERS as usize);
    if cube < args.columns {
        let at = cube * units + unit;
        if at < out.rows.len() {
            out.rows[at] = rows_word(x, at, &args.x, args.row_words, format, operands);
        }
        if at == 0 {
            out.non_finite[0] = 0u32;
        }
    } else if cube < args.starts {
        let at = (cube - args.columns) * units + unit;
        if at < out.columns.len() {
            out.columns[at] = columns_word(x, at, &args.x, args.batch_pairs, Format::F16);
        }
    } else if cube < args.positives {
        let at = (cube - args.starts) * units + unit;
        if at < out.starts.len() {
            out.starts[at] = first_positive(pairs, at, args.count);
        }
    } else {
        let positive = (cube - args.positives) * comptime!(PREPARERS as usize / 32) + unit / 32;
        if positive < args.count {
            let z = positive_logit(words, x, pairs, positive, args.row_parts, args.x.dim, format);
            if UNIT_POS_PLANE == 0u32 {
                let gradient = -scaled_sigmoid(-z, Format::F16);
                out.gradients[positive] = pack(gradient, 0.0f32.runtime(), Format::F16);
                out.logits[positive] = z;
            }
        }
    }
}
