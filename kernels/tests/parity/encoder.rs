//! The encoder's operations on the device against those on the CPU, with the same dropout.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, FloatDType, Int, Tensor, TensorData},
};
use elmo_kernels::{
    KernelPath,
    encoder::{
        self, Activation, Activations, Affine, Dropout, EmbeddingCall, EmbeddingWeights, LayerCall, LayerWeights,
        MeanCall, Norm, PackedTexts,
    },
};

use crate::{
    device::{device, paths},
    support::noise,
};

/// A small encoder of one layer.
#[derive(Clone)]
struct Case {
    lengths: Vec<usize>,
    dim: usize,
    heads: usize,
    wide: usize,
    activation: Activation,
    segments: bool,
    /// Probability of every dropout.
    dropout: f64,
    activations: Activations,
}

const IDS: usize = 37;
const OFFSET: usize = 2;

fn cases() -> Vec<Case> {
    let case = |lengths: &[usize], dim, heads, wide| Case {
        lengths: lengths.to_vec(),
        dim,
        heads,
        wide,
        activation: Activation::Gelu,
        segments: true,
        dropout: 0.0,
        activations: Activations::Balanced,
    };
    let dropped = |case: Case| Case { dropout: 0.2, ..case };
    vec![
        case(&[5, 0, 17, 1, 32, 16], 64, 2, 128),
        dropped(case(&[5, 0, 17, 1, 32, 16], 64, 2, 128)),
        dropped(Case { segments: false, activation: Activation::GeluTanh, ..case(&[130, 7, 33], 128, 2, 256) }),
        Case { activation: Activation::Relu, ..case(&[3; 50], 48, 3, 72) },
        case(&[1], 8, 1, 16),
        case(&[9, 4], 21, 3, 10),
        dropped(case(&[40; 9], 384, 12, 1536)),
        case(&[0, 0], 64, 2, 128),
    ]
}

/// Results and gradients, each with its name.
type Outcome = Vec<(String, Vec<f32>)>;

struct Parameters {
    dtype: DType,
    device: Device,
    /// Of the graph, with their names.
    tracked: Vec<(String, Tracked)>,
}

enum Tracked {
    Matrix(Tensor<2>),
    Vector(Tensor<1>),
}

impl Parameters {
    fn values(&self, name: &str, length: usize, scale: f32, around: f32) -> TensorData {
        let seed = name.bytes().fold(7usize, |seed, byte| (seed * 31 + byte as usize) % 100_000);
        let values: Vec<f32> = (0..length).map(|at| around + scale * noise(seed * 1000 + at)).collect();
        TensorData::new(values, [length])
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2], scale: f32) -> Tensor<2> {
        let data = self.values(name, shape[0] * shape[1], scale, 0.0);
        let data = TensorData::new(data.try_into_vec::<f32>().unwrap(), shape).convert_dtype(self.dtype);
        let tensor = Tensor::<2>::from_data(data, (&self.device, self.dtype)).require_grad();
        self.tracked.push((name.to_owned(), Tracked::Matrix(tensor.clone())));
        tensor
    }

    fn vector(&mut self, name: &str, length: usize, around: f32) -> Tensor<1> {
        let data = self.values(name, length, 0.5, around).convert_dtype(self.dtype);
        let tensor = Tensor::<1>::from_data(data, (&self.device, self.dtype)).require_grad();
        self.tracked.push((name.to_owned(), Tracked::Vector(tensor.clone())));
        tensor
    }

    fn affine(&mut self, name: &str, input: usize, output: usize) -> Affine<Dispatch> {
        let weight = self.matrix(&format!("{name}.weight"), [input, output], 1.7 / (input as f32).sqrt());
        Affine::new(weight, self.vector(&format!("{name}.bias"), output, 0.0))
    }

    fn norm(&mut self, name: &str, dim: usize) -> Norm<Dispatch> {
        let gamma = self.vector(&format!("{name}.gamma"), dim, 1.0);
        Norm::new(gamma, self.vector(&format!("{name}.beta"), dim, 0.0))
    }
}

/// Two layers on embeddings, and the mean: forward, and backward from a fixed gradient. Where `dtype` is not F32, numbers
/// begin as such of that type, also on the CPU.
fn run(case: &Case, device: &Device, dtype: DType, compute: DType, kernels: KernelPath) -> Outcome {
    let Case { dim, heads, wide, .. } = *case;
    let texts: Vec<Vec<u32>> = (case.lengths.iter().enumerate())
        .map(|(text, length)| (0..*length).map(|at| ((text * 13 + at * 7) % IDS) as u32).collect())
        .collect();
    let packed = PackedTexts::new(&texts);
    let layout = packed.layout;
    let words =
        Tensor::<1, Int>::from_data(TensorData::new(packed.words.clone(), [packed.words.len()]), (device, DType::U32));
    let rounded = |tensor: &TensorData| tensor.clone().convert_dtype(dtype).convert_dtype(compute);
    let mut parameters = Parameters { dtype: compute, device: device.clone().autodiff(), tracked: Vec::new() };
    let dropout = |site| Dropout::new(5, site, case.dropout);

    let positions = layout.longest.max(1) + OFFSET + 1;
    let word = parameters.matrix("word", [IDS, dim], 1.0);
    let position = parameters.matrix("position", [positions, dim], 1.0);
    let segment = case.segments.then(|| parameters.matrix("segment", [2, dim], 1.0));
    let norm = parameters.norm("embedding norm", dim);
    let weights = EmbeddingWeights::new(word, position, segment, norm);
    let call = EmbeddingCall {
        texts: layout,
        dim,
        position_offset: OFFSET,
        segments: case.segments,
        epsilon: 1e-5,
        dropout: dropout(0),
    };
    let mut hidden = encoder::embed(weights, words.clone(), call);
    let mut outcome = vec![("embeddings".to_owned(), floats(hidden.clone()))];
    for layer in 0..2 {
        let mut affine = |name: &str, input, output| parameters.affine(&format!("{layer} {name}"), input, output);
        let (query, key, value) = (affine("query", dim, dim), affine("key", dim, dim), affine("value", dim, dim));
        let (output, up, down) = (affine("output", dim, dim), affine("up", dim, wide), affine("down", wide, dim));
        let attention_norm = parameters.norm(&format!("{layer} attention norm"), dim);
        let norm = parameters.norm(&format!("{layer} norm"), dim);
        let weights = LayerWeights { query, key, value, output, attention_norm, up, down, norm };
        let call = LayerCall {
            texts: layout,
            dim,
            heads,
            wide,
            activation: case.activation,
            epsilon: 1e-5,
            probabilities: dropout(3 * layer + 1),
            attention: dropout(3 * layer + 2),
            feed_forward: dropout(3 * layer + 3),
            keep: false,
            activations: case.activations,
            kernels,
        };
        hidden = encoder::layer(hidden, weights, words.clone(), call);
        outcome.push((format!("layer {layer}"), floats(hidden.clone())));
    }
    let mean = encoder::mean(hidden, words, MeanCall { texts: layout, dim, dropout: dropout(99) });
    outcome.push(("mean".into(), floats(mean.clone())));
    // Rows without a token hold anything finite.
    for (name, values) in &mut outcome {
        assert!(values.iter().all(|value| value.is_finite()), "{name}");
        if name != "mean" {
            values.truncate(layout.tokens * dim);
        }
    }

    let upstream: Vec<f32> = (0..layout.texts * dim).map(|at| noise(at + 77)).collect();
    let upstream = rounded(&TensorData::new(upstream, [layout.texts, dim]));
    let upstream = Tensor::<2>::from_data(upstream, (device, compute));
    let gradients = (mean * Tensor::from_inner(upstream)).sum().backward();
    for (name, tensor) in &parameters.tracked {
        let gradient = match tensor {
            Tracked::Matrix(tensor) => tensor.grad(&gradients).map(|gradient| gradient.flatten::<1>(0, 1)),
            Tracked::Vector(tensor) => tensor.grad(&gradients),
        };
        let gradient = gradient.unwrap_or_else(|| panic!("no gradient for {name}"));
        outcome.push((name.clone(), gradient.cast(FloatDType::F32).into_data().try_into_vec().unwrap()));
    }
    outcome
}

fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.inner().cast(FloatDType::F32).into_data().try_into_vec().unwrap()
}

/// The root mean square of the differences, as a share of that of the numbers. (Of single numbers a ReLU makes more: where
/// its argument rounds to the other side of zero.)
fn off(ours: &[f32], theirs: &[f32], name: &str) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().all(|value| value.is_finite()), "{name}");
    let square = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let differences = square(&mut ours.iter().zip(theirs).map(|(a, b)| a - b));
    // A key's bias has no gradient but for rounding.
    let size = match name.ends_with("key.bias") {
        true => ours.len() as f64,
        false => square(&mut theirs.iter().copied()).max(1e-9 * ours.len() as f64),
    };
    (differences / size.max(f64::MIN_POSITIVE)).sqrt()
}

#[test]
fn the_encoder_computes_and_learns_what_it_does_on_the_cpu() {
    let (device, _guard) = device();
    let cpu = Device::flex();
    let dtypes = [DType::BF16, DType::F16, DType::F32].into_iter().filter(|dtype| device.supports_dtype(*dtype));
    for dtype in dtypes {
        // Rounding of every tensor on the way, some thirty of them one after the other.
        let tolerance = match dtype {
            // Burn's products of F32 on CUDA have operands of 19 bits (TF32).
            DType::F32 if cfg!(feature = "cuda") => 5e-3,
            DType::F32 => 1e-5,
            DType::F16 => 3e-2,
            _ => 8e-2,
        };
        for (number, case) in cases().iter().enumerate() {
            let expected = run(case, &cpu, dtype, DType::F32, KernelPath::default());
            for path in paths() {
                let found = run(case, &device, dtype, dtype, *path);
                let mut worst = (0.0, "");
                for ((name, ours), (_, theirs)) in found.iter().zip(&expected) {
                    let off = off(ours, theirs, name);
                    if off > worst.0 {
                        worst = (off, name.as_str());
                    }
                }
                println!("case {number} {dtype:?} {path}: off by {:.1e} ({})", worst.0, worst.1);
                assert!(worst.0 <= tolerance, "case {number} {dtype:?} {path}: {} is off by {}", worst.1, worst.0);
                // Once more, and with what the backward pass needs computed again.
                let least = Case { activations: Activations::Least, ..case.clone() };
                assert!(run(&least, &device, dtype, dtype, *path) == found, "case {number} {dtype:?} {path} again");
            }
        }
    }
}
