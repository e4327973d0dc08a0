//! Golden values from other implementations: `fp8_codes.json` from ml_dtypes, `step.json` from NumPy in F64.

use elmo_kernels::{Format, KernelPath, Positives, Segment, Step, cpu, numbers::codes, reference};
use serde::Deserialize;

#[derive(Deserialize)]
struct Codes {
    e4m3fn: Vec<Option<f32>>,
    e5m2: Vec<Option<f64>>,
    rne_e4m3fn: Rounded,
}

#[derive(Deserialize)]
struct Rounded {
    x: Vec<f32>,
    code: Vec<u8>,
}

#[derive(Deserialize)]
struct Steps {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Case {
    L: usize,
    D: usize,
    lr: f32,
    positives_row_label: Vec<(u32, u32)>,
    weight_codes: Vec<Vec<u8>>,
    x_bf16_bits: Vec<Vec<i32>>,
    simulated_fp8: Expected,
    fp8_logits: Expected,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    logits: Vec<Vec<f64>>,
    grad_input: Vec<Vec<f64>>,
    grad_weight: Vec<Vec<f64>>,
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the fixture is part of the repository");
    serde_json::from_str(&text).expect("the fixture is valid")
}

#[test]
fn all_codes_decode_as_ml_dtypes_does() {
    let codes: Codes = read("fp8_codes.json");
    for (code, expected) in codes.e4m3fn.iter().enumerate() {
        let value = codes::e4m3_to_f32(code as u8);
        match expected {
            Some(expected) => assert_eq!(value.to_bits(), expected.to_bits(), "{code:#x}"),
            None => assert!(value.is_nan()),
        }
    }
    for (code, expected) in codes.e5m2.iter().enumerate() {
        let value = codes::e5m2_to_f32(code as u8) as f64;
        match expected {
            Some(expected) => assert_eq!(value, *expected, "{code:#x}"),
            None => assert!(!value.is_finite()),
        }
    }
    for (x, code) in codes.rne_e4m3fn.x.iter().zip(codes.rne_e4m3fn.code) {
        assert_eq!(codes::f32_to_e4m3(*x), code, "{x}");
    }
}

fn assert_close(what: &str, found: impl IntoIterator<Item = f64>, expected: &[Vec<f64>], tolerance: f64) {
    let expected: Vec<f64> = expected.iter().flatten().copied().collect();
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(&expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= tolerance * scale, "{what}: {worst:e} of {scale:e}");
}

fn transposed(rows: &[f64], width: usize) -> Vec<f64> {
    let height = rows.len() / width;
    (0..width * height).map(|i| rows[i % height * width + i / height]).collect()
}

#[test]
fn the_reference_and_the_cpu_reproduce_every_step() {
    let steps: Steps = read("step.json");
    assert_eq!(steps.cases.len(), 4);
    for case in &steps.cases {
        let segment = Segment { first_label: 0, labels: case.L, dim: case.D, precision: Format::E4m3, head: None };
        let row_words = segment.precision.row_words(case.D);
        let mut words = vec![0u32; segment.words()];
        for (row, codes) in words.chunks_mut(row_words).zip(&case.weight_codes) {
            for (column, code) in codes.iter().enumerate() {
                row[column / 4] |= (*code as u32) << (8 * (column % 4));
            }
        }
        let x: Vec<f32> = (case.x_bf16_bits.iter().flatten()).map(|bits| codes::bf16_to_f32(*bits as u16)).collect();
        let positives = Positives::new((case.positives_row_label.iter().map(|(row, label)| (*label, *row))).collect());
        for (operands, expected) in [(Format::Bf16, &case.simulated_fp8), (Format::E4m3, &case.fp8_logits)] {
            let step = Step {
                operands,
                chunk: Some(100),
                weight_bytes: 0,
                kernels: KernelPath::default(),
                learning_rate: case.lr,
                weight_decay: 0.0,
                rounding_key: Step::rounding_key(5, 1),
                loss: true,
            };
            // Both sides are F64: they differ by the fixture's 8 digits.
            let exact = reference::step(&segment, &step, &words, &[], &x, &positives);
            assert!((exact.loss / expected.loss - 1.0).abs() < 1e-7);
            let batch = x.len() / case.D;
            assert_close("logits", transposed(&exact.logits, batch), &expected.logits, 1e-7);
            assert_close("dX", exact.input_gradient.iter().copied(), &expected.grad_input, 1e-7);
            assert_close("dW", exact.weight_gradient, &expected.grad_weight, 1e-7);

            // F32 sums over at most a few thousand terms.
            let mut updated = words.clone();
            let mut gradient = vec![0.0; x.len()];
            let report = cpu::step(&segment, &step, &mut updated, &mut [], &x, &positives, &mut gradient);
            assert!((report.loss / expected.loss - 1.0).abs() < 1e-6);
            assert_eq!(report.non_finite, 0);
            assert_close("dX", gradient.iter().map(|v| *v as f64), &expected.grad_input, 2e-6);
            // Every new weight is one of the two neighbours of the exact value.
            let new = segment.decode(&updated);
            for (new, exact) in new.iter().zip(&exact.before_rounding) {
                let gap = (exact.abs() / 8.0).max(1.0 / 512.0);
                assert!((*new as f64 - exact).abs() <= gap * 1.001, "{new} {exact}");
            }
        }
    }
}
