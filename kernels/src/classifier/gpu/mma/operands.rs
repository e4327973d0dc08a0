//! `X` as the two products with tensor cores want it, in 16 bits: by rows for the logits, by columns for the weight
//! gradient.

use cubecl::prelude::*;

use crate::{
    classifier::gpu::common::operands::{Stored, XSize, columns_word, depth_stored_at, element, row_stored_at},
    gpu::ptx::pack,
    numbers::Format,
};

/// Rows of `X`, rounded to a format, padded with zeros, in the order that the product with `left` wants: see
/// [`stored_row`](crate::classifier::gpu::common::operands::stored_row) and [`depth_stored_at()`].
///
/// # Shapes
/// - `x`: `[batch, dim]`
/// - `out`: `[rows, pairs]` pairs of 16-bit numbers
#[cube(launch)]
pub fn rows<F: Float>(
    x: &[F],
    out: &mut [u32],
    size: &XSize,
    pairs: usize,
    #[comptime] format: Format,
    #[comptime] left: Stored,
    #[comptime] half: Format,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        let row = row_stored_at(ABSOLUTE_POS / pairs);
        let stored = ABSOLUTE_POS % pairs * 2;
        let column = match comptime!(left) {
            Stored::Codes { .. } => depth_stored_at(stored),
            Stored::Half => stored,
        };
        let low = element(x, row, column, size, format);
        let high = element(x, row, column + 1, size, format);
        out[ABSOLUTE_POS] = pack(low, high, half);
    }
}

/// Columns of `X`, unrounded but for their 16 bits, in the order of
/// [`stored_row`](crate::classifier::gpu::common::operands::stored_row), padded with zeros.
///
/// # Shapes
/// - `x`: `[batch, dim]`
/// - `out`: `[columns, pairs]` pairs of 16-bit numbers
#[cube(launch)]
pub fn columns<F: Float>(
    x: &[F],
    out: &mut [u32],
    size: &XSize,
    pairs: usize,
    #[comptime] half: Format,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = columns_word(x, ABSOLUTE_POS, size, pairs, half);
    }
}
