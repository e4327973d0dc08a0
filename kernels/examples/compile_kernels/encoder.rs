//! The encoder's kernels: forward and backward of small encoders in every type.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, ExecutionError, Int, Tensor, TensorData},
};
use elmo_kernels::{
    KernelPath,
    encoder::{
        self, Activation, Activations, Affine, Dropout, EmbeddingCall, EmbeddingWeights, LayerCall, LayerWeights,
        MeanCall, Norm, PackedTexts,
    },
    optim::{AdamStep, AdamTensors, AdamWork, BATCH, kahan_adam_all},
};

/// One encoder of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub path: KernelPath,
    dtype: DType,
    /// Texts, and tokens of each: they choose the tiles of the products.
    texts: (usize, usize),
    dim: usize,
    heads: usize,
    wide: usize,
    activation: Activation,
    dropout: f64,
    segments: bool,
}

/// Width, heads, width between the linear layers.
const SIZES: [(usize, usize, usize); 4] = [(768, 12, 3072), (384, 12, 1536), (128, 1, 512), (123, 3, 77)];

pub fn cases() -> Vec<Case> {
    let case = |dtype, (dim, heads, wide), texts| Case {
        path: KernelPath::Hopper,
        dtype,
        texts,
        dim,
        heads,
        wide,
        activation: Activation::Gelu,
        dropout: 0.1,
        segments: true,
    };
    let base = case(DType::BF16, SIZES[0], (9, 9));
    let mut cases = vec![
        case(DType::F16, SIZES[0], (256, 16)),
        case(DType::F32, SIZES[3], (4, 17)),
        Case { path: KernelPath::Portable, ..base },
        Case { activation: Activation::GeluTanh, ..base },
        Case { activation: Activation::Relu, ..base },
        Case { segments: false, dropout: 0.0, ..base },
        case(DType::BF16, SIZES[0], (40, 100)),
        case(DType::BF16, SIZES[0], (20, 200)),
    ];
    for size in SIZES {
        cases.extend([(4, 17), (512, 24)].map(|texts| case(DType::BF16, size, texts)));
    }
    cases
}

impl Case {
    /// Forward and backward.
    pub fn run(&self, device: &Device) -> Result<(), ExecutionError> {
        let Self { dim, heads, wide, .. } = *self;
        let packed = PackedTexts::new(&vec![vec![1; self.texts.1]; self.texts.0]);
        let layout = packed.layout;
        let length = packed.words.len();
        let words = Tensor::<1, Int>::from_data(TensorData::new(packed.words, [length]), (device, DType::U32));
        let tracked = device.clone().autodiff();
        let matrix = |rows, columns| Tensor::<2>::zeros([rows, columns], (&tracked, self.dtype)).require_grad();
        let vector = |length| Tensor::<1>::zeros([length], (&tracked, self.dtype)).require_grad();
        let affine = |input, output| Affine::<Dispatch>::new(matrix(input, output), vector(output));
        let norm = || Norm::<Dispatch>::new(vector(dim), vector(dim));
        let dropout = Dropout::new(1, 1, self.dropout);

        let segment = self.segments.then(|| matrix(2, dim));
        let word = matrix(5, dim);
        let weights = EmbeddingWeights::new(word.clone(), matrix(self.texts.1, dim), segment, norm());
        let call =
            EmbeddingCall { texts: layout, dim, position_offset: 0, segments: self.segments, epsilon: 1e-5, dropout };
        let hidden = encoder::embed(weights, words.clone(), call);
        let weights = LayerWeights {
            query: affine(dim, dim),
            key: affine(dim, dim),
            value: affine(dim, dim),
            output: affine(dim, dim),
            attention_norm: norm(),
            up: affine(dim, wide),
            down: affine(wide, dim),
            norm: norm(),
        };
        let call = LayerCall {
            texts: layout,
            dim,
            heads,
            wide,
            activation: self.activation,
            epsilon: 1e-5,
            probabilities: dropout,
            attention: dropout,
            feed_forward: dropout,
            keep: false,
            activations: Activations::Balanced,
            kernels: self.path,
        };
        let hidden = encoder::layer(hidden, weights, words.clone(), call);
        let mean = encoder::mean(hidden, words, MeanCall { texts: layout, dim, dropout });
        let gradients = mean.sum().backward();
        // A launch that failed is known by what it should have written.
        let gradient = word.grad(&gradients).expect("a gradient");
        gradient.clone().try_into_data()?;
        self.adam(gradient)
    }

    /// A step of the optimizer with every rule.
    fn adam(&self, gradient: Tensor<2>) -> Result<(), ExecutionError> {
        for (weight_decay, decoupled) in [(0.0, false), (0.01, false), (0.01, true)] {
            for compensated in [false, true] {
                let zeros = gradient.zeros_like();
                let (learning_rate, epsilon) = (1e-3, 1e-6);
                let step = AdamStep { learning_rate, beta_1: 0.9, beta_2: 0.99, epsilon, weight_decay, decoupled };
                // One more than a batch: both the kernel for many and that for one are launched.
                let work = (0..=BATCH).map(|_| {
                    let [parameter, moment_1, moment_2, compensation] =
                        [(); 4].map(|()| (zeros.clone() + 0.0).into_dispatch());
                    let state = AdamTensors { parameter, moment_1, moment_2, compensation };
                    AdamWork { state, gradient: gradient.clone().into_dispatch() }
                });
                for state in kahan_adam_all(work.collect(), step, compensated) {
                    Tensor::<2>::from_dispatch(state.parameter).try_into_data()?;
                }
            }
        }
        Ok(())
    }
}
