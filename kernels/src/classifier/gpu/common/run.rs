//! The update of one run of 16 neighbouring weights of a row, whose gradient lies in registers.

use cubecl::prelude::*;

use super::operands::Stored;
use crate::{
    gpu::ptx::{Words4, decode_e4m3, permute_bytes, unpack},
    numbers::{
        Format,
        device::{Quad, decode_quad, encode_quad, encode_quad_stochastic, is_finite, quad_bits, row_key},
    },
};

/// Columns of a run.
pub const RUN: usize = 16;

/// How weights are stored and updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpdateRule {
    pub format: Format,
    /// How they are decoded.
    pub weights: Stored,
    /// Whether there is a weight decay.
    pub decays: bool,
    /// How the head's compensation is stored, if there is one.
    pub compensation: Option<Format>,
}

/// What the update of every weight of a segment depends on.
#[derive(CubeType, CubeLaunch)]
pub struct UpdateArgs {
    /// The lower and the upper half of the number of the segment's first label.
    pub first_label_low: u32,
    pub first_label_high: u32,
    pub rounding_key: u32,
    /// In units of the gradient: divided by its scale.
    pub learning_rate: f32,
    /// Multiplied by the gradient's scale.
    pub weight_decay: f32,
    /// Rows that keep a compensation: the segment's first.
    pub head_rows: usize,
    /// The length of a row of compensations, in words where kernels bind words, else in parts of 16 bytes.
    pub compensation_size: usize,
    /// Features.
    pub dim: usize,
}

/// The key of the random bits of a row of the segment.
#[cube]
pub fn key_of_row(args: &UpdateArgs, row: u32) -> u32 {
    row_key(args.rounding_key, args.first_label_low, args.first_label_high, row)
}

/// Which run of a segment's weights.
#[derive(CubeType, Clone, Copy)]
pub struct RunPlace {
    /// The row of the segment.
    pub row: usize,
    /// The run's first column.
    pub column: usize,
    /// See [`key_of_row()`].
    pub key: u32,
}

/// The new codes of a run: `round(W - lr (G + wd W))`, `G` its gradient. Returns how many values were not finite: those
/// weights stay as they were.
///
/// # Shapes
/// - `gradient`: 16
/// - `old`, `new`: the parts of 16 bytes of a run
#[cube]
pub fn update_run(
    gradient: &Array<f32>,
    old: &Array<Words4>,
    new: &mut Array<Words4>,
    compensation: &mut [Words4],
    place: &RunPlace,
    args: &UpdateArgs,
    #[comptime] update: UpdateRule,
) -> u32 {
    let format = comptime!(update.format);
    let mut plain = match comptime!(format) {
        Format::E4m3 => {
            // The bits of all values, to see whether one is too large for the quick way.
            let mut all = 0u32.runtime();
            let mut codes = Words4::empty();
            let folded_key = place.key ^ (place.key >> 16u32);
            #[unroll]
            for q in 0..4usize {
                let w = decode_weights(old[0usize], q, format, comptime!(update.weights));
                let mut tops = Words4::empty();
                #[unroll]
                for k in 0..2usize {
                    let pair = (place.column / 2) as u32 + comptime!((2 * q + k) as u32);
                    let noise = pair_noise(folded_key, pair);
                    let mut bits = Vector::<u32, Const<2>>::empty();
                    #[unroll]
                    for e in 0..2usize {
                        let at = comptime!(2 * k + e);
                        let v = updated(gradient[comptime!(4 * q + at)], w.extract(at), args, update);
                        bits.insert(e, scaled_bits(v));
                        tops.insert(at, rounded_top(bits.extract(e), noise.extract(e)));
                    }
                    all |= bits.extract(0usize) | bits.extract(1usize);
                }
                let low = permute_bytes(tops.extract(0usize), tops.extract(1usize), 0x0073u32);
                let high = permute_bytes(tops.extract(2usize), tops.extract(3usize), 0x0073u32);
                codes.insert(q, permute_bytes(low, high, 0x5410u32));
            }
            new[0usize] = codes;
            all & 0x7f80_0000u32 < QUICK_LIMIT
        }
        _ => {
            // Zero as long as every value is finite, NaN for good after one that is not.
            let mut finite = 0.0f32.runtime();
            #[unroll]
            for q in 0..4usize {
                let first_word = comptime!(q * format.quad_words());
                let w = decode_quad(old[comptime!(first_word / 4)], comptime!(first_word % 4), format);
                let mut value = Quad::empty();
                #[unroll]
                for k in 0..4usize {
                    let v = updated(gradient[comptime!(4 * q + k)], w.extract(k), args, update);
                    finite = fma(v, 0.0f32, finite);
                    value.insert(k, v);
                }
                let random = quad_bits(place.key, (place.column / 4) as u32 + comptime!(q as u32));
                put(new, first_word, encode_quad_stochastic(value, random, format), format);
            }
            finite == 0.0f32
        }
    };
    if comptime!(update.compensation.is_some()) {
        plain = plain && place.row >= args.head_rows;
    }
    let mut refused = 0u32.runtime();
    if !plain {
        refused = update_carefully(gradient, old, new, compensation, place, args, update);
    }
    refused
}

/// The value of a weight before it is rounded.
#[cube]
fn updated(gradient: f32, w: f32, args: &UpdateArgs, #[comptime] update: UpdateRule) -> f32 {
    let gradient = if comptime!(update.decays) { fma(args.weight_decay, w, gradient) } else { gradient };
    fma(-args.learning_rate, gradient, w)
}

/// The same update where a value is not finite or large, or a compensation is kept.
#[cube]
fn update_carefully(
    gradient: &Array<f32>,
    old: &Array<Words4>,
    new: &mut Array<Words4>,
    compensation: &mut [Words4],
    place: &RunPlace,
    args: &UpdateArgs,
    #[comptime] update: UpdateRule,
) -> u32 {
    let format = comptime!(update.format);
    // Without a compensation any format does: nothing is loaded or stored.
    let lost_format = comptime!(update.compensation.unwrap_or(Format::E5m2));
    let lost_parts = comptime!(lost_format.quad_words());
    let part = place.column / RUN * lost_parts;
    let lost_at = place.row * args.compensation_size + part;
    let mut lost = Array::<Words4>::new(lost_parts);
    let mut is_head = false.runtime();
    #[unroll]
    for p in 0..lost_parts {
        lost[p] = Words4::new(0u32);
    }
    if comptime!(update.compensation.is_some()) {
        is_head = place.row < args.head_rows;
        if is_head {
            #[unroll]
            for p in 0..lost_parts {
                if part + p < args.compensation_size {
                    lost[p] = compensation[lost_at + p];
                }
            }
        }
    }

    let mut refused = 0u32.runtime();
    #[unroll]
    for q in 0..4usize {
        let first_word = comptime!(q * format.quad_words());
        let first_lost = comptime!(q * lost_format.quad_words());
        let w: Quad = decode_quad(old[comptime!(first_word / 4)], comptime!(first_word % 4), format);
        let c: Quad = decode_quad(lost[comptime!(first_lost / 4)], comptime!(first_lost % 4), lost_format);
        let mut value = Quad::new(0.0f32);
        #[unroll]
        for k in 0..4usize {
            // Columns past `dim` stay zero.
            if place.column + comptime!(4 * q + k) < args.dim {
                let v = updated(gradient[comptime!(4 * q + k)], w.extract(k), args, update);
                let v = v + c.extract(k);
                let finite = is_finite(v);
                // A weight lies on the grid, so rounding gives it back as it was.
                value.insert(k, select(finite, v, w.extract(k)));
                refused += select(finite, 0u32.runtime(), 1u32.runtime());
            }
        }
        let random = quad_bits(place.key, (place.column / 4) as u32 + comptime!(q as u32));
        let codes = encode_quad_stochastic(value, random, format);
        let rounded_away = value - decode_quad(codes, 0usize, format);
        put(new, first_word, codes, format);
        put(&mut lost, first_lost, encode_quad(rounded_away, lost_format), lost_format);
    }
    if is_head {
        #[unroll]
        for p in 0..lost_parts {
            if part + p < args.compensation_size {
                compensation[lost_at + p] = lost[p];
            }
        }
    }
    refused
}

/// Puts a quad's codes at word `at` of a run.
#[cube]
fn put(run: &mut Array<Words4>, #[comptime] at: usize, codes: Words4, #[comptime] format: Format) {
    #[unroll]
    for word in 0..comptime!(format.quad_words()) {
        let place = comptime!(at + word);
        let mut part = run[comptime!(place / 4)];
        part.insert(comptime!(place % 4), codes.extract(word));
        run[comptime!(place / 4)] = part;
    }
}

/// Four weights; [`decode_quad`], quicker where codes are no NaN.
#[cube]
fn decode_weights(
    words: Words4,
    #[comptime] at: usize,
    #[comptime] format: Format,
    #[comptime] weights: Stored,
) -> Quad {
    match comptime!(weights) {
        Stored::Codes { native } => {
            let pairs = decode_e4m3(words.extract(at), native);
            let low = unpack(pairs.extract(0usize), Format::F16);
            let high = unpack(pairs.extract(1usize), Format::F16);
            let mut quad = Quad::empty();
            quad.insert(0usize, low.extract(0usize));
            quad.insert(1usize, low.extract(1usize));
            quad.insert(2usize, high.extract(0usize));
            quad.insert(3usize, high.extract(1usize));
            quad
        }
        Stored::Half => decode_quad(words, at, format),
    }
}

/// The bits of values that may round to more than 448, or are not finite, begin here; those of 256 and more, to be
/// exact.
const QUICK_LIMIT: u32 = 0x0780_0000;

/// A value's bits, moved to where E4M3's lie, subnormals included, since CUDA keeps the denormals of F32: the sign on
/// top, then nothing, from bit 26 down the seven bits of a code, then the twenty that rounding drops.
#[cube]
fn scaled_bits(value: f32) -> u32 {
    u32::reinterpret(value * f32::reinterpret(0x0380_0000u32.runtime()))
}

/// The code in the top byte: [`encode_quad_stochastic`] for values below [`QUICK_LIMIT`], the same codes from fewer
/// instructions. Moved up by four, so that 16 random bits and half a unit of them lie below the code.
#[cube]
fn rounded_top(bits: u32, noise: u32) -> u32 {
    let sum = (bits << 4u32) + noise;
    (sum & 0x7f00_0000u32) | (bits & 0x8000_0000u32)
}

/// The random bits of two neighbouring columns, [`pair_bits`](crate::numbers::device::pair_bits), each in the upper two
/// of three bytes, above half a unit that keeps the mean.
///
/// `folded_key` is `key ^ (key >> 16)` of the row's key. The hash begins with `x ^= x >> 16` for `x = key ^ pair`,
/// which is linear: it can be applied to key and pair apart, and the pair's half is the same for all rows. Its last
/// step changes the lower 16 bits alone.
#[cube]
fn pair_noise(folded_key: u32, pair: u32) -> Vector<u32, Const<2>> {
    let pair = pair * 0x9e37_79b9u32;
    let mut x = folded_key ^ (pair ^ (pair >> 16u32));
    x *= 0x7feb_352du32;
    x ^= x >> 15u32;
    x *= 0x846c_a68bu32;
    let upper = permute_bytes(x, 0x80u32.runtime(), 0x5324u32);
    let lower = permute_bytes(x, 0x80u32.runtime(), 0x5104u32);
    let mut noise = Vector::<u32, Const<2>>::empty();
    noise.insert(0usize, (lower ^ upper) | 0x80u32);
    noise.insert(1usize, upper);
    noise
}
