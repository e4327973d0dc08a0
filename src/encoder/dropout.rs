//! Dropout as [`burn::nn::Dropout`] has it, quick and repeatable on the CPU.
//!
//! Burn draws one global sequence of random numbers. On the CPU that is slow (5 ns an element), and two threads that
//! draw at the same time share it out by chance. Inside [`seeded`], CPU dropout takes counter-based bits instead: a
//! function of the key, of which dropout of the forward pass it is, and of the element.

use std::cell::Cell;

use burn::{
    nn::Dropout,
    tensor::{DType, Distribution, Tensor, TensorData},
};
use elmo_kernels::random::{hash, pair_bits, row_key};

use crate::device::is_cpu;

thread_local! {
    /// Key of this thread's forward pass, and how many dropouts it has met.
    static PASS: Cell<Option<(u32, u64)>> = const { Cell::new(None) };
}

/// Runs a forward pass whose dropouts on the CPU are a function of `key`.
pub(crate) fn seeded<R>(key: u64, forward: impl FnOnce() -> R) -> R {
    let key = hash(key as u32 ^ hash((key >> 32) as u32));
    let outer = PASS.replace(Some((key, 0)));
    let result = forward();
    PASS.set(outer);
    result
}

/// In training, zeroes each element with the layer's probability and scales up the others, so that
/// the expectation stays; otherwise returns `x`.
///
/// One tracked product, where `layer.forward(x)` has two.
pub(crate) fn dropout<const D: usize>(layer: &Dropout, x: Tensor<D>) -> Tensor<D> {
    let device = x.device();
    if layer.prob == 0.0 || !layer.training.is_enabled() || !device.is_autodiff() {
        return x;
    }
    let keep = 1.0 - layer.prob;
    let device = device.without_autodiff();
    let factors = match PASS.get() {
        Some((key, site)) if is_cpu(&device) => {
            PASS.set(Some((key, site + 1)));
            let shape = x.shape();
            let values = factors(row_key(key, site), keep, shape.num_elements());
            Tensor::from_data(TensorData::new(values, shape), (&device, x.dtype()))
        }
        _ => {
            // 32 bits whatever x is: in BF16 there are not enough numbers between 0 and 1 for the
            // probability to come out right.
            let options = (&device, DType::F32);
            let uniform = Tensor::<D>::random(x.shape(), Distribution::Default, options);
            Tensor::zeros_like(&x.clone().inner()).mask_fill(uniform.lower_elem(keep), 1.0 / keep)
        }
    };
    x * Tensor::from_inner(factors)
}

/// 0 or the scale, by 16 random bits an element; the scale belongs to the probability that 16 bits can express.
fn factors(key: u32, keep: f64, length: usize) -> Vec<f32> {
    let threshold = ((keep * 65536.0).round() as u32).max(1);
    let scale = (65536.0 / threshold as f64) as f32;
    let factor = |bits: u32| if bits < threshold { scale } else { 0.0 };
    let mut values = vec![0.0; length.next_multiple_of(2)];
    for (pair, values) in values.chunks_exact_mut(2).enumerate() {
        let bits = pair_bits(key, pair as u32);
        values[0] = factor(bits & 0xffff);
        values[1] = factor(bits >> 16);
    }
    values.truncate(length);
    values
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
            let x = Tensor::<1>::ones([100_000], &device)
                .cast(dtype)
                .detach()
                .require_grad();
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
    fn does_nothing_outside_training() {
        let x = Tensor::<1>::ones([1000], &Device::flex());
        let y = dropout(&DropoutConfig::new(0.5).init(), x.clone());
        assert_eq!(y.to_data(), x.to_data());
    }
}
