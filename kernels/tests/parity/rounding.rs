//! Codes are decoded exactly, and equal values are rounded to equal codes on host and device.

use elmo_kernels::{Format, Head, KernelPath, Positives, Search, Segment, numbers::codes, stored};

use crate::{
    device::{device, on_device, search_on},
    support::{Case, case, noise},
};

#[test]
fn every_code_decodes_exactly() {
    let (device, _guard) = device();
    // A feature of 1 makes the score the weight.
    let segment = Segment { first_label: 0, labels: 256, dim: 1, precision: Format::E4m3, head: None };
    let mut words = vec![0; segment.words()];
    let row_words = segment.precision.row_words(1);
    for (code, row) in words.chunks_mut(row_words).enumerate() {
        row[0] = code as u32;
    }
    for operands in Format::WEIGHTS {
        let search = Search { operands, chunk: Some(100), k: 256, kernels: KernelPath::default() };
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
        let mut case =
            case(Format::F32, Format::F32, (codes / dim, dim, 1), Some(Head { labels: 1 << 20, compensation }));
        case.step.learning_rate = 0.0;
        case.words.fill(0);
        let per_word = 32 / compensation.bits();
        for (at, word) in case.compensation.iter_mut().enumerate() {
            *word = (0..per_word).fold(0, |word, k| word | ((at * per_word + k) as u32) << (k * compensation.bits()));
        }
        let found = on_device(&case, &device);
        let mut kept = 0;
        for (code, bits) in found.words.iter().enumerate() {
            let expected = match compensation {
                Format::E5m2 => codes::e5m2_to_f32(code as u8),
                _ => codes::bf16_to_f32(code as u16),
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
            let head = compensation.map(|compensation| Head { labels: 1 << 33, compensation });
            let mut rounded = case(precision, Format::E4m3, (labels, dim, 1), head);
            // Labels on both sides of 2^32.
            rounded.segment.first_label = (1 << 32) - 100;
            exact_step(&mut rounded, power);
            // Updates from far below the smallest subnormal to past the largest number, of either sign.
            for (i, x) in rounded.x.iter_mut().enumerate() {
                *x = small_feature(i);
            }
            let codes: Vec<f32> =
                (0..labels * dim).map(|i| codes::e4m3_to_f32((i * 37 % 0x7f) as u8 | (i as u8 & 1) << 7)).collect();
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
