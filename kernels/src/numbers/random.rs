//! Random bits that are a function of where they are used, not of when.
//!
//! A draw is a hash of (seed, stream, optimizer step, label, column). So the weights do not depend on the chunk size,
//! the number of threads, the launch shape or the device, and a resumed run draws what the uninterrupted one would
//! have drawn. Quality: `lowbias32` (Chris Wellons, "Prospecting for Hash Functions", 2018) has nearly no measurable
//! bias between input and output bits, at six operations a draw, and one 32-bit draw serves two neighbouring columns
//! with 16 bits each. Rounding of a weight needs nothing better: 16 bits resolve 2^-16 of the gap between two codes.

/// What the bits are for. Streams never share draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Initial weights: their values.
    Initial = 1,
    /// Initial weights: their rounding.
    InitialRounding = 2,
    /// The rounding of an update.
    Rounding = 3,
}

/// A 32-bit mix in which every input bit affects every output bit.
#[inline(always)]
pub const fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The key of one stream at one optimizer step.
pub const fn step_key(seed: u64, stream: Stream, step: u64) -> u32 {
    let mut key = hash(stream as u32 ^ 0x9e37_79b9);
    key = hash(key ^ seed as u32);
    key = hash(key ^ (seed >> 32) as u32);
    key = hash(key ^ step as u32);
    hash(key ^ (step >> 32) as u32)
}

/// The key of one label's row of weights, given the [`step_key`]. Labels beyond 2^32 are told apart.
#[inline(always)]
pub const fn row_key(step_key: u32, label: u64) -> u32 {
    let low = hash(step_key ^ label as u32);
    hash(low ^ ((label >> 32) as u32).wrapping_mul(0x85eb_ca6b))
}

/// 32 bits for the columns `2 * pair` (low half) and `2 * pair + 1` (high half) of a row.
#[inline(always)]
pub const fn pair_bits(row_key: u32, pair: u32) -> u32 {
    // The multiplier keeps the inputs of different rows from being shifted copies of one another.
    hash(row_key ^ pair.wrapping_mul(0x9e37_79b9))
}

/// The 16 bits of one column of a row.
#[inline(always)]
pub const fn column_bits(row_key: u32, column: u32) -> u16 {
    (pair_bits(row_key, column / 2) >> (16 * (column % 2))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_uncorrelated_between_neighbours() {
        let key = step_key(42, Stream::Rounding, 7);
        let n = 1 << 18;
        let draw = |label: u64, column: u32| column_bits(row_key(key, label), column) as f64 / 65536.0 - 0.5;
        let (mut sum, mut square, mut right, mut below) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..n {
            let (label, column) = ((i / 256) as u64, (i % 256) as u32);
            let x = draw(label, column);
            sum += x;
            square += x * x;
            right += x * draw(label, column + 1);
            below += x * draw(label + 1, column);
        }
        let n = n as f64;
        // Standard errors: of the mean 1/sqrt(12 n), of a product's mean 1/(12 sqrt(n)).
        assert!((sum / n).abs() < 4.0 / (12.0 * n).sqrt());
        assert!((square / n - 1.0 / 12.0).abs() < 4.0 * (1.0 / 180.0f64 / n).sqrt());
        assert!((right / n).abs() < 4.0 / (12.0 * n.sqrt()));
        assert!((below / n).abs() < 4.0 / (12.0 * n.sqrt()));
    }

    #[test]
    fn seeds_streams_steps_and_far_labels_differ() {
        let base = step_key(1, Stream::Rounding, 1);
        for other in [
            step_key(2, Stream::Rounding, 1),
            step_key(1 | 1 << 32, Stream::Rounding, 1),
            step_key(1, Stream::Initial, 1),
            step_key(1, Stream::Rounding, 2),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(row_key(base, 5), row_key(base, 5 + (1 << 32)));
    }
}
