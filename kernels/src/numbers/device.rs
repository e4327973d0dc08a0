//! Number formats and random bits on the device: the formulas of [`codes`](super::codes) and [`random`](super::random),
//! bit for bit.
//!
//! Everything is done on 32-bit words, since 8- and 16-bit types are missing on some GPUs. No step depends on F32
//! denormals, which some GPUs flush to zero. NaN and infinity are recognised by their bits: a shader compiler may
//! assume that they never occur.

use cubecl::prelude::*;

use super::Format;

/// Four neighbouring columns of a row. Rows in words and in F32 scratch are padded to whole quads.
pub type Quad = Vector<f32, Const<4>>;
/// 16 bytes of codes: four quads in 8 bits, one in 32.
pub type Words = Vector<u32, Const<4>>;

/// What sets one 8-bit format apart from another. Both are prefixes of a shifted F32 bit pattern.
struct Minifloat {
    /// F32 mantissa bits that the format drops.
    dropped: u32,
    /// What F32 exponents are rebased by.
    rebase: u32,
    /// Where normal numbers begin.
    min_normal: f32,
    /// Brings a subnormal into fixed point, in units of `2^-dropped` of a code.
    to_fixed_point: f32,
    /// The value of code 1.
    smallest: f32,
    /// Magnitudes of at least this many units are no finite numbers.
    not_finite: u32,
}

impl Format {
    /// Words that a quad takes.
    pub(crate) const fn quad_words(self) -> usize {
        self.bits() / 8
    }

    const fn minifloat(self) -> Minifloat {
        match self {
            Self::E5m2 => Minifloat {
                dropped: 21,
                rebase: 112 << 23,
                min_normal: 6.103_515_6e-5,
                to_fixed_point: 137_438_953_472.0,
                smallest: 1.525_878_9e-5,
                not_finite: 0x7c,
            },
            _ => Minifloat {
                dropped: 20,
                rebase: 120 << 23,
                min_normal: 0.015_625,
                to_fixed_point: 536_870_912.0,
                smallest: 0.001_953_125,
                not_finite: 0x7f,
            },
        }
    }
}

/// F16 is a format of products, not of words in memory.
fn assert_words(format: Format) {
    assert!(format != Format::F16, "no words hold F16");
}

/// Whether a value is a number and not infinite.
#[cube]
pub fn is_finite(value: f32) -> bool {
    u32::reinterpret(value) & 0x7f80_0000u32 != 0x7f80_0000u32
}

/// Whether a value is not a number.
#[cube]
pub fn is_nan(value: f32) -> bool {
    u32::reinterpret(value) & 0x7fff_ffffu32 > 0x7f80_0000u32
}

/// The value of a code; exact.
#[cube]
fn decode(code: u32, #[comptime] format: Format) -> f32 {
    match comptime!(format) {
        Format::E4m3 | Format::E5m2 => decode_minifloat(code, format),
        Format::Bf16 => f32::reinterpret(code << 16u32),
        Format::F16 | Format::F32 => {
            comptime!(assert_words(format));
            f32::reinterpret(code)
        }
    }
}

/// The code nearest to a value, ties to even. The 8-bit formats saturate; NaN becomes NaN.
#[cube]
fn encode(value: f32, #[comptime] format: Format) -> u32 {
    let bits = u32::reinterpret(value);
    match comptime!(format) {
        Format::E4m3 | Format::E5m2 => {
            let dropped = comptime!(format.minifloat().dropped);
            let half = comptime!((1u32 << (format.minifloat().dropped - 1)) - 1);
            let fixed = fixed_point(f32::abs(value), format);
            let code = (fixed + half + ((fixed >> dropped) & 1u32)) >> dropped;
            select(is_nan(value), 0x7fu32.runtime(), signed(code, bits, format))
        }
        Format::Bf16 => {
            let code = (bits + 0x7fffu32 + ((bits >> 16u32) & 1u32)) >> 16u32;
            select(is_nan(value), (bits >> 16u32) | 0x40u32, code)
        }
        Format::F16 | Format::F32 => {
            comptime!(assert_words(format));
            bits
        }
    }
}

/// Rounds a finite value to one of its two neighbours, the upper one with probability equal to the fraction of the gap.
///
/// `random` is uniform over 16 bits; F32 needs no rounding. E5M2 stores compensations only and is never drawn.
#[cube]
fn encode_stochastic(value: f32, random: u32, #[comptime] format: Format) -> u32 {
    let bits = u32::reinterpret(value);
    match comptime!(format) {
        Format::E4m3 | Format::E5m2 => {
            let dropped = comptime!(format.minifloat().dropped);
            // The draw lies in the top 16 of the dropped bits; half a unit of it keeps the mean.
            let shift = comptime!(format.minifloat().dropped - 16);
            let centre = comptime!(1u32 << (format.minifloat().dropped - 17));
            let noise = (random << shift) | centre;
            let code = (fixed_point(f32::abs(value), format) + noise) >> dropped;
            signed(code, bits, format)
        }
        Format::Bf16 => {
            let code = ((bits & 0x7fff_ffffu32) + random) >> 16u32;
            u32::min(code, 0x7f7fu32.runtime()) | ((bits >> 16u32) & 0x8000u32)
        }
        Format::F16 | Format::F32 => {
            comptime!(assert_words(format));
            bits
        }
    }
}

/// What a value becomes when it is stored, rounded to nearest.
#[cube]
pub fn round(value: f32, #[comptime] format: Format) -> f32 {
    decode(encode(value, format), format)
}

#[cube]
fn decode_minifloat(code: u32, #[comptime] format: Format) -> f32 {
    let dropped = comptime!(format.minifloat().dropped);
    let rebase = comptime!(format.minifloat().rebase);
    let first_normal = comptime!(1u32 << (23 - format.minifloat().dropped));
    let smallest = comptime!(format.minifloat().smallest);
    let not_finite = comptime!(format.minifloat().not_finite);

    let magnitude = code & 0x7fu32;
    let subnormal = u32::reinterpret(f32::cast_from(magnitude) * smallest);
    let normal = (magnitude << dropped) + rebase;
    let finite = select(magnitude < first_normal, subnormal, normal);
    // Bits, not a constant of type F32: WGSL knows no constant NaN.
    let bits = select(magnitude < not_finite, finite, 0x7fc0_0000u32.runtime());
    f32::reinterpret(bits | ((code & 0x80u32) << 24u32))
}

/// The magnitude of a value in units of `2^-dropped` of a code.
///
/// Among the subnormals it is the mantissa of `magnitude * scale + 2^23`, which costs a multiply-add, is the same fused
/// or not, and needs no denormals.
#[cube]
fn fixed_point(magnitude: f32, #[comptime] format: Format) -> u32 {
    let rebase = comptime!(format.minifloat().rebase);
    let min_normal = comptime!(format.minifloat().min_normal);
    let scale = comptime!(format.minifloat().to_fixed_point);
    let subnormal = u32::reinterpret(magnitude * scale + 8_388_608.0f32) - 0x4b00_0000u32;
    let normal = u32::reinterpret(magnitude) - rebase;
    select(magnitude < min_normal, subnormal, normal)
}

/// Saturates the magnitude of an 8-bit code and gives it the sign of an F32 bit pattern.
#[cube]
fn signed(magnitude: u32, bits: u32, #[comptime] format: Format) -> u32 {
    let max_code = comptime!(format.minifloat().not_finite - 1);
    u32::min(magnitude, max_code.runtime()) | ((bits >> 24u32) & 0x80u32)
}

/// Decodes the quad that begins at word `at`.
#[cube]
pub fn load_quad(words: &[u32], at: usize, #[comptime] format: Format) -> Quad {
    let mut codes = Words::empty();
    #[unroll]
    for word in 0..comptime!(format.quad_words()) {
        codes.insert(word, words[at + word]);
    }
    decode_quad(codes, 0usize, format)
}

/// Stores a quad's codes at word `at`.
#[cube]
pub fn store_quad(words: &mut [u32], at: usize, codes: Words, #[comptime] format: Format) {
    #[unroll]
    for word in 0..comptime!(format.quad_words()) {
        words[at + word] = codes.extract(word);
    }
}

/// The quad whose codes begin at element `at` of some words.
#[cube]
pub fn decode_quad(words: Words, #[comptime] at: usize, #[comptime] format: Format) -> Quad {
    let bits = comptime!(format.bits() as u32);
    let mask = comptime!(u32::MAX >> (32 - format.bits() as u32));
    let codes = comptime!(32 / format.bits());
    let mut quad = Quad::empty();
    #[unroll]
    for i in 0..4usize {
        let word = words.extract(comptime!(at + i / codes));
        let shift = comptime!(bits * (i % codes) as u32);
        quad.insert(i, decode((word >> shift) & mask, format));
    }
    quad
}

/// A quad's codes, rounded to nearest, in the first words of the result.
#[cube]
pub fn encode_quad(values: Quad, #[comptime] format: Format) -> Words {
    let mut codes = Words::empty();
    #[unroll]
    for i in 0..4usize {
        codes.insert(i, encode(values.extract(i), format));
    }
    join_codes(codes, format)
}

/// The same, rounded stochastically with 16 bits of `random` a column.
#[cube]
pub fn encode_quad_stochastic(values: Quad, random: Vector<u32, Const<2>>, #[comptime] format: Format) -> Words {
    let mut codes = Words::empty();
    #[unroll]
    for i in 0..4usize {
        let shift = comptime!(16 * (i % 2) as u32);
        let draw = (random.extract(comptime!(i / 2)) >> shift) & 0xffffu32;
        codes.insert(i, encode_stochastic(values.extract(i), draw, format));
    }
    join_codes(codes, format)
}

#[cube]
fn join_codes(codes: Words, #[comptime] format: Format) -> Words {
    let bits = comptime!(format.bits() as u32);
    let codes_a_word = comptime!(32 / format.bits());
    let mut words = Words::new(0u32);
    #[unroll]
    for word in 0..comptime!(format.quad_words()) {
        let mut packed = 0u32.runtime();
        #[unroll]
        for i in 0..codes_a_word {
            let shift = comptime!(bits * i as u32);
            packed |= codes.extract(comptime!(word * codes_a_word + i)) << shift;
        }
        words.insert(word, packed);
    }
    words
}

/// [`super::random::hash`]
#[cube]
fn hash(value: u32) -> u32 {
    let mut x = value ^ (value >> 16u32);
    x *= 0x7feb_352du32;
    x ^= x >> 15u32;
    x *= 0x846c_a68bu32;
    x ^ (x >> 16u32)
}

/// [`super::random::row_key`] of row `row` of a segment, whose first label comes in two halves.
#[cube]
pub fn row_key(step_key: u32, first_label_low: u32, first_label_high: u32, row: u32) -> u32 {
    let low = first_label_low + row;
    let carry = select(low < first_label_low, 1u32.runtime(), 0u32.runtime());
    let high = first_label_high + carry;
    hash(hash(step_key ^ low) ^ (high * 0x85eb_ca6bu32))
}

/// [`super::random::pair_bits`]
#[cube]
pub fn pair_bits(row_key: u32, pair: u32) -> u32 {
    hash(row_key ^ (pair * 0x9e37_79b9u32))
}

/// The draws of a quad of columns.
#[cube]
pub fn quad_bits(row_key: u32, quad: u32) -> Vector<u32, Const<2>> {
    let mut bits = Vector::<u32, Const<2>>::empty();
    bits.insert(0usize, pair_bits(row_key, 2u32 * quad));
    bits.insert(1usize, pair_bits(row_key, 2u32 * quad + 1u32));
    bits
}
