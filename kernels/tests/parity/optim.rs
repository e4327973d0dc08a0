//! A step of the optimizer on the device against the same step on the CPU, which has the bits of torch-optimi.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use elmo_kernels::optim::{AdamState, AdamStep, AdamTensors, AdamWork, kahan_adam, kahan_adam_all, settle};

use crate::{device::device, support::noise};

/// Lengths: less than a vector, no whole vectors, whole ones, several cubes.
const LENGTHS: [usize; 5] = [1, 123, 1000, 768 * 64, 70_001];
const STEPS: usize = 5;
const LEARNING_RATE: f64 = 3e-3;

/// Every kind of step, with and without compensation.
fn rules() -> Vec<(AdamStep, bool)> {
    let step = |weight_decay, decoupled| AdamStep {
        learning_rate: LEARNING_RATE,
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

/// Numbers of the state's tensors; all exact in F32.
#[derive(Clone, Debug, PartialEq)]
struct State {
    parameter: Vec<f32>,
    moment_1: Vec<f32>,
    moment_2: Vec<f32>,
    compensation: Option<Vec<f32>>,
}

fn numbers(tensor: Tensor<1>) -> Vec<f32> {
    tensor.cast(FloatDType::F32).into_data().try_into_vec().unwrap()
}

fn tensor(values: &[f32], dtype: DType, device: &Device) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

fn random(length: usize, seed: usize, dtype: DType) -> Vec<f32> {
    let values = (0..length).map(|at| noise(seed * 1_000_000 + at)).collect();
    TensorData::new(values, [length]).convert_dtype(dtype).convert::<f32>().try_into_vec().unwrap()
}

impl State {
    fn new(length: usize, dtype: DType, compensated: bool) -> Self {
        let zeros = vec![0.0; length];
        Self {
            parameter: random(length, 1, dtype),
            moment_1: zeros.clone(),
            moment_2: zeros.clone(),
            compensation: compensated.then_some(zeros),
        }
    }

    fn on(&self, dtype: DType, device: &Device) -> AdamState<1> {
        AdamState {
            parameter: tensor(&self.parameter, dtype, device),
            moment_1: tensor(&self.moment_1, dtype, device),
            moment_2: tensor(&self.moment_2, dtype, device),
            compensation: self.compensation.as_ref().map(|lost| tensor(lost, dtype, device)),
        }
    }

    fn of(state: AdamState<1>) -> Self {
        Self {
            parameter: numbers(state.parameter),
            moment_1: numbers(state.moment_1),
            moment_2: numbers(state.moment_2),
            compensation: state.compensation.map(numbers),
        }
    }

    fn after(&self, gradient: &[f32], step: AdamStep, dtype: DType, device: &Device) -> Self {
        Self::of(kahan_adam(self.on(dtype, device), tensor(gradient, dtype, device), step))
    }

    /// What the parameter stands for.
    fn exact(&self) -> Vec<f64> {
        let lost = |at| self.compensation.as_ref().map_or(0.0, |lost| f64::from(lost[at]));
        self.parameter.iter().enumerate().map(|(at, x)| f64::from(*x) + lost(at)).collect()
    }
}

/// Half the distance of two neighbours around 1.
fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::F16 => 2.0f64.powi(-11),
        _ => 2.0f64.powi(-8),
    }
}

/// Compares numbers; returns how many are not the same.
fn compare(name: &str, found: impl Iterator<Item = f64>, expected: impl Iterator<Item = f64>, tolerance: f64) -> usize {
    let mut different = 0;
    for (at, (found, expected)) in found.zip(expected).enumerate() {
        let off = (found - expected).abs();
        assert!(off <= tolerance * (1.0 + expected.abs()), "{name} {at}: {found} is not {expected}");
        different += usize::from(off > 0.0);
    }
    different
}

#[test]
fn a_step_gives_what_it_does_on_the_cpu() {
    let (device, _guard) = device();
    let cpu = Device::flex();
    let dtypes = [DType::F32, DType::F16, DType::BF16].into_iter().filter(|dtype| device.supports_dtype(*dtype));
    for dtype in dtypes {
        let unit = unit(dtype);
        // Numbers of 32 bits need no compensation, and a compiler may join a product and a sum in one instruction there.
        for (rule, compensated) in rules().into_iter().filter(|(_, compensated)| !compensated || dtype != DType::F32) {
            let (mut different, mut all) = (0, 0);
            for length in LENGTHS {
                let mut state = State::new(length, dtype, compensated);
                for time in 1..=STEPS {
                    let gradient = random(length, 1 + time, dtype);
                    let step = at(rule, time);
                    let expected = state.after(&gradient, step, dtype, &cpu);
                    let found = state.after(&gradient, step, dtype, &device);
                    let name = format!("{dtype:?} {length} {rule:?} {compensated} step {time}");
                    let wide =
                        |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>().into_iter();
                    for (name, found, expected) in [
                        (format!("{name}: first moment"), &found.moment_1, &expected.moment_1),
                        (format!("{name}: second moment"), &found.moment_2, &expected.moment_2),
                        (format!("{name}: parameter"), &found.parameter, &expected.parameter),
                    ] {
                        // A last bit.
                        different += compare(&name, wide(found), wide(expected), 2.0 * unit);
                        all += length;
                    }
                    // What rounding took is in the compensation, up to a last bit of what was due.
                    if compensated {
                        let tolerance = 2.0 * unit * (10.0 * LEARNING_RATE + 2.0 * unit);
                        let (found, expected) = (found.exact().into_iter(), expected.exact().into_iter());
                        compare(&format!("{name}: with compensation"), found, expected, tolerance);
                    }
                    let again = state.after(&gradient, step, dtype, &device);
                    assert!(again == found, "{name}: other bits in a second run");
                    state = expected;
                }
            }
            println!("{dtype:?} {rule:?} {compensated}: {different} of {all} numbers differ");
            if dtype != DType::F32 {
                assert!(different * 200 < all, "{different} of {all}");
            }
        }
    }
}

#[test]
fn tensors_that_others_hold_stay_as_they_were() {
    let (device, _guard) = device();
    let before = State::new(1000, DType::F32, true);
    let state = before.on(DType::F32, &device);
    let gradient = tensor(&random(1000, 2, DType::F32), DType::F32, &device);
    let after = kahan_adam(state.clone(), gradient, at(rules()[1].0, 1));
    assert_ne!(State::of(after).parameter, before.parameter);
    assert_eq!(State::of(state), before);
}

#[test]
fn matrices_of_any_layout_are_optimized() {
    let (device, _guard) = device();
    let step = at(rules()[2].0, 1);
    let [rows, columns] = [37, 50];
    let matrix = |seed| tensor(&random(rows * columns, seed, DType::F32), DType::F32, &device).reshape([rows, columns]);
    let after = |parameter: Tensor<2>, gradient| {
        let zeros = || Tensor::zeros(parameter.dims(), (&device, DType::F32));
        let state =
            AdamState { moment_1: zeros(), moment_2: zeros(), compensation: None, parameter: parameter.clone() };
        kahan_adam(state, gradient, step).parameter
    };
    let plain = after(matrix(1), matrix(2));
    let transposed = after(matrix(1).transpose(), matrix(2).transpose()).transpose();
    let tracked = after(Tensor::from_inner(matrix(1)), Tensor::from_inner(matrix(2))).inner();
    for other in [transposed, tracked] {
        other.into_data().assert_eq(&plain.clone().into_data(), true);
    }
}

#[test]
fn many_parameters_at_once_get_the_bits_of_one_after_the_other() {
    let (device, _guard) = device();
    let dtypes = [DType::F32, DType::F16, DType::BF16].into_iter().filter(|dtype| device.supports_dtype(*dtype));
    for dtype in dtypes {
        // A batch of whole vectors, one of any length, and some that are left.
        let lengths = [768, 64, 768 * 64, 256, 70_000, 8, 512, 2048].into_iter().chain(LENGTHS).chain(LENGTHS);
        let states: Vec<_> = lengths.map(|length| State::new(length, dtype, dtype != DType::F32)).collect();
        for (rule, compensated) in rules().into_iter().filter(|(_, compensated)| *compensated == (dtype != DType::F32))
        {
            let step = at(rule, 1);
            let gradient = |at: usize| random(states[at].parameter.len(), 2 + at, dtype);
            let work = states.iter().enumerate().map(|(at, state)| AdamWork {
                state: dispatched(state.on(dtype, &device)),
                gradient: tensor(&gradient(at), dtype, &device).into_dispatch(),
            });
            let together = kahan_adam_all(work.collect(), step, compensated);
            assert_eq!(together.len(), states.len());
            for (at, (state, found)) in states.iter().zip(together).enumerate() {
                let expected = state.after(&gradient(at), step, dtype, &device);
                let numbers = |tensor| numbers(Tensor::from_dispatch(tensor));
                let name = format!("{dtype:?} {rule:?} {at}");
                assert!(numbers(found.parameter) == expected.parameter, "{name}: parameter");
                assert!(numbers(found.moment_1) == expected.moment_1, "{name}: first moment");
                assert!(numbers(found.moment_2) == expected.moment_2, "{name}: second moment");
                if let Some(lost) = expected.compensation {
                    assert!(numbers(found.compensation) == lost, "{name}: compensation");
                }
            }
        }
    }
}

fn dispatched(state: AdamState<1>) -> AdamTensors<Dispatch> {
    let AdamState { parameter, moment_1, moment_2, compensation } = state;
    AdamTensors {
        compensation: compensation.unwrap_or_else(|| parameter.clone()).into_dispatch(),
        parameter: parameter.into_dispatch(),
        moment_1: moment_1.into_dispatch(),
        moment_2: moment_2.into_dispatch(),
    }
}

#[test]
fn settled_tensors_are_the_same_numbers() {
    let (device, _guard) = device();
    let values = random(5000, 1, DType::F32);
    let tensor = tensor(&values, DType::F32, &device).reshape([50, 100]);
    assert_eq!(numbers(settle(tensor.clone()).reshape([5000])), values);
    let transposed = settle(tensor.clone().transpose());
    transposed.into_data().assert_eq(&tensor.transpose().into_data(), true);
}
