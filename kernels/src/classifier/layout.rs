//! How classifier weights lie in memory: rows of 32-bit words, the same on every device.
//!
//! Words, because 8- and 16-bit storage is missing on some GPUs. A row begins at a multiple of four words, so kernels
//! can load 16 bytes at a time; columns past `dim` are zero and are never read as weights.

use super::problem::Segment;
use crate::numbers::{Format, codes, random};

/// Words of a row are padded to this many.
const ROW_ALIGNMENT: usize = 4;

impl Format {
    /// Words of a row of `dim` numbers, padding included.
    pub fn row_words(self, dim: usize) -> usize {
        (dim * self.bits()).div_ceil(32).next_multiple_of(ROW_ALIGNMENT)
    }

    /// Decodes a row; exact.
    ///
    /// # Panics
    /// If `row` is shorter than `out` needs, or the format is F16, in which nothing is stored.
    pub fn decode_row(self, row: &[u32], out: &mut [f32]) {
        match self {
            Self::E4m3 => decode_8(row, out, |code| E4M3_VALUES[code as usize]),
            Self::E5m2 => decode_8(row, out, codes::e5m2_to_f32),
            Self::Bf16 => decode_bf16_row(row, out),
            Self::F32 => {
                for (out, word) in out.iter_mut().zip(row) {
                    *out = f32::from_bits(*word);
                }
            }
            Self::F16 => panic!("nothing is stored in F16"),
        }
    }

    /// Encodes a row, rounding to nearest.
    ///
    /// # Panics
    /// If the format is F16, in which nothing is stored.
    pub fn encode_row(self, values: &[f32], row: &mut [u32]) {
        match self {
            Self::E4m3 => pack_8(values, row, codes::f32_to_e4m3),
            Self::E5m2 => pack_8(values, row, codes::f32_to_e5m2),
            Self::Bf16 => pack_16(values, row, codes::f32_to_bf16),
            Self::F32 => {
                for (word, value) in row.iter_mut().zip(values) {
                    *word = value.to_bits();
                }
            }
            Self::F16 => panic!("nothing is stored in F16"),
        }
    }
}

#[inline(always)]
fn decode_8(row: &[u32], out: &mut [f32], decode: impl Fn(u8) -> f32) {
    for (out, word) in out.chunks_mut(4).zip(row) {
        for (out, code) in out.iter_mut().zip(word.to_le_bytes()) {
            *out = decode(code);
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
        *word = values.iter().rev().fold(0, |word, value| word << 8 | encode(*value) as u32);
    }
}

fn pack_16(values: &[f32], row: &mut [u32], encode: impl Fn(f32) -> u16) {
    for (word, values) in row.iter_mut().zip(values.chunks(2)) {
        *word = values.iter().rev().fold(0, |word, value| word << 16 | encode(*value) as u32);
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
pub fn stored(format: Format, value: f32, key: u32, label: u64, column: usize) -> f32 {
    format.round_stochastic(value, random::column_bits(random::row_key(key, label), column as u32))
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
            for format in [Format::E4m3, Format::E5m2, Format::Bf16, Format::F32] {
                let mut row = vec![0; format.row_words(dim)];
                assert_eq!(row.len() % ROW_ALIGNMENT, 0);
                format.encode_row(&values, &mut row);
                let mut back = vec![f32::NAN; dim];
                format.decode_row(&row, &mut back);
                let rounded: Vec<f32> = values.iter().map(|v| format.round(*v)).collect();
                assert_eq!(back, rounded, "{format} {dim}");
                if format != Format::E5m2 {
                    assert_eq!(back, values, "{format} {dim}");
                }
            }
        }
    }
}
