//! A search finds the labels that the CPU finds.

use burn::tensor::{DType, Int, Tensor, TensorData};
use elmo_kernels::{Format, KernelPath, Search, Segment, classifier_search, cpu};

use crate::{
    device::{device, search_on, values, words_tensor},
    support::{SHAPES, case},
};

#[test]
fn search_finds_the_labels_of_the_cpu() {
    let (device, _guard) = device();
    for precision in Format::WEIGHTS {
        for shape in SHAPES {
            let (labels, dim, batch) = shape;
            let mut case = case(precision, Format::E4m3, shape, None);
            // Repeated rows make ties.
            let row_words = precision.row_words(dim);
            for label in (10..labels).step_by(10) {
                let (before, row) = case.words.split_at_mut(label * row_words);
                row[..row_words].copy_from_slice(&before[..row_words]);
            }
            let logits = case.exact(Format::F32).logits;
            for (k, chunk) in [(1, labels), (5, 50), (100, 33)] {
                let search =
                    Search { operands: case.step.operands, chunk: Some(chunk), k, kernels: KernelPath::default() };
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
                    assert!(at % k == 0 || scores[at - 1] > scores[at] || found[at - 1] < *label, "order");
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
    let search = Search { operands: Format::Bf16, chunk: Some(64), k: 7, kernels: KernelPath::default() };
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
        let segment = Segment { first_label: whole.segment.first_label + first, labels, ..whole.segment };
        let words = words_tensor(words, &device);
        best = classifier_search(segment, search, words, x.clone(), best.0, best.1);
    }
    assert_eq!(values::<f32>(best.0.into_data()), scores);
    assert_eq!(values::<i32>(best.1.into_data()), labels);
}
