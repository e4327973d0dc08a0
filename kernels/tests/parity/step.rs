//! A step has the error of a plain computation in the same precision, whatever the shape, the format and the path.

use burn::tensor::Device;
use elmo_kernels::{Format, Head, Positives, Segment, Step};

use crate::{
    device::{device, multiplied, on_device, paths, sums_fewer_bits},
    support::{
        Case, Outcome, SHAPES, WeightRule, assert_as_good_as_plain, assert_weights_as_good_as_plain, case, furthest,
        gap, plain,
    },
};

/// The rule of [`support`](crate::support) for all that a step gives.
fn assert_good(case: &Case, found: &Outcome) {
    let name = format!("{} {} {} {:?}", case.segment.precision, case.step.operands, case.step.kernels, case.segment);
    let Segment { precision, .. } = case.segment;
    let multiplied = multiplied(case);
    let (exact, plain) = (case.exact(multiplied), plain(case, multiplied));

    // Losses are summed in F32, from exponentials that a device approximates.
    let share = if sums_fewer_bits(case) { 1e-4 } else { 1e-5 };
    let error = |loss: f64| (loss - exact.loss).abs();
    assert!(error(found.loss) <= error(plain.loss) + share * exact.loss, "{name}: loss {} {}", found.loss, exact.loss);
    let non_finite = exact.before_rounding.iter().filter(|value| !value.is_finite()).count();
    assert_eq!(found.non_finite, non_finite as u64, "{name}");

    // A gradient near the middle between two 16-bit numbers may be rounded to either: they are so far apart. The
    // instruction that sums E4M3 products keeps fewer bits than F32 has, so logits are off by more, and gradients too.
    let neighbour = match multiplied {
        Format::F16 if sums_fewer_bits(case) => 2.0f32.powi(-9),
        Format::F16 => 2.0f32.powi(-11),
        Format::Bf16 => 2.0f32.powi(-8),
        _ => 0.0,
    };
    let largest = exact.input_gradient.iter().fold(0.0f64, |most, g| most.max(g.abs()));
    assert_as_good_as_plain(
        &format!("{name}: dX"),
        furthest(found.gradient.iter().copied(), &exact.input_gradient),
        furthest(plain.input_gradient.iter().copied(), &exact.input_gradient) + f64::from(0.5 * neighbour),
        largest,
        4.0,
    );

    let new = case.segment.decode(&found.words);
    // By so much a neighbouring gradient moves the weights of its label.
    let room = case.step.learning_rate * neighbour;
    let rule = WeightRule {
        exact: &exact,
        plain: &plain,
        // Of a BF16 gradient the neighbour is so far off that it shows in several weights of the label.
        share: if sums_fewer_bits(case) || multiplied == Format::Bf16 { 0.01 } else { 0.002 },
        room,
    };
    if found.non_finite == 0 {
        assert_weights_as_good_as_plain(&name, case, &new, rule);
    }

    // What is stored and what rounding took sum up to the exact value.
    let lost = case.segment.decode_compensation(&found.compensation);
    for ((c, new), exact) in lost.iter().zip(&new).zip(&exact.before_rounding) {
        let unit = match case.segment.head.map(|head| head.compensation) {
            Some(Format::E5m2) => c.abs() / 8.0 + 1e-5,
            _ => c.abs() / 128.0 + 1e-6,
        };
        let error = (f64::from(*new) + f64::from(*c) - exact).abs();
        let largest = gap(Format::F32, *new) * 8.0;
        assert!(error <= f64::from(unit + room + largest), "{name}: C {c} in {precision}, exactly {exact}");
    }
}

#[test]
fn the_error_is_that_of_a_plain_computation_on_odd_shapes_in_every_precision() {
    let (device, _guard) = device();
    for precision in Format::WEIGHTS {
        for operands in Format::WEIGHTS {
            for shape in SHAPES {
                for path in paths() {
                    let mut case = case(precision, operands, shape, None);
                    case.step.kernels = *path;
                    assert_good(&case, &on_device(&case, &device));
                }
            }
        }
    }
}

#[test]
fn compensation_keeps_what_rounding_takes() {
    let (device, _guard) = device();
    for compensation in [Format::Bf16, Format::E5m2] {
        // The head ends inside a chunk and inside a tile.
        let head = Head { labels: 1130, compensation };
        for (precision, path) in [Format::E4m3, Format::Bf16]
            .into_iter()
            .flat_map(|precision| paths().iter().map(move |path| (precision, *path)))
        {
            let mut case = case(precision, Format::Bf16, (252, 123, 7), Some(head));
            case.step.kernels = path;
            for step in 0..3 {
                case.step.rounding_key = Step::rounding_key(1, step);
                assert_good(&case, &on_device(&case, &device));
                let next = case.on_cpu();
                (case.words, case.compensation) = (next.words, next.compensation);
            }
        }
    }
}

#[test]
fn nothing_depends_on_the_chunk_size_or_the_run() {
    let (device, _guard) = device();
    let head = Head { labels: 1100, compensation: Format::Bf16 };
    for precision in Format::WEIGHTS {
        for path in paths() {
            let mut case = case(precision, Format::Bf16, (1300, 123, 33), Some(head));
            case.step.kernels = *path;
            let expected = on_device(&case, &device);
            for chunk in [7, 256, 300, 1299, 1_000_000] {
                case.step.chunk = Some(chunk);
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
                on_the_cpu.words = on_the_cpu.on_cpu().words;
            }
            let expected = case.segment.decode(&on_the_cpu.words);
            for path in paths() {
                case.step.kernels = *path;
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
        let (found, expected) = (on_device(&case, &device), case.exact(multiplied(&case)));
        assert!((found.loss / expected.loss - 1.0).abs() < 1e-5, "{scale}: {} {}", found.loss, expected.loss);
    }
}

#[test]
fn an_empty_batch_and_labels_without_positives_are_fine() {
    let (device, _guard) = device();
    let mut case = case(Format::E4m3, Format::Bf16, (33, 9, 5), None);
    case.positives = Positives::default();
    assert_good(&case, &on_device(&case, &device));
    case.x.clear();
    let found = on_device(&case, &device);
    assert_eq!((found.loss, found.non_finite), (0.0, 0));
    assert_eq!(found.words, case.words);
}
