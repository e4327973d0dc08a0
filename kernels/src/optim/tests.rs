//! Against the same step composed of tensor operations.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::*;
use crate::random::hash;

/// Lengths: one number, no whole vectors, whole ones, several blocks of a thread.
const LENGTHS: [usize; 4] = [1, 123, 1024, 20_001];
const STEPS: usize = 4;

/// Every kind of step.
fn rules() -> Vec<(AdamStep, bool)> {
    let step = |weight_decay, decoupled| AdamStep {
        learning_rate: 3e-3,
        beta_1: 0.0,
        beta_2: 0.0,
        epsilon: 1e-6,
        weight_decay,
        decoupled,
    };
    let steps = [step(0.0, false), step(0.01, true), step(0.01, false)];
    steps.into_iter().flat_map(|step| [(step, false), (step, true)]).collect()
}

/// The rules at step `time`, with moments that move.
fn at(step: AdamStep, time: usize) -> AdamStep {
    let debiased = |beta: f64| (beta.powi(time as i32) - beta) / (beta.powi(time as i32) - 1.0);
    AdamStep { beta_1: debiased(0.9), beta_2: debiased(0.99), ..step }
}

/// Numbers from 2^-8 to 2 of either sign: their exponents differ, so that sums round.
fn noise(length: usize, seed: u32, dtype: DType, device: &Device) -> Tensor<1> {
    let number = |at: u32| {
        let bits = hash(at ^ hash(seed));
        let mantissa = (bits >> 8) as f32 / (1 << 24) as f32 + 1.0;
        let sign = if bits & 1 == 0 { 1.0 } else { -1.0 };
        sign * mantissa * 0.5f32.powi((bits >> 1 & 7) as i32)
    };
    let values: Vec<f32> = (0..length as u32).map(number).collect();
    Tensor::from_data(TensorData::new(values, [length]).convert_dtype(dtype), (device, dtype))
}

fn fresh(length: usize, compensated: bool, dtype: DType, device: &Device) -> AdamState<1> {
    let parameter = noise(length, 1, dtype, device);
    AdamState {
        moment_1: parameter.zeros_like(),
        moment_2: parameter.zeros_like(),
        compensation: compensated.then(|| parameter.zeros_like()),
        parameter,
    }
}

fn bytes(state: &AdamState<1>) -> Vec<Vec<u8>> {
    let AdamState { parameter, moment_1, moment_2, compensation } = state.clone();
    let tensors = [parameter, moment_1, moment_2].into_iter().chain(compensation);
    tensors.map(|tensor| tensor.into_data().as_bytes().to_vec()).collect()
}

/// torch-optimi's step, an operation at a time: each is computed in F32, and its result rounded to the stored type.
fn composed(state: AdamState<1>, gradient: Tensor<1>, step: AdamStep) -> AdamState<1> {
    let dtype = state.parameter.dtype();
    let stored = |x: Tensor<1>| x.cast(dtype);
    let wide = |x: Tensor<1>| x.cast(DType::F32);
    let rounded = |x: Tensor<1>| wide(stored(x));
    let AdamState { mut parameter, moment_1, moment_2, compensation } = state;
    let mut gradient = rounded(gradient);
    if step.weight_decay != 0.0 {
        if step.decoupled {
            parameter = stored(wide(parameter) * (1.0 - step.learning_rate * step.weight_decay));
        } else {
            gradient = rounded(gradient + wide(parameter.clone()) * step.weight_decay);
        }
    }
    let moment_1 = wide(moment_1);
    let change = (gradient.clone() - moment_1.clone()) * (1.0 - step.beta_1);
    let moment_1 = stored(moment_1 + change);
    let moment_2 = rounded(wide(moment_2) * step.beta_2);
    let moment_2 = stored(moment_2 + gradient.clone() * (1.0 - step.beta_2) * gradient);
    let root = rounded(wide(moment_2.clone()).sqrt());
    let update = wide(moment_1.clone()) * -step.learning_rate / rounded(root + step.epsilon);
    let (parameter, compensation) = match compensation {
        Some(lost) => {
            let due = stored(wide(lost) + update);
            let next = parameter.clone() + due.clone();
            (next.clone(), Some(due + (parameter - next)))
        }
        None => (stored(wide(parameter) + update), None),
    };
    AdamState { parameter, moment_1, moment_2, compensation }
}

#[test]
fn one_pass_gives_the_bits_of_the_composed_step() {
    let device = Device::flex();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for length in LENGTHS {
            for (rule, compensated) in rules() {
                let mut expected = fresh(length, compensated, dtype, &device);
                let mut found = expected.clone();
                for time in 1..=STEPS {
                    let step = at(rule, time);
                    // Wider than the parameter at times: it is rounded first.
                    let wide = if time == 2 { DType::F32 } else { dtype };
                    let gradient = noise(length, 10 + time as u32, wide, &device);
                    expected = composed(expected, gradient.clone(), step);
                    found = kahan_adam(found, gradient, step);
                    assert!(bytes(&found) == bytes(&expected), "{dtype:?} {length} {step:?} {compensated} {time}");
                }
            }
        }
    }
}

#[test]
fn tensors_that_others_hold_stay_as_they_were() {
    let device = Device::flex();
    let (rule, compensated) = (rules()[0].0, true);
    let state = fresh(50, compensated, DType::BF16, &device);
    let before = bytes(&state);
    let after = kahan_adam(state.clone(), noise(50, 2, DType::BF16, &device), at(rule, 1));
    assert_eq!(bytes(&state), before);
    assert_ne!(bytes(&after), before);
}

#[test]
fn views_and_tensors_of_a_graph_are_optimized_too() {
    let plain = Device::flex();
    let tracked = Device::flex().autodiff();
    let matrix = |seed, device: &Device| noise(60, seed, DType::F32, device).reshape([6, 10]);
    let start = |parameter: Tensor<2>| AdamState {
        moment_1: parameter.zeros_like(),
        moment_2: parameter.zeros_like(),
        compensation: None,
        parameter,
    };
    let step = at(rules()[2].0, 1);
    let view = kahan_adam(start(matrix(1, &tracked).transpose()), matrix(2, &tracked).transpose(), step);
    let whole = kahan_adam(start(matrix(1, &plain)), matrix(2, &plain), step);
    view.parameter.inner().into_data().assert_eq(&whole.parameter.transpose().into_data(), true);
}

#[test]
fn no_numbers_are_no_trouble() {
    let device = Device::flex();
    let state = fresh(0, true, DType::BF16, &device);
    let state = kahan_adam(state, noise(0, 1, DType::BF16, &device), at(rules()[0].0, 1));
    assert_eq!(state.parameter.dims(), [0]);
}
