//! Clipping of gradients by the norm of all of them together.

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{DType, Tensor},
};

/// Keeps the quotient finite where all gradients are 0, as in PyTorch.
const EPSILON: f64 = 1e-6;

/// Scales the gradients of `module` so that the norm of all of them together is at most `norm`: PyTorch's
/// `clip_grad_norm_`. Nothing waits for the device.
pub fn clip<M: Module>(gradients: GradientsParams, module: &M, norm: f64) -> GradientsParams {
    let mut squares = Squares { gradients: &gradients, sum: None };
    module.visit(&mut squares);
    let Some(sum) = squares.sum else {
        return gradients;
    };
    let factor = (sum.sqrt() + EPSILON).recip().mul_scalar(norm).clamp_max(1.0);
    let mut scaled = Scaled { gradients, factor };
    module.visit(&mut scaled);
    scaled.gradients
}

/// Adds up squares, in F32.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let wide = gradient.cast(DType::F32);
            let square = (wide.clone() * wide).sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

/// Multiplies by a factor, in F32.
struct Scaled {
    gradients: GradientsParams,
    factor: Tensor<1>,
}

impl Scaled {
    fn scale<const D: usize>(&mut self, id: ParamId) {
        if let Some(gradient) = self.gradients.remove::<D>(id) {
            let dtype = gradient.dtype();
            let factor = self.factor.clone().reshape([1; D]);
            self.gradients.register(id, (gradient.cast(DType::F32) * factor).cast(dtype));
        }
    }
}

impl ModuleVisitor for Scaled {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.scale::<D>(param.id);
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::{Linear, LinearConfig},
        tensor::Device,
    };

    use super::*;

    fn clipped(norm: f64, values: [f32; 3]) -> Vec<f32> {
        let device = Device::flex();
        let linear: Linear = LinearConfig::new(2, 1).init(&device);
        let bias = linear.bias.as_ref().unwrap().id;
        let mut gradients = GradientsParams::new();
        gradients.register(linear.weight.id, Tensor::<2>::from_data([[values[0]], [values[1]]], &device));
        gradients.register(bias, Tensor::<1>::from_data([values[2]], &device));
        let mut gradients = clip(gradients, &linear, norm);
        let weight = gradients.remove::<2>(linear.weight.id).unwrap().into_data();
        let bias = gradients.remove::<1>(bias).unwrap().into_data();
        weight.iter().chain(bias.iter()).collect()
    }

    #[test]
    fn all_gradients_have_one_norm() {
        let close = |found: Vec<f32>, expected: [f32; 3]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
        };
        // The norm is 3.
        close(clipped(1.0, [1.0, -2.0, 2.0]), [1.0 / 3.0, -2.0 / 3.0, 2.0 / 3.0]);
        assert_eq!(clipped(3.5, [1.0, -2.0, 2.0]), [1.0, -2.0, 2.0], "small ones stay as they are");
        assert_eq!(clipped(1.0, [0.0; 3]), [0.0; 3]);
    }
}
