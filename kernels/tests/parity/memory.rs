//! Weights are updated in place, and steps leave nothing behind.

use burn::tensor::{DType, Tensor};
use elmo_kernels::{Format, Head, Step, classifier_step};

use crate::{
    device::{device, values, words_tensor, x_tensor},
    support::case,
};

#[test]
fn weights_are_updated_where_they_lie() {
    let (device, _guard) = device();
    // 16 MiB of weights, beside which all else is small.
    let case = case(Format::F32, Format::F32, (1024, 4096, 1), None);
    let bytes = 4 * case.words.len() as u64;
    let mut words = words_tensor(&case.words, &device);
    let mut compensation = words_tensor(&[0], &device);
    let x = x_tensor(&case, &device);
    let reserved = || {
        device.sync().expect("the device works");
        let usage = device.memory_pool_usage();
        usage.expect("a device with a pool").bytes_reserved
    };
    let before = reserved();
    for _ in 0..3 {
        let gradient = Tensor::zeros(x.dims(), (&device, DType::F32));
        let output =
            classifier_step(case.segment, case.step, words, compensation, x.clone(), case.positives.clone(), gradient);
        (words, compensation) = (output.words, output.compensation);
    }
    let grown = reserved() - before;
    assert!(grown < bytes / 2, "{grown} bytes more");
    assert_ne!(values::<u32>(words.into_data()), case.words);
}

#[test]
fn a_hundred_steps_take_no_memory() {
    let (device, _guard) = device();
    let head = Head { labels: 1100, compensation: Format::Bf16 };
    let case = case(Format::E4m3, Format::E4m3, (507, 123, 33), Some(head));
    let mut words = words_tensor(&case.words, &device);
    let mut compensation = words_tensor(&case.compensation, &device);
    let x = x_tensor(&case, &device);
    let mut in_use = Vec::new();
    for step in 0..100 {
        let output = classifier_step(
            case.segment,
            Step { rounding_key: Step::rounding_key(1, step), ..case.step },
            words,
            compensation,
            x.clone(),
            case.positives.clone(),
            Tensor::zeros(x.dims(), (&device, DType::F32)),
        );
        (words, compensation) = (output.words, output.compensation);
        if [4, 99].contains(&step) {
            let report: Vec<f32> = values(output.report.into_data());
            assert!(report[0].is_finite() && report[1] == 0.0);
            drop(output.input_gradient);
            device.sync().expect("the device works");
            let usage = device.memory_pool_usage().expect("a device with a pool");
            in_use.push(usage.bytes_in_use);
        }
    }
    // The runtime caches the arguments of a few hundred launches, about 100 bytes each. Anything that a step leaves
    // behind would be a hundred times that.
    assert!(in_use[1] < in_use[0] + 4 * case.words.len() as u64);
}
