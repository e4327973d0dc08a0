//! What may come in: broken numbers, 16 bits, any strides, tensors that somebody else holds.

use burn::tensor::{DType, FloatDType, Tensor};
use elmo_kernels::{Format, classifier_step};

use crate::{
    device::{device, multiplied, on_device, read, step_on, values, words_tensor, x_tensor},
    support::case,
};

#[test]
fn broken_input_is_counted_and_never_stored() {
    let (device, _guard) = device();
    for precision in Format::WEIGHTS {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for operands in Format::WEIGHTS {
                let mut case = case(precision, operands, (50, 20, 4), None);
                case.x[27] = broken;
                let (found, expected) = (on_device(&case, &device), case.exact(multiplied(&case)));
                assert_eq!(
                    found.non_finite,
                    expected.before_rounding.iter().filter(|value| !value.is_finite()).count() as u64,
                    "{precision:?} {broken} {operands:?}"
                );
                let new = case.segment.decode(&found.words);
                assert!(new.iter().all(|w| w.is_finite()));
            }
        }
        let mut case = case(precision, Format::Bf16, (50, 20, 4), None);
        case.x.fill(f32::NAN);
        let found = on_device(&case, &device);
        assert_eq!(found.non_finite, 50 * 20);
        assert_eq!(found.words, case.words);
    }
}

#[test]
fn x_may_have_16_bits_and_any_strides() {
    let (device, _guard) = device();
    let exact = case(Format::E4m3, Format::F32, (123, 45, 9), None);
    for (dtype, float) in [(DType::F16, FloatDType::F16), (DType::BF16, FloatDType::BF16)] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        let x = x_tensor(&exact, &device).cast(float);
        let mut rounded = exact.clone();
        // Widened on the host: a device may fuse the two casts, and leave out the rounding between them.
        rounded.x = values(x.clone().into_data().convert::<f32>());
        let found = read(step_on(&rounded, x, &device));
        assert_eq!(found, on_device(&rounded, &device));
    }
    let transposed = x_tensor(&exact, &device).transpose().mul_scalar(1.0);
    let found = read(step_on(&exact, transposed.transpose(), &device));
    assert_eq!(found, on_device(&exact, &device));
}

#[test]
fn what_somebody_else_holds_is_left_alone() {
    let (device, _guard) = device();
    let case = case(Format::E4m3, Format::Bf16, (252, 123, 7), None);
    let held = words_tensor(&case.words, &device);
    let gradient = Tensor::<2>::ones([7, 123], (&device, DType::F32));
    let output = classifier_step(
        case.segment,
        case.step,
        held.clone(),
        words_tensor(&case.compensation, &device),
        x_tensor(&case, &device),
        case.positives.clone(),
        gradient.clone(),
    );
    let expected = on_device(&case, &device);
    let found = read(output);
    assert_eq!(found.words, expected.words);
    for (found, expected) in found.gradient.iter().zip(&expected.gradient) {
        assert!((found - expected - 1.0).abs() < 1e-5);
    }
    assert_eq!(values::<u32>(held.into_data()), case.words);
    assert!(values::<f32>(gradient.into_data()).iter().all(|g| *g == 1.0));
}
