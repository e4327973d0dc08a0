//! Matrix products of the encoder on the CPU.

use rayon::prelude::*;

use crate::gemm::{self, InstructionSet, Panel, TILE_COLUMNS, TILE_ROWS};

/// Rows of a piece of the result: what a thread takes at a time.
const PIECE: usize = 4 * TILE_ROWS;
/// Columns of the right operand that lie together: with [`DEPTH`] of them a block stays in the cache.
const BLOCK: usize = 64;
/// Depth that is multiplied at a time.
const DEPTH: usize = 256;

/// A matrix in memory, or its transpose.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Operand<'a> {
    /// Rows one behind the other, `stride` numbers apart.
    pub fn rows(values: &'a [f32], stride: usize) -> Self {
        Self { values, row_stride: stride, column_stride: 1 }
    }

    /// The transpose.
    pub fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

/// `A B` with `A` of `[rows, depth]` and `B` of `[depth, columns]`.
pub struct Product<'a> {
    pub a: Operand<'a>,
    pub b: Operand<'a>,
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
}

impl Product<'_> {
    /// The product, handed over row by row: `finish` gets the number of a row, its sums, and the row of `out` (`columns`
    /// numbers, rows `stride` apart). Every sum runs over the depth upwards, whatever the number of threads.
    pub fn each_row(
        &self,
        set: InstructionSet,
        out: &mut [f32],
        stride: usize,
        finish: impl Fn(usize, &[f32], &mut [f32]) + Sync,
    ) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let padded = self.columns.next_multiple_of(TILE_COLUMNS);
        let right = self.packed_right(padded);
        out.par_chunks_mut(PIECE * stride).enumerate().take(self.rows.div_ceil(PIECE)).for_each_init(
            || (vec![0.0; PIECE * padded], Panel::default()),
            |(sums, panel), (piece, out)| {
                let first = piece * PIECE;
                let rows = PIECE.min(self.rows - first);
                sums.fill(0.0);
                for depth in (0..self.depth).step_by(DEPTH) {
                    let length = DEPTH.min(self.depth - depth);
                    for tile in (0..rows).step_by(TILE_ROWS) {
                        let Operand { values, row_stride, column_stride } = self.a;
                        let a = &values[(first + tile) * row_stride + depth * column_stride..];
                        panel.pack(a, row_stride, column_stride, TILE_ROWS.min(rows - tile), length);
                        for column in (0..padded).step_by(BLOCK) {
                            let width = BLOCK.min(padded - column);
                            let b = &right[column * self.depth + depth * width..];
                            let sums = &mut sums[tile * padded + column..];
                            gemm::multiply_add(set, panel, b, width, sums, padded, width);
                        }
                    }
                }
                for (row, (sums, out)) in sums.chunks(padded).zip(out.chunks_mut(stride)).take(rows).enumerate() {
                    finish(first + row, &sums[..self.columns], &mut out[..self.columns]);
                }
            },
        );
    }

    /// The product in a buffer of its own.
    pub fn values(&self, set: InstructionSet) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.columns];
        self.each_row(set, &mut out, self.columns, |_, sums, out| out.copy_from_slice(sums));
        out
    }

    /// `B` in blocks of [`BLOCK`] columns, each `[depth, width]`, filled up with zeros to `padded` columns.
    fn packed_right(&self, padded: usize) -> Vec<f32> {
        let Operand { values, row_stride, column_stride } = self.b;
        let mut packed = vec![0.0; self.depth * padded];
        packed.par_chunks_mut((self.depth * BLOCK).max(1)).enumerate().for_each(|(block, packed)| {
            let first = block * BLOCK;
            let width = BLOCK.min(padded - first);
            let real = width.min(self.columns.saturating_sub(first));
            for (row, packed) in packed.chunks_exact_mut(width).enumerate() {
                let from = row * row_stride + first * column_stride;
                if column_stride == 1 {
                    packed[..real].copy_from_slice(&values[from..from + real]);
                } else {
                    for (column, packed) in packed[..real].iter_mut().enumerate() {
                        *packed = values[from + column * column_stride];
                    }
                }
            }
        });
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::hash;

    #[test]
    fn products_of_all_shapes_and_transposes_agree_with_f64() {
        let noise = |length: usize, seed: u32| -> Vec<f32> {
            (0..length as u32).map(|at| hash(at ^ hash(seed)) as f32 / 2_147_483_648.0 - 1.0).collect()
        };
        for (rows, depth, columns) in [(1, 1, 1), (7, 5, 17), (61, 300, 130), (25, 513, 64), (24, 0, 3), (0, 4, 4)] {
            let (a, b) = (noise(rows * depth, 1), noise(depth * columns, 2));
            for (left, right) in [(false, false), (true, false), (false, true)] {
                let a_of = |row: usize, k: usize| a[if left { k * rows + row } else { row * depth + k }];
                let b_of = |k: usize, column: usize| b[if right { column * depth + k } else { k * columns + column }];
                let operand = |values, stride, swapped: bool, other| match swapped {
                    true => Operand::rows(values, other).transposed(),
                    false => Operand::rows(values, stride),
                };
                let product = Product {
                    a: operand(&a, depth, left, rows),
                    b: operand(&b, columns, right, depth),
                    rows,
                    depth,
                    columns,
                };
                let out = product.values(InstructionSet::detect());
                for (at, found) in out.iter().enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let expected: f64 = (0..depth).map(|k| f64::from(a_of(row, k)) * f64::from(b_of(k, column))).sum();
                    assert!((f64::from(*found) - expected).abs() < 1e-4, "{rows} {depth} {columns} {left} {right}");
                }
            }
        }
    }
}
