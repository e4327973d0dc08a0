//! `X` in 16 bits, and the orders in which products want their operands.

use cubecl::prelude::*;

use crate::{
    gpu::ptx::{Half, pack},
    numbers::device::{Format, round},
};

/// 16-byte parts of a stage's row of 16-bit numbers.
pub const PARTS: usize = 8;

/// How `A` lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// E4M3 codes, multiplied as F16; `native` where an instruction decodes them.
    E4m3 { native: bool },
    /// 16-bit numbers of the product's type.
    Half,
}

impl Left {
    /// 16-byte parts of a stage's row.
    pub const fn parts(self) -> usize {
        match self {
            Self::E4m3 { .. } => PARTS / 2,
            Self::Half => PARTS,
        }
    }
}

/// Where row `row` of `B` is stored: within its group of 64 in another place.
///
/// With this order a unit's sums of one row of `C` are 16 neighbouring columns: `16 t + 2 j + e` for tile `j` of 8,
/// element `e`.
#[cube]
pub fn stored_row(row: usize) -> usize {
    row / 64 * 64 + row % 16 / 2 * 8 + row % 64 / 16 * 2 + row % 2
}

/// The row of `B` that is stored at `stored`.
#[cube]
pub fn row_stored_at(stored: usize) -> usize {
    stored / 64 * 64 + stored % 8 / 2 * 16 + stored % 64 / 8 * 2 + stored % 2
}

/// The depth that a right operand for codes holds at `stored`: within its group of 16 in another place. Pairs stay
/// together.
#[cube]
pub fn depth_stored_at(stored: usize) -> usize {
    stored / 16 * 16 + stored % 8 / 2 * 4 + stored % 16 / 8 * 2 + stored % 2
}

/// Word `at` of what [`columns()`] writes.
#[cube]
pub fn columns_word<F: Float>(
    x: &[F],
    at: usize,
    batch: usize,
    dim: usize,
    pairs: usize,
    #[comptime] half: Half,
) -> u32 {
    let column = row_stored_at(at / pairs);
    let row = at % pairs * 2;
    let low = element(x, row, column, batch, dim, Format::F32);
    let high = element(x, row + 1, column, batch, dim, Format::F32);
    pack(low, high, half)
}

/// An element of `X`, rounded to a format; past the end zero.
#[cube]
pub fn element<F: Float>(
    x: &[F],
    row: usize,
    column: usize,
    batch: usize,
    dim: usize,
    #[comptime] format: Format,
) -> f32 {
    let mut value = 0.0f32.runtime();
    if row < batch && column < dim {
        value = round(f32::cast_from(x[row * dim + column]), format);
    }
    value
}
