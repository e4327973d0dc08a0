//! How classifier weights lie in memory: rows of 32-bit words, the same on every device.
//!
//! Words, because 8- and 16-bit storage is missing on some GPUs. A row begins at a multiple of four words, so kernels
//! can load 16 bytes at a time; columns past `dim` are zero and are never read as weights.

use super::problem::{Operands, Segment};
use crate::numbers::{codes, random};

/// The type in which weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 8 bits, rounded stochastically.
    E4m3,
    /// 16 bits, rounded stochastically.
    Bf16,
    /// 32 bits.
    F32,
}

/// The type in which head labels store what rounding has taken from their weights (Kahan summation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compensation {
    /// 16 bits a weight.
    Bf16,
    /// 8 bits a weight.
    E5m2,
}

/// Words of a row are padded to this many.
const ROW_ALIGNMENT: usize = 4;

fn row_words(bits: usize, dim: usize) -> usize {
    (dim * bits).div_ceil(32).next_multiple_of(ROW_ALIGNMENT)
}

impl Precision {
    /// Bits a weight takes.
    pub const fn bits(self) -> usize {
        match self {
            Self::E4m3 => 8,
            Self::Bf16 => 16,
            Self::F32 => 32,
        }
    }

    /// Words of a row of `dim` weights, padding included.
    pub fn row_words(self, dim: usize) -> usize {
        row_words(self.bits(), dim)
    }

    /// Decodes a row; exact.
    ///
    /// # Panics
    /// If `row` is shorter than `out` needs.
    pub fn decode_row(self, row: &[u32], out: &mut [f32]) {
        match self {
            Self::E4m3 => {
                for (out, word) in out.chunks_mut(4).zip(row) {
                    for (out, code) in out.iter_mut().zip(word.to_le_bytes()) {
                        *out = E4M3_VALUES[code as usize];
                    }
                }
            }
            Self::Bf16 => decode_bf16_row(row, out),
            Self::F32 => {
                for (out, word) in out.iter_mut().zip(row) {
                    *out = f32::from_bits(*word);
                }
            }
        }
    }

    /// Encodes a row, rounding to nearest; for tests and for weights from elsewhere.
    pub fn encode_row(self, values: &[f32], row: &mut [u32]) {
        match self {
            Self::E4m3 => pack_8(values, row, codes::f32_to_e4m3),
            Self::Bf16 => pack_16(values, row, codes::f32_to_bf16),
            Self::F32 => {
                for (word, value) in row.iter_mut().zip(values) {
                    *word = value.to_bits();
                }
            }
        }
    }
}

impl Compensation {
    /// Bits a weight's compensation takes.
    pub const fn bits(self) -> usize {
        match self {
            Self::Bf16 => 16,
            Self::E5m2 => 8,
        }
    }

    /// Words of a row of `dim` compensations, padding included.
    pub fn row_words(self, dim: usize) -> usize {
        row_words(self.bits(), dim)
    }

    /// Decodes a row; exact.
    pub fn decode_row(self, row: &[u32], out: &mut [f32]) {
        match self {
            Self::Bf16 => decode_bf16_row(row, out),
            Self::E5m2 => {
                for (out, word) in out.chunks_mut(4).zip(row) {
                    for (out, code) in out.iter_mut().zip(word.to_le_bytes()) {
                        *out = codes::e5m2_to_f32(code);
                    }
                }
            }
        }
    }

    /// Encodes a row, rounding to nearest.
    pub fn encode_row(self, values: &[f32], row: &mut [u32]) {
        match self {
            Self::Bf16 => pack_16(values, row, codes::f32_to_bf16),
            Self::E5m2 => pack_8(values, row, codes::f32_to_e5m2),
        }
    }

    /// What a compensation becomes when it is stored.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::Bf16 => codes::bf16_to_f32(codes::f32_to_bf16(value)),
            Self::E5m2 => codes::e5m2_to_f32(codes::f32_to_e5m2(value)),
        }
    }
}

fn decode_bf16_row(row: &[u32], out: &mut [f32]) {
    for (out, word) in out.chunks_mut(2).zip(row) {
        for (k, out) in out.iter_mut().enumerate() {
            *out = codes::bf16_to_f32((word >> (16 * k)) as u16);
        }
    }
}

fn pack_8(values: &[f32], row: &mut [u32], encode: impl Fn(f32) -> u8) {
    for (word, values) in row.iter_mut().zip(values.chunks(4)) {
        *word = values
            .iter()
            .rev()
            .fold(0, |word, value| word << 8 | encode(*value) as u32);
    }
}

fn pack_16(values: &[f32], row: &mut [u32], encode: impl Fn(f32) -> u16) {
    for (word, values) in row.iter_mut().zip(values.chunks(2)) {
        *word = values
            .iter()
            .rev()
            .fold(0, |word, value| word << 16 | encode(*value) as u32);
    }
}

/// A value of `X` as the product that gives the logits sees it.
pub fn operand(operands: Operands, value: f32) -> f32 {
    match operands {
        Operands::E4m3 => codes::e4m3_to_f32(codes::f32_to_e4m3(value)),
        Operands::Bf16 => codes::bf16_to_f32(codes::f32_to_bf16(value)),
        Operands::F32 => value,
    }
}

impl Segment {
    /// The weights as numbers, `[labels, dim]`.
    pub fn decode(&self, words: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; self.labels * self.dim];
        let row_words = self.precision.row_words(self.dim);
        for (out, row) in out.chunks_mut(self.dim).zip(words.chunks(row_words)) {
            self.precision.decode_row(row, out);
        }
        out
    }

    /// The compensation as numbers, `[head_rows, dim]`.
    pub fn decode_compensation(&self, words: &[u32]) -> Vec<f32> {
        let Some(head) = self.head else {
            return Vec::new();
        };
        let mut out = vec![0.0; self.head_rows() * self.dim];
        let row_words = head.compensation.row_words(self.dim);
        for (out, row) in out.chunks_mut(self.dim).zip(words.chunks(row_words)) {
            head.compensation.decode_row(row, out);
        }
        out
    }
}

/// The value that a weight takes when `value` is stored, given the step's key and the weight's place.
pub fn stored(precision: Precision, value: f32, key: u32, label: u64, column: usize) -> f32 {
    let random = random::column_bits(random::row_key(key, label), column as u32);
    match precision {
        Precision::E4m3 => codes::e4m3_to_f32(codes::f32_to_e4m3_stochastic(value, random)),
        Precision::Bf16 => codes::bf16_to_f32(codes::f32_to_bf16_stochastic(value, random)),
        Precision::F32 => value,
    }
}

/// A table of 1 KiB is quicker on a CPU than the arithmetic.
static E4M3_VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = codes::e4m3_to_f32(code as u8);
        code += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_width_round_trip() {
        for dim in [1, 3, 4, 7, 16, 33] {
            let values: Vec<f32> = (0..dim).map(|i| ((i % 16) as f32 - 3.0) * 0.125).collect();
            for precision in [Precision::E4m3, Precision::Bf16, Precision::F32] {
                let mut row = vec![0; precision.row_words(dim)];
                assert_eq!(row.len() % ROW_ALIGNMENT, 0);
                precision.encode_row(&values, &mut row);
                let mut back = vec![f32::NAN; dim];
                precision.decode_row(&row, &mut back);
                assert_eq!(back, values, "{precision:?} {dim}");
            }
            for compensation in [Compensation::Bf16, Compensation::E5m2] {
                let mut row = vec![0; compensation.row_words(dim)];
                compensation.encode_row(&values, &mut row);
                let mut back = vec![f32::NAN; dim];
                compensation.decode_row(&row, &mut back);
                let rounded: Vec<f32> = values.iter().map(|v| compensation.round(*v)).collect();
                assert_eq!(back, rounded);
            }
        }
    }
}
