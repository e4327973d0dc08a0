//! The operations on tensors, and the backend-extension trait behind them.

mod autodiff;
#[cfg(feature = "flex")]
mod flex;

use burn::backend::{
    Backend, Dispatch, ExtensionType, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Int, Tensor};

use super::{
    problem::{EmbeddingCall, LayerCall, MeanCall},
    weights::{EmbeddingWeights, LayerWeights},
};

#[cfg(feature = "cube")]
mod meta;
#[cfg(feature = "cube")]
use meta::{embed_backward_meta, embed_meta, layer_backward_meta, layer_meta, mean_backward_meta, mean_meta};

/// What an operation gives back: its result, and what its backward pass needs.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct Forward<B: Backend> {
    /// `[rows, dim]`, of the type of the parameters.
    pub y: FloatTensor<B>,
    /// F32 words of any meaning; of one word where nothing is kept.
    pub kept: FloatTensor<B>,
}

/// What a layer's backward pass gives.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct LayerGradients<B: Backend> {
    /// `[rows, dim]`: by the layer's input.
    pub x: FloatTensor<B>,
    /// By its parameters, of their shapes and types.
    #[extension_type]
    pub weights: LayerWeights<B>,
}

/// What a backend does for the encoder. Users call [`layer`], [`embed`] and [`mean`].
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait EncoderOps: Backend {
    /// See [`layer`].
    #[fusion(meta = layer_meta)]
    fn encoder_layer(
        x: FloatTensor<Self>,
        #[extension_type] weights: LayerWeights<Self>,
        texts: IntTensor<Self>,
        call: LayerCall,
    ) -> Forward<Self>;

    /// The gradients of a layer, from that of its result, its input and what was kept.
    #[fusion(meta = layer_backward_meta)]
    fn encoder_layer_backward(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        #[extension_type] weights: LayerWeights<Self>,
        kept: FloatTensor<Self>,
        texts: IntTensor<Self>,
        call: LayerCall,
    ) -> LayerGradients<Self>;

    /// See [`embed`].
    #[fusion(meta = embed_meta)]
    fn encoder_embed(
        #[extension_type] weights: EmbeddingWeights<Self>,
        texts: IntTensor<Self>,
        call: EmbeddingCall,
    ) -> Forward<Self>;

    /// The gradients of the embeddings' parameters.
    #[fusion(meta = embed_backward_meta)]
    fn encoder_embed_backward(
        gradient: FloatTensor<Self>,
        #[extension_type] weights: EmbeddingWeights<Self>,
        kept: FloatTensor<Self>,
        texts: IntTensor<Self>,
        call: EmbeddingCall,
    ) -> EmbeddingWeights<Self>;

    /// See [`mean`].
    #[fusion(meta = mean_meta)]
    fn encoder_mean(x: FloatTensor<Self>, texts: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self>;

    /// `[texts, dim]` to `[rows, dim]`: the gradient by every token's vector, zero in rows without a token.
    #[fusion(meta = mean_backward_meta)]
    fn encoder_mean_backward(gradient: FloatTensor<Self>, texts: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self>;
}

/// One layer of a transformer encoder with its norms after each half (Vaswani et al., 2017; BERT).
///
/// It has one node on the autodiff graph, and what it keeps for its backward pass is [`LayerCall::kept`].
///
/// # Shapes
/// - `x`, result: `[call.texts.rows(), call.dim]`
/// - `texts`: [`PackedTexts::words`](super::PackedTexts::words), U32
///
/// # Panics
/// If a shape is wrong.
pub fn layer(x: Tensor<2>, weights: LayerWeights<Dispatch>, texts: Tensor<1, Int>, call: LayerCall) -> Tensor<2> {
    assert_eq!(x.dims(), [call.texts.rows(), call.dim], "vectors of tokens");
    assert_eq!(texts.dims(), [call.texts.words()], "words of texts");
    assert!(call.dim.is_multiple_of(call.heads), "{} heads of {} features", call.heads, call.dim);
    let output = Dispatch::encoder_layer(x.into_dispatch(), weights, texts.into_dispatch(), call);
    Tensor::from_dispatch(output.y)
}

/// The sum of each token's, its position's and its segment's vector, normed.
///
/// # Shapes
/// - `texts`: [`PackedTexts::words`](super::PackedTexts::words), U32
/// - returns `[call.texts.rows(), call.dim]`
///
/// # Panics
/// If a text is longer than there are positions. Token ids beyond the embedding are the caller's fault, and not looked
/// for.
pub fn embed(weights: EmbeddingWeights<Dispatch>, texts: Tensor<1, Int>, call: EmbeddingCall) -> Tensor<2> {
    assert_eq!(texts.dims(), [call.texts.words()], "words of texts");
    let position = Tensor::<2>::from_dispatch(weights.position.clone());
    let positions = position.dims()[0].saturating_sub(call.position_offset);
    let longest = call.texts.longest;
    assert!(longest <= positions, "a text has {longest} tokens, and the encoder {positions} positions");
    drop(position);
    Tensor::from_dispatch(Dispatch::encoder_embed(weights, texts.into_dispatch(), call).y)
}

/// The mean of the vectors of each text's tokens, summed in F32; zero for a text without tokens.
///
/// # Shapes
/// - `x`: `[call.texts.rows(), call.dim]`
/// - `texts`: [`PackedTexts::words`](super::PackedTexts::words), U32
/// - returns `[call.texts.texts, call.dim]`
pub fn mean(x: Tensor<2>, texts: Tensor<1, Int>, call: MeanCall) -> Tensor<2> {
    assert_eq!(x.dims(), [call.texts.rows(), call.dim], "vectors of tokens");
    assert_eq!(texts.dims(), [call.texts.words()], "words of texts");
    Tensor::from_dispatch(Dispatch::encoder_mean(x.into_dispatch(), texts.into_dispatch(), call))
}
