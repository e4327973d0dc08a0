//! `X` in 16 bits, and the orders in which products want their operands.

use cubecl::prelude::*;

use crate::{
    gpu::ptx::pack,
    numbers::{Format, device::round},
};

/// 16-byte parts of a stage's row of 16-bit numbers.
pub const PARTS: usize = 8;

/// How the left operand of a product lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// E4M3 codes, multiplied as F16; `native` where an instruction decodes them.
    Codes { native: bool },
    /// 16-bit numbers of the product's format.
    Half,
}

impl Stored {
    /// 16-byte parts of a stage's row.
    pub const fn parts(self) -> usize {
        match self {
            Self::Codes { .. } => PARTS / 2,
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

/// Sizes of `X`.
#[derive(CubeType, CubeLaunch)]
pub struct XSize {
    /// Rows.
    pub batch: usize,
    /// Features.
    pub dim: usize,
}

impl XSize {
    /// For a launch.
    pub fn launch(batch: usize, dim: usize) -> XSizeLaunch {
        XSizeLaunch { batch, dim }
    }
}

/// Word `at` of the columns of `X` as rows of pairs of 16-bit numbers, rounded to nearest, `pairs` words a row, in the
/// order of [`stored_row`]; padded with zeros.
#[cube]
pub fn columns_word<F: Float>(x: &[F], at: usize, size: &XSize, pairs: usize, #[comptime] half: Format) -> u32 {
    let column = row_stored_at(at / pairs);
    let row = at % pairs * 2;
    let low = element(x, row, column, size, Format::F32);
    let high = element(x, row + 1, column, size, Format::F32);
    pack(low, high, half)
}

/// An element of `X`, rounded to a format; past the end zero.
#[cube]
pub fn element<F: Float>(x: &[F], row: usize, column: usize, size: &XSize, #[comptime] format: Format) -> f32 {
    let mut value = 0.0f32.runtime();
    if row < size.batch && column < size.dim {
        value = round(f32::cast_from(x[row * size.dim + column]), format);
    }
    value
}
