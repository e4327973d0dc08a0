//! Number formats of 8 and 16 bits: decoding, rounding to nearest, exact stochastic rounding.
//!
//! E4M3 is the "FN" variant of OCP 8-bit floating point: 1 sign, 4 exponent and 3 mantissa bits, bias 7, largest
//! value 448, smallest normal 2^-6, smallest subnormal 2^-9, no infinity, NaN = `0x7f` and `0xff`. E5M2 is IEEE-like:
//! bias 15, largest finite value 57344, smallest subnormal 2^-16.
//!
//! # Why stochastic rounding must cover the subnormals
//! Xavier initialisation of a classifier with 670,000 labels stays below 0.003, and the E4M3 grid near zero has a step
//! of 2^-9 = 0.00195: nearly all weights live among the subnormals. A rounding that adds noise below the third mantissa
//! bit of a *normal* number and then rounds to nearest, as the reference implementation does, drops every update
//! smaller than half a step there. The rule used here is unbiased on the whole grid: `E[round(w)] = w`.
//!
//! # How it is written, and why so
//! Both formats are prefixes of a shifted F32 bit pattern, so `(bits + noise) >> shift` rounds to the upper neighbour
//! with probability equal to the fraction of the gap. Among the subnormals the same sum is done in fixed point, through
//! the mantissa of `|w| 2^29 + 2^23`. That costs one multiply-add and never touches an F32 denormal, which some GPUs
//! flush to zero and most CPUs handle a hundred times slower than other numbers. Devices run the same formula on the
//! same random bits, hence the same codes everywhere.

/// The code of the largest finite E4M3 value, 448.
pub const E4M3_MAX_CODE: u32 = 0x7e;
/// 2^-6, where E4M3's normal numbers begin.
const E4M3_MIN_NORMAL: f32 = 0.015_625;
/// F32 exponents are rebased by 127 - 7.
const E4M3_REBASE: u32 = 120 << 23;
/// Mantissa bits that E4M3 drops.
const E4M3_DROPPED: u32 = 20;

/// Places a 16-bit draw in the 20 bits that E4M3 drops.
///
/// The half unit centres the sixteen-bit grid: the probability of rounding up errs by at most 2^-17 and without bias,
/// and a value that lies on the grid stays where it is.
#[inline(always)]
pub const fn e4m3_noise(random: u16) -> u32 {
    (random as u32) << 4 | 8
}

/// The magnitude of `value` in fixed point, in units of 2^-20 of an E4M3 code.
#[inline(always)]
fn e4m3_fixed_point(magnitude: f32) -> u32 {
    let subnormal = (magnitude * 536_870_912.0 + 8_388_608.0).to_bits().wrapping_sub(0x4b00_0000);
    let normal = magnitude.to_bits().wrapping_sub(E4M3_REBASE);
    if magnitude < E4M3_MIN_NORMAL { subnormal } else { normal }
}

/// Rounds to one of the two E4M3 neighbours, the upper one with probability equal to the fraction of the gap.
///
/// `random` is uniform over 16 bits. Magnitudes above 448 saturate. The caller keeps NaN and infinity away: they would
/// saturate too, and hide a broken step.
#[inline(always)]
pub fn f32_to_e4m3_stochastic(value: f32, random: u16) -> u8 {
    let magnitude = value.abs();
    let code = (e4m3_fixed_point(magnitude) + e4m3_noise(random)) >> E4M3_DROPPED;
    (code.min(E4M3_MAX_CODE) | (value.to_bits() >> 24) & 0x80) as u8
}

/// Rounds to the nearest E4M3 value, ties to even, saturating at 448; NaN becomes NaN.
#[inline(always)]
pub fn f32_to_e4m3(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let fixed = e4m3_fixed_point(value.abs());
    let to_even = 0x7_ffff + ((fixed >> E4M3_DROPPED) & 1);
    let code = (fixed + to_even) >> E4M3_DROPPED;
    (code.min(E4M3_MAX_CODE) | (value.to_bits() >> 24) & 0x80) as u8
}

/// The value of an E4M3 code; exact.
#[inline(always)]
pub const fn e4m3_to_f32(code: u8) -> f32 {
    let magnitude = (code & 0x7f) as u32;
    let sign = ((code & 0x80) as u32) << 24;
    let value = if magnitude == 0x7f {
        f32::NAN
    } else if magnitude < 8 {
        magnitude as f32 * (1.0 / 512.0)
    } else {
        f32::from_bits((magnitude << E4M3_DROPPED) + E4M3_REBASE)
    };
    f32::from_bits(value.to_bits() | sign)
}

/// The value of an E5M2 code; exact. E5M2 is the upper half of an F16.
#[inline(always)]
pub fn e5m2_to_f32(code: u8) -> f32 {
    half::f16::from_bits((code as u16) << 8).to_f32()
}

/// Rounds to the nearest E5M2 value, ties to even, saturating at 57344; NaN becomes NaN.
#[inline(always)]
pub fn f32_to_e5m2(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    // Fixed point in units of 2^-21 of a code, as for E4M3: bias 15, two mantissa bits, smallest normal 2^-14.
    let magnitude = value.abs();
    let fixed = if magnitude < 6.103_515_6e-5 {
        (magnitude * 137_438_953_472.0 + 8_388_608.0).to_bits() - 0x4b00_0000
    } else {
        magnitude.to_bits() - (112 << 23)
    };
    let to_even = 0xf_ffff + ((fixed >> 21) & 1);
    let code = ((fixed + to_even) >> 21).min(0x7b);
    (code | (value.to_bits() >> 24) & 0x80) as u8
}

/// The value of a BF16 bit pattern; exact.
#[inline(always)]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds to the nearest BF16 value, ties to even.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    half::bf16::from_f32(value).to_bits()
}

/// Rounds to one of the two BF16 neighbours, the upper one with probability equal to the fraction of the gap.
///
/// A finite value never becomes infinite. The caller keeps NaN and infinity away.
#[inline(always)]
pub fn f32_to_bf16_stochastic(value: f32, random: u16) -> u16 {
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let rounded = ((magnitude + random as u32) >> 16).min(0x7f7f);
    (rounded | (value.to_bits() >> 16) & 0x8000) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finite_e4m3() -> impl Iterator<Item = u8> {
        (0..=255u8).filter(|code| code & 0x7f != 0x7f)
    }

    #[test]
    fn e4m3_grid_points_survive_every_rounding() {
        for code in finite_e4m3() {
            let value = e4m3_to_f32(code);
            assert_eq!(f32_to_e4m3(value), code);
            for random in [0, 1, 0x7fff, 0x8000, 0xffff] {
                assert_eq!(f32_to_e4m3_stochastic(value, random), code, "{value}");
            }
        }
    }

    #[test]
    fn e4m3_ties_go_to_the_even_code() {
        for code in 0..E4M3_MAX_CODE as u8 {
            let middle = (e4m3_to_f32(code) + e4m3_to_f32(code + 1)) / 2.0;
            assert_eq!(f32_to_e4m3(middle), code + (code & 1));
            assert_eq!(f32_to_e4m3(-middle), (code + (code & 1)) | 0x80);
        }
        assert_eq!(f32_to_e4m3(1e9), 0x7e);
        assert_eq!(f32_to_e4m3(f32::NEG_INFINITY), 0xfe);
        assert_eq!(f32_to_e4m3(f32::NAN), 0x7f);
    }

    #[test]
    fn e5m2_grid_points_and_ties() {
        for code in (0..=255u8).filter(|code| code & 0x7c != 0x7c) {
            assert_eq!(f32_to_e5m2(e5m2_to_f32(code)), code);
            if code & 0x7f < 0x7b {
                let middle = (e5m2_to_f32(code) + e5m2_to_f32(code + 1)) / 2.0;
                assert_eq!(f32_to_e5m2(middle), code + (code & 1), "{middle:e}");
            }
        }
        assert_eq!(f32_to_e5m2(f32::INFINITY), 0x7b);
    }

    /// With every one of the 65,536 draws used once, the mean of the rounded values is an exact expectation.
    #[test]
    fn stochastic_rounding_is_unbiased_over_subnormals_normals_and_bf16() {
        let values = [1e-5, 5e-4, 1.3e-3, 3e-3, 0.0155, 0.0157, 0.11, 0.3, 1.7, 17.3, 300.1, 447.9];
        for value in values.into_iter().flat_map(|v| [v, -v]) {
            let e4m3 = |random| e4m3_to_f32(f32_to_e4m3_stochastic(value, random)) as f64;
            let bf16 = |random| bf16_to_f32(f32_to_bf16_stochastic(value, random)) as f64;
            let gap = |codes: [f64; 2]| (codes[1] - codes[0]).abs();
            let mean = |f: &dyn Fn(u16) -> f64| (0..=u16::MAX).map(f).sum::<f64>() / 65536.0;
            // The draws resolve 2^-16 of the gap between the neighbours, centred: 2^-17 of error at most.
            let slack = gap([e4m3(0), e4m3(u16::MAX)]) / 131_072.0 + 1e-12;
            assert!((mean(&e4m3) - value as f64).abs() <= slack, "{value}");
            // BF16 drops exactly the 16 bits that are drawn.
            assert!((mean(&bf16) - value as f64).abs() <= 1e-12, "{value}");
        }
    }

    #[test]
    fn stochastic_rounding_saturates() {
        for random in [0, 0xffff] {
            assert_eq!(f32_to_e4m3_stochastic(449.0, random), 0x7e);
            assert_eq!(f32_to_e4m3_stochastic(-1e30, random), 0xfe);
            assert!(bf16_to_f32(f32_to_bf16_stochastic(f32::MAX, random)).is_finite());
        }
    }
}
