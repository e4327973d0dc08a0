//! The classifier on the CPU against the truth in F64.

mod support;

use elmo_kernels::{
    Format, Head, KernelPath, Positives, Search, Segment, Step,
    cpu::{self, Best},
    reference,
};
use support::{
    Case, Outcome, SHAPES, WeightRule, assert_as_good_as_plain, assert_weights_as_good_as_plain, furthest, plain,
};

/// A case whose operands have the precision of the weights.
fn case(precision: Format, labels: usize, dim: usize, batch: usize, head: Option<Head>) -> Case {
    support::case(precision, precision, (labels, dim, batch), head)
}

fn run(case: &Case, chunk: usize) -> Outcome {
    let mut case = case.clone();
    case.step.chunk = Some(chunk);
    case.on_cpu()
}

#[test]
fn the_error_is_that_of_a_plain_computation_on_odd_shapes_in_every_precision() {
    for precision in Format::WEIGHTS {
        for operands in Format::WEIGHTS {
            // The last shapes are beyond the tiles of a GPU, not of a CPU.
            for shape in SHAPES.into_iter().take(6) {
                let name = format!("{precision} {operands} {shape:?}");
                let case = support::case(precision, operands, shape, None);
                let (exact, plain) = (case.exact(Format::F32), plain(&case, Format::F32));
                let found = run(&case, 100);
                // Losses are summed in F64: they differ by the logits' errors alone.
                let error = |loss: f64| (loss - exact.loss).abs();
                assert_as_good_as_plain(&name, error(found.loss), error(plain.loss), exact.loss, 2.0);
                let largest = exact.input_gradient.iter().fold(0.0f64, |most, g| most.max(g.abs()));
                assert_as_good_as_plain(
                    &name,
                    furthest(found.gradient, &exact.input_gradient),
                    furthest(plain.input_gradient.iter().copied(), &exact.input_gradient),
                    largest,
                    2.0,
                );
                let new = case.segment.decode(&found.words);
                let rule = WeightRule { exact: &exact, plain: &plain, share: 0.0, room: 0.0 };
                assert_weights_as_good_as_plain(&name, &case, &new, rule);
            }
        }
    }
}

#[test]
fn nothing_depends_on_the_chunk_size_or_the_threads() {
    let head = Head { labels: 1100, compensation: Format::Bf16 };
    for precision in Format::WEIGHTS {
        let case = case(precision, 507, 123, 33, Some(head));
        let expected = run(&case, 507);
        for chunk in [1, 6, 7, 64, 100, 506, 10_000] {
            assert_eq!(run(&case, chunk), expected, "{precision}, chunk {chunk}");
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
    let whole = case(Format::E4m3, 300, 40, 16, None);
    let expected = run(&whole, 64);
    let row_words = whole.segment.precision.row_words(40);
    let mut gradient_of_both = vec![0.0; whole.x.len()];
    let mut parts = whole.words.clone();
    let (low, high) = parts.split_at_mut(130 * row_words);
    let mut loss = 0.0;
    for (first, labels, words) in [(0, 130, low), (130, 170, high)] {
        let segment = Segment { first_label: whole.segment.first_label + first, labels, ..whole.segment };
        let step = Step { chunk: Some(64), ..whole.step };
        loss += cpu::step(&segment, &step, words, &mut [], &whole.x, &whole.positives, &mut gradient_of_both).loss;
    }
    assert_eq!((parts, gradient_of_both), (expected.words, expected.gradient));
    assert!((loss - expected.loss).abs() < 1e-9 * loss);
}

#[test]
fn compensation_keeps_what_rounding_takes() {
    for compensation in [Format::Bf16, Format::E5m2] {
        let head = Head { labels: 1050, compensation };
        let case = case(Format::E4m3, 120, 30, 9, Some(head));
        let found = run(&case, 37);
        let exact = case.exact(Format::F32);
        let new = case.segment.decode(&found.words);
        let lost = case.segment.decode_compensation(&found.compensation);
        assert_eq!(lost.len(), 50 * 30);
        for ((c, new), exact) in lost.iter().zip(&new).zip(&exact.before_rounding) {
            // w_new + c_new = w + c - lr g, up to the compensation's own rounding.
            let error = (*new as f64 + *c as f64 - exact).abs();
            let unit = match compensation {
                Format::Bf16 => c.abs() as f64 / 256.0,
                _ => c.abs() as f64 / 8.0 + 8e-6,
            };
            assert!(error <= unit + 1e-6, "{compensation} {error}");
        }
    }
}

/// Two hundred steps of a hundredth of a code each: a compensated weight arrives, not only on average.
#[test]
fn compensated_weights_follow_the_exact_sum() {
    let head = Head { labels: 2000, compensation: Format::Bf16 };
    let mut case = case(Format::E4m3, 8, 16, 1, Some(head));
    case.positives = Positives::default();
    let start = case.segment.decode(&case.words);
    let mut exact: Vec<f64> = start.iter().map(|w| *w as f64).collect();
    for n in 0..200 {
        case.step =
            Step { learning_rate: 1e-4, weight_decay: 0.0, rounding_key: Step::rounding_key(1, n), ..case.step };
        let outcome = case.exact(Format::F32);
        for (exact, g) in exact.iter_mut().zip(&outcome.weight_gradient) {
            *exact -= 1e-4 * g;
        }
        let found = run(&case, 8);
        (case.words, case.compensation) = (found.words, found.compensation);
    }
    let weights = case.segment.decode(&case.words);
    let lost = case.segment.decode_compensation(&case.compensation);
    for ((w, c), exact) in weights.iter().zip(&lost).zip(&exact) {
        assert!((*w as f64 + *c as f64 - exact).abs() < 2e-3, "{w} {c} {exact}");
    }
}

#[test]
fn broken_input_is_counted_and_never_stored() {
    for precision in Format::WEIGHTS {
        for broken in [f32::NAN, f32::INFINITY] {
            let mut case = case(precision, 50, 20, 4, None);
            case.x[27] = broken;
            let found = run(&case, 16);
            // One broken embedding makes the logit of its row, hence every weight gradient, not a number.
            assert!(found.non_finite > 0);
            let new = case.segment.decode(&found.words);
            assert!(new.iter().all(|w| w.is_finite()));
        }
        let mut case = case(precision, 50, 20, 4, None);
        case.x.fill(f32::NAN);
        let found = run(&case, 16);
        assert_eq!(found.non_finite, 50 * 20);
        assert_eq!(found.words, case.words);
    }
}

#[test]
fn labels_without_positives_and_an_empty_batch_are_fine() {
    let mut case = case(Format::E4m3, 33, 9, 5, None);
    case.positives = Positives::default();
    let found = run(&case, 10);
    assert!(found.loss > 0.0 && found.words != case.words);
    case.x.clear();
    let found = run(&case, 10);
    assert_eq!((found.loss, found.non_finite), (0.0, 0));
    assert_eq!((found.words, found.gradient), (case.words, vec![]));
}

#[test]
#[should_panic(expected = "row 4 in a batch of 4 rows")]
fn a_positive_beyond_the_batch_is_refused() {
    let mut case = case(Format::E4m3, 33, 9, 4, None);
    case.positives = Positives::new(vec![(1001, 4)]);
    run(&case, 10);
}

#[test]
fn search_finds_the_best_labels_with_ties_to_the_lower() {
    for (labels, dim, batch) in SHAPES {
        let mut case = case(Format::E4m3, labels, dim, batch, None);
        // Repeated rows make ties.
        let row_words = case.segment.precision.row_words(dim);
        for label in (10..labels).step_by(10) {
            let (before, row) = case.words.split_at_mut(label * row_words);
            row[..row_words].copy_from_slice(&before[..row_words]);
        }
        let outcome = case.exact(Format::F32);
        for k in [1, 5, 100] {
            let expected = reference::top_k(&case.segment, &outcome.logits, batch, k);
            for chunk in [1, 50, labels] {
                let search =
                    Search { operands: case.step.operands, chunk: Some(chunk), k, kernels: KernelPath::default() };
                let mut best = Best::new(batch, k);
                cpu::search(&case.segment, &search, &case.words, &case.x, &mut best);
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
