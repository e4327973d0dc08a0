//! The parameters that the encoder's operations take and whose gradients they give.

use burn::backend::{Backend, Dispatch, ExtensionType, tensor::FloatTensor};
use burn::tensor::Tensor;

/// A linear layer: `x W + b`.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct Affine<B: Backend> {
    /// `[in, out]`
    pub weight: FloatTensor<B>,
    /// `[out]`
    pub bias: FloatTensor<B>,
}

/// A layer norm.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct Norm<B: Backend> {
    /// `[dim]`
    pub gamma: FloatTensor<B>,
    /// `[dim]`
    pub beta: FloatTensor<B>,
}

/// The parameters of a layer, or their gradients.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct LayerWeights<B: Backend> {
    /// `[dim, dim]`
    #[extension_type]
    pub query: Affine<B>,
    /// `[dim, dim]`
    #[extension_type]
    pub key: Affine<B>,
    /// `[dim, dim]`
    #[extension_type]
    pub value: Affine<B>,
    /// `[dim, dim]`: what the heads' results are multiplied by.
    #[extension_type]
    pub output: Affine<B>,
    /// After the attention.
    #[extension_type]
    pub attention_norm: Norm<B>,
    /// `[dim, wide]`
    #[extension_type]
    pub up: Affine<B>,
    /// `[wide, dim]`
    #[extension_type]
    pub down: Affine<B>,
    /// After the feed-forward half.
    #[extension_type]
    pub norm: Norm<B>,
}

/// Parameters of a layer.
pub const LAYER_WEIGHTS: usize = 16;

impl<B: Backend> LayerWeights<B> {
    /// In the order of the fields.
    pub fn into_array(self) -> [FloatTensor<B>; LAYER_WEIGHTS] {
        let Self { query, key, value, output, attention_norm, up, down, norm } = self;
        [
            query.weight,
            query.bias,
            key.weight,
            key.bias,
            value.weight,
            value.bias,
            output.weight,
            output.bias,
            attention_norm.gamma,
            attention_norm.beta,
            up.weight,
            up.bias,
            down.weight,
            down.bias,
            norm.gamma,
            norm.beta,
        ]
    }

    /// The reverse of [`into_array`](Self::into_array).
    pub fn from_array(weights: [FloatTensor<B>; LAYER_WEIGHTS]) -> Self {
        let [qw, qb, kw, kb, vw, vb, ow, ob, ag, ab, uw, ub, dw, db, ng, nb] = weights;
        Self {
            query: Affine { weight: qw, bias: qb },
            key: Affine { weight: kw, bias: kb },
            value: Affine { weight: vw, bias: vb },
            output: Affine { weight: ow, bias: ob },
            attention_norm: Norm { gamma: ag, beta: ab },
            up: Affine { weight: uw, bias: ub },
            down: Affine { weight: dw, bias: db },
            norm: Norm { gamma: ng, beta: nb },
        }
    }
}

/// The parameters of the embeddings, or their gradients.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct EmbeddingWeights<B: Backend> {
    /// `[ids, dim]`
    pub word: FloatTensor<B>,
    /// `[positions, dim]`
    pub position: FloatTensor<B>,
    /// `[segments, dim]`; of any shape where there are none, and so is then what stands for its gradient.
    pub segment: FloatTensor<B>,
    /// After their sum.
    #[extension_type]
    pub norm: Norm<B>,
}

/// Parameters of the embeddings.
pub const EMBEDDING_WEIGHTS: usize = 5;

impl<B: Backend> EmbeddingWeights<B> {
    /// In the order of the fields.
    pub fn into_array(self) -> [FloatTensor<B>; EMBEDDING_WEIGHTS] {
        [self.word, self.position, self.segment, self.norm.gamma, self.norm.beta]
    }

    /// The reverse of [`into_array`](Self::into_array).
    pub fn from_array([word, position, segment, gamma, beta]: [FloatTensor<B>; EMBEDDING_WEIGHTS]) -> Self {
        Self { word, position, segment, norm: Norm { gamma, beta } }
    }
}

impl Affine<Dispatch> {
    /// Of tensors.
    pub fn new(weight: Tensor<2>, bias: Tensor<1>) -> Self {
        Self { weight: weight.into_dispatch(), bias: bias.into_dispatch() }
    }
}

impl Norm<Dispatch> {
    /// Of tensors.
    pub fn new(gamma: Tensor<1>, beta: Tensor<1>) -> Self {
        Self { gamma: gamma.into_dispatch(), beta: beta.into_dispatch() }
    }
}

impl EmbeddingWeights<Dispatch> {
    /// Of tensors; `segment` where the family has segments.
    pub fn new(word: Tensor<2>, position: Tensor<2>, segment: Option<Tensor<2>>, norm: Norm<Dispatch>) -> Self {
        let segment = segment.unwrap_or_else(|| {
            let device = word.device().without_autodiff();
            Tensor::from_inner(Tensor::empty([1, 1], (&device, word.dtype())))
        });
        Self { word: word.into_dispatch(), position: position.into_dispatch(), segment: segment.into_dispatch(), norm }
    }
}
