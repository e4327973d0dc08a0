//! The device that is tested, and cases on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use elmo_kernels::{Format, KernelPath, Search, Segment, StepOutput, classifier_search, classifier_step, cpu};

use crate::support::{Case, Outcome};

/// What the device is called.
fn device_name() -> String {
    let built = [
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(feature = "wgpu")),
    ];
    let default = built.iter().find(|(_, built)| *built);
    std::env::var("ELMO_TEST_DEVICE").unwrap_or_else(|_| default.expect("the build has a device").0.to_owned())
}

/// The device, for one test at a time: they watch its memory.
pub fn device() -> (Device, MutexGuard<'static, ()>) {
    static IN_USE: Mutex<()> = Mutex::new(());
    let guard = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let device = match device_name().as_str() {
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0),
        #[cfg(feature = "metal")]
        "metal" => Device::metal(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        other => panic!("this build has no device {other:?}"),
    };
    (device, guard)
}

/// Words on the device.
pub fn words_tensor(words: &[u32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(words.to_vec(), [words.len()]), (device, DType::U32))
}

/// `X` on the device, in F32.
pub fn x_tensor(case: &Case, device: &Device) -> Tensor<2> {
    let dim = case.segment.dim;
    Tensor::from_data(TensorData::new(case.x.clone(), [case.x.len() / dim, dim]), (device, DType::F32))
}

/// Numbers of this type.
pub fn values<T: burn::tensor::Element>(data: TensorData) -> Vec<T> {
    data.try_into_vec().expect("data of this type")
}

/// The kernels that this device can choose among.
pub fn paths() -> &'static [KernelPath] {
    match device_name().as_str() {
        // On another device than Hopper the last two are the same.
        "cuda" => &[KernelPath::Portable, KernelPath::TensorCores, KernelPath::Hopper],
        _ => &[KernelPath::Hopper],
    }
}

/// A step with this `X`.
pub fn step_on(case: &Case, x: Tensor<2>, device: &Device) -> StepOutput {
    let gradient = Tensor::zeros(x.dims(), (device, DType::F32));
    classifier_step(
        case.segment,
        case.step,
        words_tensor(&case.words, device),
        words_tensor(&case.compensation, device),
        x,
        case.positives.clone(),
        gradient,
    )
}

/// What a step has made, read back.
pub fn read(output: StepOutput) -> Outcome {
    let report: Vec<f32> = values(output.report.into_data());
    Outcome {
        loss: f64::from(report[0]),
        non_finite: report[1] as u64,
        words: values(output.words.into_data()),
        compensation: values(output.compensation.into_data()),
        gradient: values(output.input_gradient.into_data()),
    }
}

/// The step on the device.
pub fn on_device(case: &Case, device: &Device) -> Outcome {
    read(step_on(case, x_tensor(case, device), device))
}

/// In what type the device multiplies with the gradient.
pub fn multiplied(case: &Case) -> Format {
    match (case.segment.precision, case.step.operands) {
        _ if device_name() != "cuda" || case.step.kernels == KernelPath::Portable => Format::F32,
        (Format::F32, _) | (_, Format::F32) => Format::F32,
        (Format::E4m3, _) => Format::F16,
        _ => Format::Bf16,
    }
}

/// Whether the device sums the products of E4M3 operands with fewer bits than F32 has.
pub fn sums_fewer_bits(case: &Case) -> bool {
    device_name() == "cuda"
        && case.step.kernels == KernelPath::Hopper
        && (case.segment.precision, case.step.operands) == (Format::E4m3, Format::E4m3)
}

/// A search for the best labels of one segment.
pub fn search_on(
    segment: &Segment,
    search: &Search,
    words: &[u32],
    x: &[f32],
    device: &Device,
) -> (Vec<f32>, Vec<i32>) {
    let batch = x.len() / segment.dim;
    let (scores, labels) = classifier_search(
        *segment,
        *search,
        words_tensor(words, device),
        Tensor::from_data(TensorData::new(x.to_vec(), [batch, segment.dim]), (device, DType::F32)),
        Tensor::full([batch, search.k], cpu::Best::NO_SCORE, (device, DType::F32)),
        Tensor::full([batch, search.k], cpu::Best::NO_LABEL, (device, DType::I32)),
    );
    (values(scores.into_data()), values(labels.into_data()))
}
