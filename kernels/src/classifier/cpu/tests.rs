use super::*;
use crate::{
    classifier::{
        init::{Initializer, initial_words},
        layout::{Compensation, Precision, stored},
        problem::{Head, Search},
        reference,
    },
    numbers::random,
};

struct Case {
    segment: Segment,
    step: Step,
    words: Vec<u32>,
    compensation: Vec<u32>,
    x: Vec<f32>,
    positives: Positives,
}

/// Random numbers in [-1, 1) that depend on `at` alone.
fn noise(at: usize) -> f32 {
    random::hash(at as u32 ^ 0x5eed) as f32 / 2_147_483_648.0 - 1.0
}

fn case(precision: Precision, labels: usize, dim: usize, batch: usize, head: Option<Head>) -> Case {
    let segment = Segment {
        first_label: 1000,
        labels,
        dim,
        precision,
        head,
    };
    let operands = match precision {
        Precision::E4m3 => Operands::E4m3,
        Precision::Bf16 => Operands::Bf16,
        Precision::F32 => Operands::F32,
    };
    let pair = |i: usize| {
        let label = 1000 + (i * 7919) % labels.max(1);
        (label as u32, ((i * 31) % batch) as u32)
    };
    Case {
        step: Step {
            operands,
            chunk: labels.max(1),
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
    }
}

fn run(case: &Case, chunk: usize) -> (Report, Vec<u32>, Vec<u32>, Vec<f32>) {
    let step = Step { chunk, ..case.step };
    let (mut words, mut held) = (case.words.clone(), case.compensation.clone());
    let mut gradient = vec![0.0; case.x.len()];
    let report = super::step(
        &case.segment,
        &step,
        &mut words,
        &mut held,
        &case.x,
        &case.positives,
        &mut gradient,
    );
    (report, words, held, gradient)
}

const SHAPES: [(usize, usize, usize); 6] = [
    (252, 123, 7),
    (507, 48, 33),
    (123, 252, 64),
    (1, 1, 1),
    (40, 17, 1),
    (5, 768, 130),
];

/// The rule for low precision: an error against F64 no larger than that of a plain F32 sum, plus a tolerance.
#[test]
fn agrees_with_f64_on_odd_shapes_in_every_precision() {
    for precision in [Precision::E4m3, Precision::Bf16, Precision::F32] {
        for (labels, dim, batch) in SHAPES {
            let case = case(precision, labels, dim, batch, None);
            let exact = reference::step(&case.segment, &case.step, &case.words, &[], &case.x, &case.positives);
            let (report, words, _, gradient) = run(&case, 100);
            assert!((report.loss / exact.loss - 1.0).abs() < 1e-5);
            for (found, exact) in gradient.iter().zip(&exact.input_gradient) {
                let scale = (labels as f64).sqrt() * 0.2;
                assert!((*found as f64 - exact).abs() < 1e-5 * scale.max(1.0));
            }
            // The stored weight is what the exact value rounds to, or its neighbour where F32 sums moved it over.
            let new = case.segment.decode(&words);
            let key = case.step.rounding_key;
            let mut differ = 0;
            for (i, (new, exact)) in new.iter().zip(&exact.before_rounding).enumerate() {
                let label = case.segment.first_label + (i / dim) as u64;
                let expected = stored(precision, *exact as f32, key, label, i % dim);
                let gap = match precision {
                    Precision::E4m3 => (exact.abs() / 8.0).max(1.0 / 512.0),
                    Precision::Bf16 => exact.abs() / 128.0 + 1e-6,
                    Precision::F32 => 1e-6,
                };
                assert!((new - expected).abs() as f64 <= gap * 1.01, "{new} {expected}");
                differ += usize::from(*new != expected);
            }
            if precision != Precision::F32 {
                assert!(differ <= 2 + labels * dim / 500, "{differ} of {}", labels * dim);
            }
        }
    }
}

#[test]
fn nothing_depends_on_the_chunk_size_or_the_threads() {
    let head = Head {
        labels: 1100,
        compensation: Compensation::Bf16,
    };
    for precision in [Precision::E4m3, Precision::Bf16, Precision::F32] {
        let case = case(precision, 507, 123, 33, Some(head));
        let expected = run(&case, 507);
        for chunk in [1, 6, 7, 64, 100, 506, 10_000] {
            assert_eq!(run(&case, chunk), expected, "{precision:?}, chunk {chunk}");
        }
        for threads in [1, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().expect("a thread pool");
            assert_eq!(pool.install(|| run(&case, 64)), expected, "{threads} threads");
        }
    }
}

#[test]
fn two_segments_are_one() {
    let whole = case(Precision::E4m3, 300, 40, 16, None);
    let (report, words, _, gradient) = run(&whole, 64);
    let row_words = whole.segment.precision.row_words(40);
    let mut gradient_of_both = vec![0.0; whole.x.len()];
    let mut parts = whole.words.clone();
    let (low, high) = parts.split_at_mut(130 * row_words);
    let mut loss = 0.0;
    for (first, labels, words) in [(0, 130, low), (130, 170, high)] {
        let segment = Segment {
            first_label: whole.segment.first_label + first,
            labels,
            ..whole.segment
        };
        let step = Step {
            chunk: 64,
            ..whole.step
        };
        loss += super::step(
            &segment,
            &step,
            words,
            &mut [],
            &whole.x,
            &whole.positives,
            &mut gradient_of_both,
        )
        .loss;
    }
    assert_eq!((parts, gradient_of_both), (words, gradient));
    assert!((loss - report.loss).abs() < 1e-9 * loss);
}

#[test]
fn compensation_keeps_what_rounding_takes() {
    for compensation in [Compensation::Bf16, Compensation::E5m2] {
        let head = Head {
            labels: 1050,
            compensation,
        };
        let case = case(Precision::E4m3, 120, 30, 9, Some(head));
        let (_, words, held, _) = run(&case, 37);
        let exact = reference::step(
            &case.segment,
            &case.step,
            &case.words,
            &case.compensation,
            &case.x,
            &case.positives,
        );
        let new = case.segment.decode(&words);
        let held = case.segment.decode_compensation(&held);
        assert_eq!(held.len(), 50 * 30);
        for ((c, new), exact) in held.iter().zip(&new).zip(&exact.before_rounding) {
            // w_new + c_new = w + c - lr g, up to the compensation's own rounding.
            let error = (*new as f64 + *c as f64 - exact).abs();
            let unit = match compensation {
                Compensation::Bf16 => c.abs() as f64 / 256.0,
                Compensation::E5m2 => c.abs() as f64 / 8.0 + 8e-6,
            };
            assert!(error <= unit + 1e-6, "{compensation:?} {error}");
        }
    }
}

/// Two hundred steps of a hundredth of a code each: a compensated weight arrives, not only on average.
#[test]
fn compensated_weights_follow_the_exact_sum() {
    let head = Head {
        labels: 2000,
        compensation: Compensation::Bf16,
    };
    let mut case = case(Precision::E4m3, 8, 16, 1, Some(head));
    case.positives = Positives::default();
    let start = case.segment.decode(&case.words);
    let mut exact: Vec<f64> = start.iter().map(|w| *w as f64).collect();
    for n in 0..200 {
        case.step = Step {
            learning_rate: 1e-4,
            weight_decay: 0.0,
            rounding_key: Step::rounding_key(1, n),
            ..case.step
        };
        let outcome = reference::step(
            &case.segment,
            &case.step,
            &case.words,
            &case.compensation,
            &case.x,
            &case.positives,
        );
        for (exact, g) in exact.iter_mut().zip(&outcome.weight_gradient) {
            *exact -= 1e-4 * g;
        }
        (_, case.words, case.compensation, _) = run(&case, 8);
    }
    let weights = case.segment.decode(&case.words);
    let held = case.segment.decode_compensation(&case.compensation);
    for ((w, c), exact) in weights.iter().zip(&held).zip(&exact) {
        assert!((*w as f64 + *c as f64 - exact).abs() < 2e-3, "{w} {c} {exact}");
    }
}

#[test]
fn broken_input_is_counted_and_never_stored() {
    for precision in [Precision::E4m3, Precision::Bf16, Precision::F32] {
        for broken in [f32::NAN, f32::INFINITY] {
            let mut case = case(precision, 50, 20, 4, None);
            case.x[27] = broken;
            let (report, words, _, _) = run(&case, 16);
            // One broken embedding makes the logit of its row, hence every weight gradient, not a number.
            assert!(report.non_finite > 0);
            let new = case.segment.decode(&words);
            assert!(new.iter().all(|w| w.is_finite()));
        }
        let mut case = case(precision, 50, 20, 4, None);
        case.x.fill(f32::NAN);
        let (report, words, _, _) = run(&case, 16);
        assert_eq!(report.non_finite, 50 * 20);
        assert_eq!(words, case.words);
    }
}

#[test]
fn labels_without_positives_and_an_empty_batch_are_fine() {
    let mut case = case(Precision::E4m3, 33, 9, 5, None);
    case.positives = Positives::default();
    let (report, words, _, _) = run(&case, 10);
    assert!(report.loss > 0.0 && words != case.words);
    case.x.clear();
    let (report, words, _, gradient) = run(&case, 10);
    assert_eq!((report, words, gradient), (Report::default(), case.words, vec![]));
}

#[test]
fn search_finds_the_best_labels_with_ties_to_the_lower() {
    for (labels, dim, batch) in SHAPES {
        let mut case = case(Precision::E4m3, labels, dim, batch, None);
        // Repeated rows make ties.
        let row_words = case.segment.precision.row_words(dim);
        for label in (10..labels).step_by(10) {
            let (before, row) = case.words.split_at_mut(label * row_words);
            row[..row_words].copy_from_slice(&before[..row_words]);
        }
        let outcome = reference::step(&case.segment, &case.step, &case.words, &[], &case.x, &case.positives);
        for k in [1, 5, 100] {
            let expected = reference::top_k(&case.segment, &outcome.logits, batch, k);
            for chunk in [1, 50, labels] {
                let search = Search {
                    operands: case.step.operands,
                    chunk,
                    k,
                };
                let mut best = Best::new(batch, k);
                super::search(&case.segment, &search, &case.words, &case.x, &mut best);
                for (b, expected) in expected.iter().enumerate() {
                    let scores = &best.scores[b * k..][..k];
                    for (found, expected) in scores.iter().zip(expected) {
                        assert!((*found as f64 - expected.0).abs() < 1e-5);
                    }
                    let found = &best.labels[b * k..][..k];
                    assert!(found[expected.len()..].iter().all(|l| *l == Best::NO_LABEL));
                    // Equal scores stand in the order of their labels.
                    for at in 1..expected.len() {
                        assert!(scores[at - 1] > scores[at] || found[at - 1] < found[at]);
                    }
                }
            }
        }
    }
}
