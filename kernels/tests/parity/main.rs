//! The operations on a GPU against the CPU path, which is the truth.
//!
//! `ELMO_TEST_DEVICE` chooses among the devices that the build has: `cuda`, `vulkan`, `metal`, `wgpu`.
#![cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use elmo_kernels::{
    Compensation, Head, Initializer, KernelPath, Operands, Positives, Precision, Search, Segment, Step, StepOutput,
    classifier_search, classifier_step, cpu, initial_words, limit_kernels,
    numbers::codes,
    random,
    reference::{self, Format},
    stored,
};

const PRECISIONS: [Format; 3] = [Format::E4m3, Format::Bf16, Format::F32];
const OPERANDS: [Format; 3] = [Format::E4m3, Format::Bf16, Format::F32];
/// Labels, features, batch: nothing that a tile divides, and less than a tile.
const SHAPES: [(usize, usize, usize); 8] = [
    (252, 123, 7),
    (507, 48, 33),
    (123, 252, 64),
    (1, 1, 1),
    (40, 17, 1),
    (5, 768, 130),
    (391, 136, 200),
    (203, 290, 300),
];

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
fn device() -> (Device, MutexGuard<'static, ()>) {
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

#[derive(Clone)]
struct Case {
    segment: Segment,
    step: Step,
    words: Vec<u32>,
    compensation: Vec<u32>,
    x: Vec<f32>,
    positives: Positives,
    /// Which kernels may be used.
    path: KernelPath,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    loss: f64,
    non_finite: u64,
    words: Vec<u32>,
    compensation: Vec<u32>,
    gradient: Vec<f32>,
}

/// Random numbers in [-1, 1) that depend on `at` alone.
fn noise(at: usize) -> f32 {
    random::hash(at as u32 ^ 0x5eed) as f32 / 2_147_483_648.0 - 1.0
}

fn case(precision: Format, operands: Format, (labels, dim, batch): (usize, usize, usize), head: Option<Head>) -> Case {
    let segment = Segment {
        first_label: 1000,
        labels,
        dim,
        precision,
        head,
    };
    let pair = |i: usize| {
        let label = 1000 + (i * 7919) % labels;
        (label as u32, ((i * 31) % batch) as u32)
    };
    Case {
        step: Step {
            operands,
            chunk: 100,
            learning_rate: 0.05,
            weight_decay: 0.01,
            rounding_key: Step::rounding_key(1, 9),
            loss: true,
        },
        words: initial_words(&segment, Initializer::Uniform { bound: 0.2 }, 4),
        compensation: vec![0; segment.compensation_words()],
        x: (0..batch * dim).map(noise).collect(),
        positives: Positives::new((0..batch * 2).map(pair).collect()),
        segment,
        path: KernelPath::Hopper,
    }
}

fn words_tensor(words: &[u32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(words.to_vec(), [words.len()]), (device, DType::U32))
}

fn x_tensor(case: &Case, device: &Device) -> Tensor<2> {
    let dim = case.segment.dim;
    Tensor::from_data(
        TensorData::new(case.x.clone(), [case.x.len() / dim, dim]),
        (device, DType::F32),
    )
}

fn values<T: burn::tensor::Element>(data: TensorData) -> Vec<T> {
    data.try_into_vec().expect("data of this type")
}

/// The kernels that this device can choose among.
fn paths() -> &'static [KernelPath] {
    match device_name().as_str() {
        // On another device than Hopper the last two are the same.
        "cuda" => &[KernelPath::Portable, KernelPath::TensorCores, KernelPath::Hopper],
        _ => &[KernelPath::Hopper],
    }
}

fn step_on(case: &Case, x: Tensor<2>, device: &Device) -> StepOutput {
    limit_kernels(case.path);
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

fn read(output: StepOutput) -> Outcome {
    let report: Vec<f32> = values(output.report.into_data());
    Outcome {
        loss: f64::from(report[0]),
        non_finite: report[1] as u64,
        words: values(output.words.into_data()),
        compensation: values(output.compensation.into_data()),
        gradient: values(output.input_gradient.into_data()),
    }
}

fn on_device(case: &Case, device: &Device) -> Outcome {
    read(step_on(case, x_tensor(case, device), device))
}

fn on_cpu(case: &Case) -> Outcome {
    let (mut words, mut compensation) = (case.words.clone(), case.compensation.clone());
    let mut gradient = vec![0.0; case.x.len()];
    let report = cpu::step(
        &case.segment,
        &case.step,
        &mut words,
        &mut compensation,
        &case.x,
        &case.positives,
        &mut gradient,
    );
    Outcome {
        loss: report.loss,
        non_finite: report.non_finite,
        words,
        compensation,
        gradient,
    }
}

/// In what type the device multiplies with the gradient.
fn multiplied(case: &Case) -> Format {
    match (case.segment.precision, case.step.operands) {
        _ if device_name() != "cuda" || case.path == KernelPath::Portable => Format::F32,
        (Format::F32, _) | (_, Format::F32) => Format::F32,
        (Format::E4m3, _) => Format::F16,
        (Format::Bf16, _) => Format::Bf16,
    }
}

/// Whether the device sums the products of E4M3 operands with fewer bits than F32 has.
fn sums_fewer_bits(case: &Case) -> bool {
    device_name() == "cuda"
        && case.path == KernelPath::Hopper
        && (case.segment.precision, case.step.operands) == (Format::E4m3, Format::E4m3)
}

/// What the device should find: by the CPU where it computes alike, by the slow reference where it rounds to 16 bits.
fn expected(case: &Case) -> Outcome {
    let multiplied = multiplied(case);
    if multiplied == Format::F32 {
        return on_cpu(case);
    }
    let Case {
        segment,
        step,
        words,
        compensation,
        x,
        positives,
        ..
    } = case;
    let outcome = reference::step_with(multiplied, segment, step, words, compensation, x, positives);
    let old = segment.decode(words);
    let before: Vec<f32> = (outcome.before_rounding.iter().zip(&old))
        .map(|(new, old)| if new.is_finite() { *new as f32 } else { *old })
        .collect();
    let stored: Vec<f32> = (before.iter().enumerate())
        .map(|(i, value)| {
            let (row, column) = (i / segment.dim, i % segment.dim);
            let label = segment.first_label + row as u64;
            stored(segment.precision, *value, step.rounding_key, label, column)
        })
        .collect();
    let mut new_words = words.clone();
    let row_words = segment.precision.row_words(segment.dim);
    for (row, values) in new_words.chunks_mut(row_words).zip(stored.chunks(segment.dim)) {
        segment.precision.encode_row(values, row);
    }
    let mut new_compensation = compensation.clone();
    if let Some(head) = segment.head {
        let lost: Vec<f32> = before.iter().zip(&stored).map(|(b, s)| b - s).collect();
        let row_words = head.compensation.row_words(segment.dim);
        for (row, values) in new_compensation.chunks_mut(row_words).zip(lost.chunks(segment.dim)) {
            head.compensation.encode_row(values, row);
        }
    }
    Outcome {
        loss: outcome.loss,
        non_finite: outcome.before_rounding.iter().filter(|v| !v.is_finite()).count() as u64,
        words: new_words,
        compensation: new_compensation,
        gradient: outcome.input_gradient.iter().map(|g| *g as f32).collect(),
    }
}

/// The gap between a value and its neighbours in a format, with some room for the rounding of F32 sums.
fn gap(precision: Format, value: f32) -> f32 {
    match precision {
        Format::E4m3 => (value.abs() / 8.0).max(1.0 / 512.0) * 1.01,
        Format::Bf16 => value.abs() / 127.0 + 1e-6,
        Format::F32 => 1e-6,
    }
}

fn assert_same(case: &Case, found: &Outcome, expected: &Outcome) {
    let name = format!(
        "{:?} {:?} {:?}",
        case.segment.precision, case.step.operands, case.segment
    );
    let Segment {
        precision, labels, dim, ..
    } = case.segment;
    let loss_tolerance = if sums_fewer_bits(case) { 1e-4 } else { 1e-5 };
    assert!(
        (found.loss / expected.loss - 1.0).abs() < loss_tolerance,
        "{name}: loss {} {}",
        found.loss,
        expected.loss
    );
    assert_eq!(found.non_finite, expected.non_finite, "{name}");
    // Where a gradient lies between two 16-bit numbers the device may round it to the other one.
    let other_gradient = match multiplied(case) {
        Format::F32 => 0.0,
        Format::F16 if sums_fewer_bits(case) => 2.0f32.powi(-9),
        Format::F16 => 2.0f32.powi(-11),
        Format::Bf16 => 2.0f32.powi(-8),
    };
    let tolerance = 1e-5 * (0.2 * (labels as f32).sqrt()).max(1.0) + 0.5 * other_gradient;
    for (found, expected) in found.gradient.iter().zip(&expected.gradient) {
        assert!((found - expected).abs() < tolerance, "{name}: dX {found} {expected}");
    }
    let new = case.segment.decode(&found.words);
    let expected_new = case.segment.decode(&expected.words);
    let mut differ = 0;
    let room = case.step.learning_rate * other_gradient;
    for (new, expected) in new.iter().zip(&expected_new) {
        assert!(
            (new - expected).abs() <= gap(precision, *expected) + room,
            "{name}: W {new} {expected}"
        );
        differ += usize::from(new != expected);
    }
    if precision != Format::F32 {
        let allowed = match multiplied(case) {
            Format::Bf16 => 2 + labels * dim / 10,
            _ if sums_fewer_bits(case) => 2 + labels * dim / 100,
            _ => 2 + labels * dim / 500,
        };
        assert!(differ <= allowed, "{name}: {differ} of {}", labels * dim);
    }
    // What is stored and what is held sum up to the same.
    let held = case.segment.decode_compensation(&found.compensation);
    let expected_held = case.segment.decode_compensation(&expected.compensation);
    for (i, (c, expected_c)) in held.iter().zip(&expected_held).enumerate() {
        let size = c.abs().max(expected_c.abs());
        let unit = match case.segment.head.map(|head| head.compensation) {
            Some(Format::E5m2) => size / 4.0 + 2e-5,
            _ => size / 64.0 + 1e-6,
        };
        let error = (new[i] + c - expected_new[i] - expected_c).abs();
        assert!(error <= unit + room, "{name}: C {c} {expected_c}");
    }
}

#[test]
fn a_step_is_that_of_the_cpu_on_odd_shapes_in_every_precision() {
    let (device, _guard) = device();
    for precision in PRECISIONS {
        for operands in OPERANDS {
            for shape in SHAPES {
                for path in paths() {
                    let mut case = case(precision, operands, shape, None);
                    case.path = *path;
                    assert_same(&case, &on_device(&case, &device), &expected(&case));
                }
            }
        }
    }
}

#[test]
fn compensation_is_that_of_the_cpu() {
    let (device, _guard) = device();
    for compensation in [Format::Bf16, Format::E5m2] {
        // The head ends inside a chunk and inside a tile.
        let head = Head {
            labels: 1130,
            compensation,
        };
        for (precision, path) in [Format::E4m3, Format::Bf16]
            .into_iter()
            .flat_map(|precision| paths().iter().map(move |path| (precision, *path)))
        {
            let mut case = case(precision, Format::Bf16, (252, 123, 7), Some(head));
            case.path = path;
            for step in 0..3 {
                case.step.rounding_key = Step::rounding_key(1, step);
                let expected = expected(&case);
                assert_same(&case, &on_device(&case, &device), &expected);
                (case.words, case.compensation) = (expected.words, expected.compensation);
            }
        }
    }
}

#[test]
fn nothing_depends_on_the_chunk_size_or_the_run() {
    let (device, _guard) = device();
    let head = Head {
        labels: 1100,
        compensation: Format::Bf16,
    };
    for precision in PRECISIONS {
        for path in paths() {
            let mut case = case(precision, Format::Bf16, (1300, 123, 33), Some(head));
            case.path = *path;
            let expected = on_device(&case, &device);
            for chunk in [7, 256, 300, 1299, 1_000_000] {
                case.step.chunk = chunk;
                let found = on_device(&case, &device);
                assert!(found == expected, "{precision:?}, {path:?}, chunk {chunk}");
            }
        }
    }
}

/// The weights of a case after so many steps.
fn weights_after(steps: u64, case: &Case, device: &Device) -> Vec<u32> {
    let mut case = case.clone();
    for step in 0..steps {
        case.step.rounding_key = Step::rounding_key(1, step);
        let found = on_device(&case, device);
        assert_eq!(found.non_finite, 0);
        case.words = found.words;
    }
    case.words
}

/// All paths draw the same bits, so a weight differs only where a value before rounding, a little off, fell on the
/// other side of its draw; from there on the two differ by that step, until an update brings them together or apart.
/// There is no drift: such steps go either way alike.
#[test]
fn after_a_hundred_steps_all_paths_have_the_weights_of_the_cpu() {
    let (device, _guard) = device();
    for operands in [Format::E4m3, Format::Bf16] {
        for shape in [(300, 48, 33), (200, 130, 150), (140, 33, 300)] {
            let mut case = case(Format::E4m3, operands, shape, None);
            case.step.learning_rate = 0.01;
            case.step.loss = false;
            let mut on_the_cpu = case.clone();
            for step in 0..100 {
                on_the_cpu.step.rounding_key = Step::rounding_key(1, step);
                on_the_cpu.words = on_cpu(&on_the_cpu).words;
            }
            let expected = case.segment.decode(&on_the_cpu.words);
            for path in paths() {
                case.path = *path;
                let words = weights_after(100, &case, &device);
                assert!(words == weights_after(100, &case, &device), "{path:?}");
                let found = case.segment.decode(&words);
                let off: Vec<f32> = (found.iter().zip(&expected)).map(|(f, e)| f - e).collect();
                let largest = expected.iter().fold(0.0f32, |most, w| most.max(w.abs()));
                let step = gap(Format::E4m3, largest);
                let furthest = off.iter().fold(0.0f32, |most, off| most.max(off.abs()));
                let sum = off.iter().sum::<f32>();
                let square = off.iter().map(|off| off * off).sum::<f32>();
                let name = format!("{operands:?} {shape:?} {path:?}");
                let mean_square = square / off.len() as f32;
                assert!(mean_square.sqrt() <= step / 4.0, "{name}: {mean_square}, step {step}");
                assert!(furthest <= 2.0 * step, "{name}: {furthest} apart, step {step}");
                assert!(sum.abs() <= 4.0 * square.sqrt(), "{name}: {sum}, {square}");
            }
        }
    }
}

#[test]
fn without_the_loss_the_update_is_the_same() {
    let (device, _guard) = device();
    let mut case = case(Format::E4m3, Format::E4m3, (252, 123, 7), None);
    let expected = on_device(&case, &device);
    case.step.loss = false;
    let found = on_device(&case, &device);
    assert_eq!(found.loss, 0.0);
    assert_eq!((found.words, found.gradient), (expected.words, expected.gradient));
}

/// Late in training nearly all labels of nearly all rows lose less than F32 can add to 1.
#[test]
fn small_losses_are_not_lost() {
    let (device, _guard) = device();
    let mut case = case(Format::E4m3, Format::Bf16, (200, 16, 5), None);
    for row in case.words.chunks_mut(Format::E4m3.row_words(16)) {
        Format::E4m3.encode_row(&[-1.0; 16], row);
    }
    case.positives = Positives::default();
    for scale in [1.3, 1.0, 0.5, 0.2] {
        case.x.fill(scale);
        let (found, expected) = (on_device(&case, &device), expected(&case));
        assert!(
            (found.loss / expected.loss - 1.0).abs() < 1e-5,
            "{scale}: {} {}",
            found.loss,
            expected.loss
        );
    }
}

#[test]
fn every_code_decodes_exactly() {
    let (device, _guard) = device();
    // A feature of 1 makes the score the weight.
    let segment = Segment {
        first_label: 0,
        labels: 256,
        dim: 1,
        precision: Format::E4m3,
        head: None,
    };
    let mut words = vec![0; segment.words()];
    let row_words = segment.precision.row_words(1);
    for (code, row) in words.chunks_mut(row_words).enumerate() {
        row[0] = code as u32;
    }
    for operands in OPERANDS {
        let search = Search {
            operands,
            chunk: 100,
            k: 256,
        };
        let (scores, labels) = search_on(&segment, &search, &words, &[1.0], &device);
        assert_eq!(labels.iter().filter(|label| **label >= 0).count(), 254);
        for (score, label) in scores.iter().zip(&labels).take(254) {
            assert_eq!(*score, codes::e4m3_to_f32(*label as u8), "{label:#x}");
        }
    }

    // Without a learning rate the new weight is the old one plus what is held.
    for compensation in [Format::E5m2, Format::Bf16] {
        let codes = 1usize << compensation.bits();
        let dim = 256;
        let mut case = case(
            Format::F32,
            Format::F32,
            (codes / dim, dim, 1),
            Some(Head {
                labels: 1 << 20,
                compensation,
            }),
        );
        case.step.learning_rate = 0.0;
        case.words.fill(0);
        let per_word = 32 / compensation.bits();
        for (at, word) in case.compensation.iter_mut().enumerate() {
            *word = (0..per_word).fold(0, |word, k| {
                word | ((at * per_word + k) as u32) << (k * compensation.bits())
            });
        }
        let found = on_device(&case, &device);
        let mut kept = 0;
        for (code, bits) in found.words.iter().enumerate() {
            let expected = match compensation {
                Format::E5m2 => codes::e5m2_to_f32(code as u8),
                Format::Bf16 => codes::bf16_to_f32(code as u16),
            };
            if !expected.is_finite() {
                kept += 1;
                assert_eq!(f32::from_bits(*bits), 0.0);
            } else if expected.is_normal() {
                assert_eq!(f32::from_bits(*bits), expected, "{code:#x}");
            } else {
                // Devices may flush F32 denormals, which only BF16 has.
                assert!(f32::from_bits(*bits).abs() <= expected.abs());
            }
        }
        assert_eq!(found.non_finite, kept);
    }
}

/// A step whose logits are all zero, since E4M3 rounds such small features to zero: the gradient is exactly 1/2 on
/// every path, hence the value before rounding exact: `w` plus this power of two times `x`.
fn exact_step(case: &mut Case, power: i32) {
    case.positives = Positives::default();
    case.step.operands = Format::E4m3;
    case.step.loss = false;
    case.step.learning_rate = -(2.0f32.powi(power + 1));
    case.step.weight_decay = 0.0;
}

/// Features below E4M3's smallest numbers, of either sign, that F16 and BF16 hold exactly.
fn small_feature(i: usize) -> f32 {
    let size = 9e-4 * 0.88f32.powi((i % 64) as i32);
    let short = half::f16::from_f32(noise(i).signum() * size).to_f32();
    half::bf16::from_f32(short).to_f32()
}

/// In F32 a step stores what the other formats round. Hence the value before rounding, as the device has it, and the
/// host can say what code it must become.
#[test]
fn equal_values_round_to_equal_codes_on_host_and_device() {
    let (device, _guard) = device();
    let (labels, dim) = (2048, 66);
    for (compensation, power) in [(None, 20), (None, 8), (Some(Format::Bf16), 20), (Some(Format::E5m2), 8)] {
        for precision in [Format::E4m3, Format::Bf16] {
            let head = compensation.map(|compensation| Head {
                labels: 1 << 33,
                compensation,
            });
            let mut rounded = case(precision, Format::E4m3, (labels, dim, 1), head);
            // Labels on both sides of 2^32.
            rounded.segment.first_label = (1 << 32) - 100;
            exact_step(&mut rounded, power);
            // Updates from far below the smallest subnormal to past the largest number, of either sign.
            for (i, x) in rounded.x.iter_mut().enumerate() {
                *x = small_feature(i);
            }
            let codes: Vec<f32> = (0..labels * dim)
                .map(|i| codes::e4m3_to_f32((i * 37 % 0x7f) as u8 | (i as u8 & 1) << 7))
                .collect();
            let mut exact = rounded.clone();
            exact.segment.precision = Format::F32;
            exact.words = vec![0; exact.segment.words()];
            for case in [&mut rounded, &mut exact] {
                let row_words = case.segment.precision.row_words(dim);
                for (row, values) in case.words.chunks_mut(row_words).zip(codes.chunks(dim)) {
                    case.segment.precision.encode_row(values, row);
                }
            }

            let before = exact.segment.decode(&on_device(&exact, &device).words);
            let found = on_device(&rounded, &device);
            let new = rounded.segment.decode(&found.words);
            let held = rounded.segment.decode_compensation(&found.compensation);
            for (i, before) in before.iter().enumerate() {
                let label = rounded.segment.first_label + (i / dim) as u64;
                let key = rounded.step.rounding_key;
                let expected = stored(precision, *before, key, label, i % dim);
                assert_eq!(new[i].to_bits(), expected.to_bits(), "{before} {}", new[i]);
                if let Some(compensation) = compensation {
                    let lost = compensation.round(before - expected);
                    assert_eq!(held[i], lost, "{before} {expected}");
                }
            }
            assert_eq!(found.non_finite, 0);
            assert_eq!(new.len(), labels * dim);
        }
    }
}

/// At 64 values, from subnormals over normals to beyond the largest number.
#[test]
fn rounding_keeps_the_mean() {
    let (device, _guard) = device();
    let (labels, dim) = (8192, 64);
    for power in [8, 20] {
        let mut case = case(Format::E4m3, Format::E4m3, (labels, dim, 1), None);
        exact_step(&mut case, power);
        case.words.fill(0);
        for (i, x) in case.x.iter_mut().enumerate() {
            *x = small_feature(i);
        }
        let new = case.segment.decode(&on_device(&case, &device).words);
        for column in 0..dim {
            let value = f64::from(case.x[column]) * 2.0f64.powi(power);
            let stored = (0..labels).map(|label| f64::from(new[label * dim + column]));
            let mean = stored.clone().sum::<f64>() / labels as f64;
            let expected = value.clamp(-448.0, 448.0);
            let variance = stored.map(|v| (v - mean).powi(2)).sum::<f64>() / labels as f64;
            let error = (variance / labels as f64).sqrt();
            assert!(
                (mean - expected).abs() <= 4.0 * error + 1e-4 * expected.abs(),
                "{value}: mean {mean}, standard error {error}"
            );
        }
    }
}

#[test]
fn broken_input_is_counted_and_never_stored() {
    let (device, _guard) = device();
    for precision in PRECISIONS {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for operands in OPERANDS {
                let mut case = case(precision, operands, (50, 20, 4), None);
                case.x[27] = broken;
                let (found, expected) = (on_device(&case, &device), expected(&case));
                assert_eq!(
                    found.non_finite, expected.non_finite,
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
        rounded.x = values(x.clone().cast(FloatDType::F32).into_data());
        let found = read(step_on(&rounded, x, &device));
        assert_eq!(found, on_device(&rounded, &device));
    }
    let transposed = x_tensor(&exact, &device).transpose().mul_scalar(1.0);
    let found = read(step_on(&exact, transposed.transpose(), &device));
    assert_eq!(found, on_device(&exact, &device));
}

#[test]
fn an_empty_batch_and_labels_without_positives_are_fine() {
    let (device, _guard) = device();
    let mut case = case(Format::E4m3, Format::Bf16, (33, 9, 5), None);
    case.positives = Positives::default();
    assert_same(&case, &on_device(&case, &device), &expected(&case));
    case.x.clear();
    let found = on_device(&case, &device);
    assert_eq!((found.loss, found.non_finite), (0.0, 0));
    assert_eq!(found.words, case.words);
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
        let output = classifier_step(
            case.segment,
            case.step,
            words,
            compensation,
            x.clone(),
            case.positives.clone(),
            gradient,
        );
        (words, compensation) = (output.words, output.compensation);
    }
    let grown = reserved() - before;
    assert!(grown < bytes / 2, "{grown} bytes more");
    assert_ne!(values::<u32>(words.into_data()), case.words);
}

#[test]
fn a_hundred_steps_take_no_memory() {
    let (device, _guard) = device();
    let head = Head {
        labels: 1100,
        compensation: Format::Bf16,
    };
    let case = case(Format::E4m3, Format::E4m3, (507, 123, 33), Some(head));
    let mut words = words_tensor(&case.words, &device);
    let mut compensation = words_tensor(&case.compensation, &device);
    let x = x_tensor(&case, &device);
    let mut in_use = Vec::new();
    for step in 0..100 {
        let output = classifier_step(
            case.segment,
            Step {
                rounding_key: Step::rounding_key(1, step),
                ..case.step
            },
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

fn search_on(segment: &Segment, search: &Search, words: &[u32], x: &[f32], device: &Device) -> (Vec<f32>, Vec<i32>) {
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

#[test]
fn search_finds_the_labels_of_the_cpu() {
    let (device, _guard) = device();
    for precision in PRECISIONS {
        for shape in SHAPES {
            let (labels, dim, batch) = shape;
            let mut case = case(precision, Format::E4m3, shape, None);
            // Repeated rows make ties.
            let row_words = precision.row_words(dim);
            for label in (10..labels).step_by(10) {
                let (before, row) = case.words.split_at_mut(label * row_words);
                row[..row_words].copy_from_slice(&before[..row_words]);
            }
            let logits = reference::step(&case.segment, &case.step, &case.words, &[], &case.x, &case.positives).logits;
            for (k, chunk) in [(1, labels), (5, 50), (100, 33)] {
                let search = Search {
                    operands: case.step.operands,
                    chunk,
                    k,
                };
                let mut best = cpu::Best::new(batch, k);
                cpu::search(&case.segment, &search, &case.words, &case.x, &mut best);
                let (scores, found) = search_on(&case.segment, &search, &case.words, &case.x, &device);
                for (at, (label, expected)) in found.iter().zip(&best.labels).enumerate() {
                    if *expected == cpu::Best::NO_LABEL {
                        assert_eq!(label, expected);
                        continue;
                    }
                    assert!((scores[at] - best.scores[at]).abs() < 1e-5);
                    // Another label only where the two are as good as equal.
                    let row = (*label as u64 - case.segment.first_label) as usize;
                    let exact = logits[row * batch + at / k] as f32;
                    assert!((exact - best.scores[at]).abs() < 1e-5);
                    assert!(
                        at % k == 0 || scores[at - 1] > scores[at] || found[at - 1] < *label,
                        "order"
                    );
                }
            }
        }
    }
}

#[test]
fn search_continues_over_segments_and_keeps_no_broken_score() {
    let (device, _guard) = device();
    let whole = case(Format::E4m3, Format::Bf16, (300, 40, 16), None);
    let mut x = whole.x.clone();
    x[3] = f32::NAN;
    let search = Search {
        operands: Format::Bf16,
        chunk: 64,
        k: 7,
    };
    let (scores, labels) = search_on(&whole.segment, &search, &whole.words, &x, &device);
    assert!(labels[..7].iter().all(|l| *l == cpu::Best::NO_LABEL));
    assert!(labels[7..].iter().all(|l| *l >= 1000));

    let row_words = whole.segment.precision.row_words(40);
    let (low, high) = whole.words.split_at(130 * row_words);
    let x = Tensor::<2>::from_data(TensorData::new(x, [16, 40]), (&device, DType::F32));
    let mut best = (
        Tensor::<2>::full([16, 7], cpu::Best::NO_SCORE, (&device, DType::F32)),
        Tensor::<2, Int>::full([16, 7], cpu::Best::NO_LABEL, (&device, DType::I32)),
    );
    for (first, labels, words) in [(0, 130, low), (130, 170, high)] {
        let segment = Segment {
            first_label: whole.segment.first_label + first,
            labels,
            ..whole.segment
        };
        let words = words_tensor(words, &device);
        best = classifier_search(segment, search, words, x.clone(), best.0, best.1);
    }
    assert_eq!(values::<f32>(best.0.into_data()), scores);
    assert_eq!(values::<i32>(best.1.into_data()), labels);
}
