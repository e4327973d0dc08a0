//! The non-linearities on a device.

use cubecl::prelude::*;

use super::super::problem::Activation;

/// `Phi(-|x|)` by formula 7.1.26 of Abramowitz and Stegun, and `exp(-x^2 / 2)`.
#[cube]
fn normal_tail(x: f32) -> (f32, f32) {
    let density = (x * x * -0.5f32).exp();
    // The coefficients are halved: Phi(-a) = erfc(a / sqrt(2)) / 2; the first factor is 0.3275911 / sqrt(2).
    let t = 1.0f32 / (x.abs() * 0.231_641_89f32 + 1.0f32);
    let inner = (0.530_702_7f32 * t - 0.726_576_03f32) * t + 0.710_706_9f32;
    let polynomial = ((inner * t - 0.142_248_37f32) * t + 0.127_414_8f32) * t;
    (polynomial * density, density)
}

/// `tanh(sqrt(2 / pi) (x + 0.044715 x^3))`, and the slope of what is in the brackets.
#[cube]
fn tanh_of_cubic(x: f32) -> (f32, f32) {
    let inner = 0.797_884_6f32 * (x + 0.044_715f32 * x * x * x);
    let power = (inner.abs() * -2.0f32).exp();
    let tanh = (1.0f32 - power) / (1.0f32 + power);
    let signed = select(inner < 0.0f32, -tanh, tanh);
    (signed, 0.797_884_6f32 * (1.0f32 + 0.134_145f32 * x * x))
}

/// The activation's value and its derivative, which have most of their arithmetic in common.
#[cube]
pub fn value_and_slope<N: Size>(
    x: Vector<f32, N>,
    #[comptime] activation: Activation,
) -> (Vector<f32, N>, Vector<f32, N>) {
    let mut values = Vector::<f32, N>::empty();
    let mut slopes = Vector::<f32, N>::empty();
    #[unroll]
    for number in 0..N::value() {
        let (value, slope) = of_number(x.extract(number), activation);
        values.insert(number, value);
        slopes.insert(number, slope);
    }
    (values, slopes)
}

#[cube]
fn of_number(x: f32, #[comptime] activation: Activation) -> (f32, f32) {
    match comptime!(activation) {
        Activation::Gelu => {
            let (tail, density) = normal_tail(x);
            let value = f32::max(x, 0.0f32) - x.abs() * tail;
            // Phi(x) + x phi(x); the last factor is 1 / sqrt(2 pi).
            (value, select(x < 0.0f32, tail, 1.0f32 - tail) + x * density * 0.398_942_3f32)
        }
        Activation::GeluTanh => {
            let (tanh, slope) = tanh_of_cubic(x);
            (0.5f32 * x * (1.0f32 + tanh), 0.5f32 * (1.0f32 + tanh) + 0.5f32 * x * (1.0f32 - tanh * tanh) * slope)
        }
        Activation::Relu => (f32::max(x, 0.0f32), select(x > 0.0f32, 1.0f32, 0.0f32)),
    }
}
