//! The non-linearities, and an exponential that vectorises.

use super::super::problem::Activation;

/// `e^x` to about two units in the last place; 0 below -87 and the value at 88 above it.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that the subtraction is exact to the last bit.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Added to a small number it leaves the nearest whole one in the lower bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let r = clamped - whole * LN_2_HIGH - whole * LN_2_LOW;
    // Cephes' polynomial for |r| <= ln(2) / 2.
    let p = 1.987_569_1e-4 * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits(
        ((shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127) as u32) << 23,
    );
    if x < -87.0 { 0.0 } else { p * power }
}

/// `Phi(-|x|)` by formula 7.1.26 of Abramowitz and Stegun, and `exp(-x^2 / 2)`; the error of the first is below 7.5e-8.
/// The tail, rather than `Phi(x)`, keeps its digits on both sides.
#[inline(always)]
fn normal_tail(x: f32) -> (f32, f32) {
    const P: f32 = 0.231_641_89; // 0.3275911 / sqrt(2)
    // The published coefficients, halved: Phi(-a) = erfc(a / sqrt(2)) / 2.
    const A: [f32; 5] = [0.127_414_8, -0.142_248_37, 0.710_706_9, -0.726_576_03, 0.530_702_7];
    let density = exp(x * x * -0.5);
    let t = 1.0 / (x.abs() * P + 1.0);
    let polynomial = ((((A[4] * t + A[3]) * t + A[2]) * t + A[1]) * t + A[0]) * t;
    (polynomial * density, density)
}

/// `tanh(sqrt(2 / pi) (x + 0.044715 x^3))`, and the slope of what is in the brackets.
#[inline(always)]
fn tanh_of_cubic(x: f32) -> (f32, f32) {
    const SCALE: f32 = 0.797_884_6; // sqrt(2 / pi)
    const CUBIC: f32 = 0.044_715;
    let inner = SCALE * (x + CUBIC * x * x * x);
    let power = exp(inner.abs() * -2.0);
    let tanh = (1.0 - power) / (1.0 + power);
    (tanh.copysign(inner), SCALE * (1.0 + 3.0 * CUBIC * x * x))
}

impl Activation {
    /// The value.
    #[inline(always)]
    pub(super) fn value(self, x: f32) -> f32 {
        match self {
            // x Phi(x) = max(x, 0) - |x| Phi(-|x|)
            Self::Gelu => x.max(0.0) - x.abs() * normal_tail(x).0,
            Self::GeluTanh => 0.5 * x * (1.0 + tanh_of_cubic(x).0),
            Self::Relu => x.max(0.0),
        }
    }

    /// The derivative.
    #[inline(always)]
    pub(super) fn slope(self, x: f32) -> f32 {
        match self {
            // Phi(x) + x phi(x), phi being the normal density.
            Self::Gelu => {
                const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
                let (tail, density) = normal_tail(x);
                0.5 + (0.5 - tail).copysign(x) + x * density * DENSITY
            }
            Self::GeluTanh => {
                let (tanh, slope) = tanh_of_cubic(x);
                0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope
            }
            Self::Relu => f32::from(x > 0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_the_last_bits() {
        assert_eq!((exp(0.0), exp(-1e4), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        for at in -8600..8700 {
            let x = at as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() < 3e-7 * exact, "{x}");
        }
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn slopes_are_those_of_the_values() {
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            for at in -1200..1200 {
                let x = (at as f32 + 0.5) / 100.0;
                let step = 1e-2f32;
                let difference = f64::from(activation.value(x + step)) - f64::from(activation.value(x - step));
                let slope = difference / (2.0 * f64::from(step));
                assert!(
                    (f64::from(activation.slope(x)) - slope).abs()
                        < 2e-4 + f64::from(x.abs() < 0.02 && activation == Activation::Relu),
                    "{activation:?} {x}"
                );
            }
        }
        // x Phi(x) at 1, and its slope Phi(1) + phi(1).
        assert!((Activation::Gelu.value(1.0) - 0.841_344_8).abs() < 1e-6);
        assert!((Activation::Gelu.slope(1.0) - 1.083_315_5).abs() < 1e-6);
        assert!((Activation::GeluTanh.value(1.0) - 0.841_192).abs() < 1e-6);
    }
}
