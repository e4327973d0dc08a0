//! Dropout as [`burn::nn::Dropout`] has it, repeatable, and quick on the CPU.
//!
//! Burn draws one global sequence of random numbers for a device: a step cannot be repeated, and two threads that draw
//! at the same time share it out by chance. Inside [`seeded`], dropout takes counter-based bits instead: a function of
//! the key, of which dropout of the forward pass it is, and of the element. They are the same on every device: a loop
//! computes them on the CPU, integer operations of tensors on a GPU.

use std::cell::Cell;

use burn::{
    nn::Dropout,
    tensor::{DType, Device, Distribution, Int, Shape, Tensor, TensorData},
};
use elmo_kernels::random::{hash, pair_bits, row_key};

use crate::device::is_cuda;

thread_local! {
    /// Key of this thread's forward pass, and how many dropouts it has met.
    static PASS: Cell<Option<(u32, u64)>> = const { Cell::new(None) };
}

/// Runs a forward pass whose dropouts are a function of `key`.
pub(crate) fn seeded<R>(key: u64, forward: impl FnOnce() -> R) -> R {
    let key = hash(key as u32 ^ hash((key >> 32) as u32));
    let outer = PASS.replace(Some((key, 0)));
    let result = forward();
    PASS.set(outer);
    result
}

/// In training, zeroes each element with the layer's probability and scales up the others, so that the expectation
/// stays; otherwise returns `x`.
///
/// One tracked product, where `layer.forward(x)` has two.
pub(crate) fn dropout<const D: usize>(layer: &Dropout, x: Tensor<D>) -> Tensor<D> {
    let device = x.device();
    if layer.prob == 0.0 || !layer.training.is_enabled() || !device.is_autodiff() {
        return x;
    }
    let device = device.without_autodiff();
    let factors = match PASS.get() {
        Some((key, site)) => {
            PASS.set(Some((key, site + 1)));
            let rule = Rule::new(row_key(key, site), 1.0 - layer.prob);
            // On software Vulkan a step took seconds with the integer operations.
            match is_cuda(&device) {
                true => rule.on_device(x.shape(), (&device, x.dtype())),
                false => rule.on_host(x.shape(), (&device, x.dtype())),
            }
        }
        None => {
            let keep = 1.0 - layer.prob;
            // 32 bits whatever x is: in BF16 there are not enough numbers between 0 and 1 for the probability to come
            // out right.
            let options = (&device, DType::F32);
            let uniform = Tensor::<D>::random(x.shape(), Distribution::Default, options);
            Tensor::zeros_like(&x.clone().inner()).mask_fill(uniform.lower_elem(keep), 1.0 / keep)
        }
    };
    x * Tensor::from_inner(factors)
}

/// What an element is multiplied by: 0 or a scale, by 16 random bits an element. The scale belongs to the probability
/// that 16 bits can express.
struct Rule {
    key: u32,
    /// Bits below it keep the element.
    threshold: u32,
    scale: f32,
}

impl Rule {
    fn new(key: u32, keep: f64) -> Self {
        let threshold = ((keep * 65536.0).round() as u32).max(1);
        Self { key, threshold, scale: (65536.0 / threshold as f64) as f32 }
    }

    fn on_host<const D: usize>(&self, shape: Shape, options: (&Device, DType)) -> Tensor<D> {
        let length = shape.num_elements();
        let factor = |bits: u32| if bits < self.threshold { self.scale } else { 0.0 };
        let mut values = vec![0.0; length.next_multiple_of(2)];
        for (pair, values) in values.chunks_exact_mut(2).enumerate() {
            let bits = pair_bits(self.key, pair as u32);
            values[0] = factor(bits & 0xffff);
            values[1] = factor(bits >> 16);
        }
        values.truncate(length);
        Tensor::from_data(TensorData::new(values, shape), options)
    }

    /// The same factors, computed where they are needed.
    ///
    /// Integers are signed, so a shift to the right brings in copies of the sign, which a mask takes off again;
    /// products wrap around.
    fn on_device<const D: usize>(&self, shape: Shape, (device, dtype): (&Device, DType)) -> Tensor<D> {
        let length = shape.num_elements() as i64;
        let element = Tensor::<1, Int>::arange(0..length, (device, DType::I32));
        let pair = element.clone().bitwise_right_shift_scalar(1);
        // `pair_bits`, in tensors.
        let mut bits = (pair * signed(0x9e37_79b9)).bitwise_xor_scalar(signed(self.key));
        bits = bits.clone().bitwise_xor(shifted(bits, 16)) * signed(0x7feb_352d);
        bits = bits.clone().bitwise_xor(shifted(bits, 15)) * signed(0x846c_a68b);
        bits = bits.clone().bitwise_xor(shifted(bits, 16));
        let odd = element.bitwise_and_scalar(1).equal_elem(1);
        let low = bits.clone().bitwise_and_scalar(0xffff);
        let half = low.mask_where(odd, shifted(bits, 16));
        let kept = half.lower_elem(self.threshold as i32).reshape(shape.clone());
        Tensor::zeros(shape, (device, dtype)).mask_fill(kept, self.scale)
    }
}

/// The signed number with the same bits.
fn signed(bits: u32) -> i32 {
    bits as i32
}

/// A shift to the right that brings in zeros.
fn shifted(bits: Tensor<1, Int>, by: i32) -> Tensor<1, Int> {
    let mask = (u32::MAX >> by) as i32;
    bits.bitwise_right_shift_scalar(by).bitwise_and_scalar(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::{
        nn::DropoutConfig,
        tensor::{Device, FloatDType},
    };

    #[test]
    fn drops_the_given_share_and_keeps_the_expectation() {
        check();
        seeded(7, check);
    }

    fn check() {
        let device = Device::flex().autodiff();
        for dtype in [FloatDType::F32, FloatDType::BF16] {
            let x = Tensor::<1>::ones([100_000], &device).cast(dtype).detach().require_grad();
            let y = dropout(&DropoutConfig::new(0.25).init(), x.clone());
            assert_eq!(y.dtype(), x.dtype());
            let slope = x.grad(&y.clone().sum().backward()).unwrap();
            assert_eq!(slope.to_data(), y.clone().inner().to_data());
            let y: Vec<f32> = y.cast(FloatDType::F32).into_data().try_into_vec().unwrap();
            let kept = y.iter().filter(|&&y| y != 0.0).count() as f64;
            // Six standard deviations.
            assert!((kept / 1e5 - 0.75).abs() < 0.0083, "{kept} of 100000 kept");
            assert!(y.iter().all(|&y| y == 0.0 || (y - 4.0 / 3.0).abs() < 4e-3));
        }
    }

    #[test]
    fn a_key_repeats_and_every_dropout_of_a_pass_differs() {
        let x = Tensor::<1>::ones([1001], &Device::flex().autodiff());
        let layer = DropoutConfig::new(0.5).init();
        let pass = |key| seeded(key, || [(); 2].map(|()| dropout(&layer, x.clone()).inner().into_data()));
        let [first, second] = pass(1);
        assert_ne!(first, second);
        assert_eq!(pass(1), [first.clone(), second]);
        assert_ne!(pass(2)[0], first);
        assert_ne!(pass(1 | 1 << 32)[0], first);
    }

    #[test]
    fn tensors_draw_what_the_loop_draws() {
        let device = Device::flex();
        for (key, keep) in [(0, 0.5), (0xdead_beef, 0.9), (u32::MAX, 0.1), (7, 1e-9)] {
            for dtype in [DType::F32, DType::BF16] {
                let rule = Rule::new(key, keep);
                let shape = Shape::from([3, 5, 2047]);
                let host: Tensor<3> = rule.on_host(shape.clone(), (&device, dtype));
                let tensors: Tensor<3> = rule.on_device(shape, (&device, dtype));
                assert_eq!(host.into_data(), tensors.into_data(), "{key} {keep}");
            }
        }
    }

    #[test]
    fn does_nothing_outside_training() {
        let x = Tensor::<1>::ones([1000], &Device::flex());
        let y = dropout(&DropoutConfig::new(0.5).init(), x.clone());
        assert_eq!(y.to_data(), x.to_data());
    }
}
