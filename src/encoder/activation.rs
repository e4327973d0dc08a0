//! The non-linearity of the feed-forward blocks.
//!
//! GELU touches the widest tensors of the encoder. On the CPU the error function of the backend is
//! one scalar library call an element, forward and again backward, and took a third of a training
//! step; and there is no way to hand the backward pass what the forward pass knew. So it is written
//! here from operations that vectorize, and the derivative, which shares the exponential, is
//! computed along with the value. On a GPU all of it fuses into one kernel.

use burn::tensor::{FloatDType, Tensor, activation};
use serde::{Deserialize, Serialize};

use super::accumulation_dtype;

/// Non-linearity of the feed-forward blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `x Phi(x)` with the normal distribution function `Phi`; not the tanh approximation.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// The names that are read, as a message lists them.
    pub(super) const READ: &str = "one of `gelu`, `gelu_python` (the same), `relu`";

    /// Applied to every element.
    pub(super) fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::Relu => activation::relu(x),
        }
    }
}

/// `x Phi(x)`, to within 1e-6 for every finite x.
fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !x.device().is_autodiff() {
        return GeluParts::new(x).value();
    }
    let constant = Tensor::from_inner(x.clone().inner());
    let parts = GeluParts::new(x.clone().inner());
    let slope = Tensor::from_inner(parts.slope());
    let value = Tensor::from_inner(parts.value());
    // x - x is exactly zero and has the gradient of x: this is `value`, with the gradient `slope`.
    value + (x - constant) * slope
}

/// What the value of GELU and its derivative share; in 32 bits or more, as the polynomial cancels.
struct GeluParts<const D: usize> {
    x: Tensor<D>,
    /// `exp(-x^2 / 2)`
    exp: Tensor<D>,
    /// `Phi(-|x|)`: the tail, rather than `Phi(x)`, keeps its digits on both sides.
    tail: Tensor<D>,
    /// The type of the input and of the results.
    dtype: FloatDType,
}

impl<const D: usize> GeluParts<D> {
    /// The tail by formula 7.1.26 of Abramowitz and Stegun; its error is below 7.5e-8.
    fn new(x: Tensor<D>) -> Self {
        const P: f64 = 0.3275911 * std::f64::consts::FRAC_1_SQRT_2;
        // The published coefficients, halved: Phi(-a) = erfc(a / sqrt(2)) / 2.
        const A: [f64; 5] =
            [0.254829592 / 2.0, -0.284496736 / 2.0, 1.421413741 / 2.0, -1.453152027 / 2.0, 1.061405429 / 2.0];
        let dtype = x.dtype().into();
        let x = x.clone().cast(accumulation_dtype(x.dtype()));
        let exp = (x.clone() * x.clone() * -0.5).exp();
        let t = (x.clone().abs() * P + 1.0).recip();
        let polynomial = A[..4].iter().rev().fold(t.clone() * A[4], |sum, &a| (sum + a) * t.clone());
        let tail = polynomial * exp.clone();
        Self { x, exp, tail, dtype }
    }

    /// `x Phi(x) = max(x, 0) - |x| Phi(-|x|)`
    fn value(self) -> Tensor<D> {
        let tail = self.x.clone().abs() * self.tail;
        (activation::relu(self.x) - tail).cast(self.dtype)
    }

    /// `Phi(x) + x phi(x)`, `phi` being the normal density.
    fn slope(&self) -> Tensor<D> {
        const DENSITY: f64 = 0.398_942_280_401_432_7; // 1 / sqrt(2 pi)
        let phi = (self.tail.clone().neg() + 0.5) * self.x.clone().sign() + 0.5;
        (phi + self.x.clone() * self.exp.clone() * DENSITY).cast(self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    /// -12 to 12 in steps of 1/64.
    fn points(device: &Device) -> Tensor<1> {
        Tensor::<1, burn::tensor::Int>::arange(-768..769, device).float() / 64.0
    }

    #[test]
    fn gelu_and_its_gradient_agree_with_the_backend() {
        let device = Device::flex().autodiff();
        let grads = |f: fn(Tensor<1>) -> Tensor<1>| {
            let x = points(&device).require_grad();
            let y = f(x.clone());
            (y.to_data(), x.grad(&y.sum().backward()).unwrap().to_data())
        };
        let (ours, our_slope) = grads(gelu);
        let (theirs, their_slope) = grads(activation::gelu);
        let tolerance = Tolerance::<f32>::absolute(1e-6);
        ours.assert_approx_eq(&theirs, tolerance);
        our_slope.assert_approx_eq(&their_slope, tolerance);
    }

    #[test]
    fn gelu_without_gradients_is_the_same() {
        let device = Device::flex();
        let tracked = gelu(points(&device.clone().autodiff()));
        assert_eq!(gelu(points(&device)).to_data(), tracked.to_data());
    }

    #[test]
    fn gelu_keeps_the_type_of_its_input() {
        let x = points(&Device::flex()).cast(FloatDType::BF16);
        let y = gelu(x.clone());
        assert_eq!(y.dtype(), x.dtype());
        let exact = gelu(x.cast(FloatDType::F32)).cast(FloatDType::BF16);
        assert_eq!(y.to_data(), exact.to_data());
    }
}
