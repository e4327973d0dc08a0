//! The attention against the formulas in F64.

use burn::tensor::DType;
use burn_cubecl::{CubeDevice, tensor::CubeTensor};

use super::*;
use crate::{
    encoder::texts::PackedTexts,
    gpu::{
        memory::{empty, upload},
        testing::{device, dtypes, noise, tensor, values},
    },
};

#[derive(Clone, Copy, Debug)]
struct Case {
    lengths: &'static [usize],
    heads: usize,
    width: usize,
    dropout: f64,
}

/// A matrix by rows.
type Matrix = Vec<Vec<f64>>;

/// What a case computes with, in F64.
struct Problem {
    case: Case,
    qkv: Matrix,
    gradient: Matrix,
    dropout: Dropout,
    /// To what the results, the probabilities and their gradients are rounded.
    round: fn(f64) -> f64,
}

/// `[rows, dim]` and `[rows, 3 dim]`
struct Results {
    context: Matrix,
    qkv_gradient: Matrix,
}

fn exact(x: f64) -> f64 {
    x
}

fn to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}

fn to_f16(x: f64) -> f64 {
    half::f16::from_f64(x).to_f64()
}

fn to_bf16(x: f64) -> f64 {
    half::bf16::from_f64(x).to_f64()
}

fn rounding(dtype: DType) -> fn(f64) -> f64 {
    match dtype {
        DType::F16 => to_f16,
        DType::BF16 => to_bf16,
        _ => to_f32,
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

impl Problem {
    fn results(&self) -> Results {
        let Case { lengths, heads, width, .. } = self.case;
        let dim = heads * width;
        let rows = self.gradient.len();
        let mut context = vec![vec![0.0; dim]; rows];
        let mut qkv_gradient = vec![vec![0.0; 3 * dim]; rows];
        let scale = 1.0 / (width as f64).sqrt();
        let mut start = 0;
        for (text, length) in lengths.iter().copied().enumerate() {
            for head in 0..heads {
                let dropout = self.dropout.probabilities(text, head, heads);
                let columns = |part: usize| part * dim + head * width..part * dim + (head + 1) * width;
                for query in 0..length {
                    let q = &self.qkv[start + query][columns(0)];
                    let by_result = &self.gradient[start + query][columns(0)];
                    let mut p: Vec<f64> =
                        (0..length).map(|key| scale * dot(q, &self.qkv[start + key][columns(1)])).collect();
                    let largest = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    p.iter_mut().for_each(|p| *p = (*p - largest).exp());
                    let sum: f64 = p.iter().sum();
                    p.iter_mut().for_each(|p| *p /= sum);
                    let factors: Vec<f64> = (0..length).map(|key| f64::from(dropout.factor(query, key))).collect();
                    let by_p: Vec<f64> = (0..length)
                        .map(|key| factors[key] * dot(by_result, &self.qkv[start + key][columns(2)]))
                        .collect();
                    let mean = dot(&p, &by_p);
                    for key in 0..length {
                        let dropped = (self.round)(p[key] * factors[key]);
                        let by_score = (self.round)(p[key] * (by_p[key] - mean)) * scale;
                        let of_key = &self.qkv[start + key];
                        add(&mut context[start + query][columns(0)], dropped, &of_key[columns(2)]);
                        add(&mut qkv_gradient[start + query][columns(0)], by_score, &of_key[columns(1)]);
                        add(&mut qkv_gradient[start + key][columns(1)], by_score, q);
                        add(&mut qkv_gradient[start + key][columns(2)], dropped, by_result);
                    }
                }
            }
            start += length;
        }
        for row in context.iter_mut().chain(&mut qkv_gradient) {
            row.iter_mut().for_each(|x| *x = (self.round)(*x));
        }
        Results { context, qkv_gradient }
    }

    fn loss(&self) -> f64 {
        self.results().context.iter().zip(&self.gradient).map(|(context, gradient)| dot(context, gradient)).sum()
    }
}

fn matrix(numbers: &[f32], columns: usize) -> Matrix {
    numbers.chunks(columns).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
}

fn packed(lengths: &[usize]) -> PackedTexts {
    PackedTexts::new(&lengths.iter().map(|length| vec![1; *length]).collect::<Vec<_>>())
}

/// What must not be read, or not be left: rows that kernels have to write.
fn poison(shape: [usize; 2], dtype: DType, device: &CubeDevice) -> CubeTensor {
    tensor(&vec![f32::NAN; shape[0] * shape[1]], shape, dtype, device)
}

/// A case on the device.
struct OnDevice {
    packed: PackedTexts,
    words: CubeTensor,
    qkv: CubeTensor,
    gradient: CubeTensor,
    dropout: Dropout,
    case: Case,
}

impl OnDevice {
    fn new(case: Case, dtype: DType, device: &CubeDevice) -> Self {
        let packed = packed(case.lengths);
        let (rows, dim) = (packed.layout.rows(), case.heads * case.width);
        let numbers: Vec<f32> = noise(3 * rows * dim, 1).iter().map(|x| 2.0 * x).collect();
        let qkv = tensor(&numbers, [rows, 3 * dim], dtype, device);
        let gradient = tensor(&noise(rows * dim, 2), [rows, dim], dtype, device);
        let words = upload(&qkv, &packed.words, DType::U32);
        Self { packed, words, qkv, gradient, dropout: Dropout::new(5, 3, case.dropout), case }
    }

    fn attention(&self, most: KernelPath) -> Attention<'_> {
        Attention {
            texts: self.packed.layout,
            words: &self.words,
            dim: self.case.heads * self.case.width,
            heads: self.case.heads,
            dropout: self.dropout,
            most,
        }
    }

    /// Forward alone, then results and gradients of the backward pass.
    fn run(&self, most: KernelPath, device: &CubeDevice) -> [Vec<f32>; 3] {
        let dtype = self.qkv.dtype;
        let (rows, dim) = (self.packed.layout.rows(), self.case.heads * self.case.width);
        let context = poison([rows, dim], dtype, device);
        let again = poison([rows, dim], dtype, device);
        let by_qkv = poison([rows, 3 * dim], dtype, device);
        let attention = self.attention(most);
        attention.forward(&self.qkv, &context);
        attention.backward(&self.qkv, &self.gradient, &by_qkv, &again);
        [values(context), values(again), values(by_qkv)]
    }

    fn problem(&self, round: fn(f64) -> f64) -> Problem {
        let dim = self.case.heads * self.case.width;
        let tokens = self.packed.layout.tokens;
        let mut qkv = matrix(&values(self.qkv.clone()), 3 * dim);
        let mut gradient = matrix(&values(self.gradient.clone()), dim);
        qkv.truncate(tokens);
        gradient.truncate(tokens);
        Problem { case: self.case, qkv, gradient, dropout: self.dropout, round }
    }
}

/// The largest difference.
fn error(a: &Matrix, b: &Matrix) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, |most, x| {
        assert!(!x.is_nan());
        most.max(x)
    })
}

fn check(case: Case) {
    let Some(device) = device() else { return };
    for dtype in dtypes(&device) {
        let on_device = OnDevice::new(case, dtype, &device);
        let dim = case.heads * case.width;
        let exact = on_device.problem(exact).results();
        let rounded = on_device.problem(rounding(dtype)).results();
        for most in [KernelPath::Portable, KernelPath::TensorCores] {
            let found = on_device.run(most, &device);
            assert!(found == on_device.run(most, &device), "{case:?} {dtype:?} {most}: other bits the second time");
            for (name, numbers, columns, exact, rounded) in [
                ("context", &found[0], dim, &exact.context, &rounded.context),
                ("context again", &found[1], dim, &exact.context, &rounded.context),
                ("gradient", &found[2], 3 * dim, &exact.qkv_gradient, &rounded.qkv_gradient),
            ] {
                let (tokens, tail) = numbers.split_at(exact.len() * columns);
                assert!(tail.iter().all(|x| *x == 0.0), "{case:?} {dtype:?} {most}: {name} without a token");
                let (error, allowed) = (error(&matrix(tokens, columns), exact), error(rounded, exact));
                assert!(
                    // Probabilities and their gradients are rounded once more than in the reference.
                    error <= 2.5 * allowed + 2e-5,
                    "{case:?} {dtype:?} {most}: error of {name} {error}, of a rounded reference {allowed}"
                );
            }
        }
    }
}

fn check_dropouts(lengths: &'static [usize], heads: usize, width: usize) {
    for dropout in [0.0, 0.1] {
        check(Case { lengths, heads, width, dropout });
    }
}

#[test]
fn gradients_of_the_reference_are_those_of_its_loss() {
    let case = Case { lengths: &[3, 0, 5], heads: 2, width: 3, dropout: 0.3 };
    let (rows, dim) = (8, 6);
    let mut problem = Problem {
        case,
        qkv: matrix(&noise(rows * 3 * dim, 1), 3 * dim),
        gradient: matrix(&noise(rows * dim, 2), dim),
        dropout: Dropout::new(1, 2, case.dropout),
        round: exact,
    };
    let found = problem.results().qkv_gradient;
    for (row, found) in found.iter().enumerate() {
        for (column, found) in found.iter().enumerate() {
            let x = problem.qkv[row][column];
            problem.qkv[row][column] = x + 1e-5;
            let above = problem.loss();
            problem.qkv[row][column] = x - 1e-5;
            let below = problem.loss();
            problem.qkv[row][column] = x;
            let slope = (above - below) / 2e-5;
            assert!((slope - found).abs() < 1e-8, "{row} {column}: {slope}, {found}");
        }
    }
}

#[test]
fn short_texts() {
    check_dropouts(&[5, 0, 16, 1], 2, 64);
    check_dropouts(&[17, 0, 1, 15, 16, 32, 31], 5, 32);
    check_dropouts(&[17, 32, 1, 0], 4, 64);
}

#[test]
fn longer_texts() {
    check_dropouts(&[33, 0, 1, 17, 64], 3, 32);
    check_dropouts(&[128, 31, 0, 100], 2, 64);
    check_dropouts(&[33, 127], 1, 128);
}

#[test]
fn long_texts() {
    check_dropouts(&[255, 1, 0, 15, 128], 1, 32);
    check_dropouts(&[200, 256], 1, 64);
}

#[test]
fn texts_of_any_length_and_heads_of_any_width() {
    check_dropouts(&[512, 31, 0, 255], 1, 8);
    check_dropouts(&[257, 3], 1, 64);
    check_dropouts(&[7, 66], 3, 1);
    check_dropouts(&[70, 2], 1, 77);
    check_dropouts(&[40], 1, 256);
}

#[test]
fn no_token_is_a_batch_too() {
    check_dropouts(&[], 2, 64);
    check_dropouts(&[0, 0], 2, 32);
}

/// Scores far apart and far from zero leave no infinity and no NaN.
#[test]
fn large_scores_are_finite() {
    let Some(device) = device() else { return };
    let case = Case { lengths: &[30, 3, 70], heads: 2, width: 64, dropout: 0.1 };
    for dtype in dtypes(&device) {
        let mut on_device = OnDevice::new(case, dtype, &device);
        let numbers: Vec<f32> = noise(128 * 3 * 128, 1).iter().map(|x| 60.0 * x).collect();
        on_device.qkv = tensor(&numbers, [128, 3 * 128], dtype, &device);
        for most in [KernelPath::Portable, KernelPath::TensorCores] {
            for numbers in on_device.run(most, &device) {
                assert!(numbers.iter().all(|x| x.is_finite()), "{dtype:?} {most}");
            }
        }
    }
}

/// Launches every variant, so that each gets compiled; nobody looks at the results.
#[test]
fn variants_compile() {
    let Some(device) = device() else { return };
    for dtype in dtypes(&device) {
        for width in [32, 64, 128] {
            for length in [16, 32, 64, 128, 256] {
                for dropout in [0.0, 0.1] {
                    let case = Case { lengths: &[1], heads: 1, width, dropout };
                    let mut on_device = OnDevice::new(case, dtype, &device);
                    on_device.packed.layout.longest = length;
                    let context = empty(&on_device.qkv, 128 * width, dtype);
                    let by_qkv = empty(&on_device.qkv, 3 * 128 * width, dtype);
                    let attention = on_device.attention(KernelPath::TensorCores);
                    attention.forward(&on_device.qkv, &context);
                    attention.backward(&on_device.qkv, &on_device.gradient, &by_qkv, &context);
                    cubecl::future::block_on(context.client.sync()).expect("the kernels compile");
                }
            }
        }
    }
}
