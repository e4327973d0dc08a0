//! Shapes and types of results, which fusion wants to know before they are computed.

use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::DType;

use super::{
    super::{
        problem::{EmbeddingCall, LayerCall, MeanCall},
        weights::{EmbeddingWeightsMetadata, LayerWeightsMetadata},
    },
    ForwardMetadata, LayerGradientsMetadata,
};

fn matrix(rows: usize, columns: usize, dtype: DType) -> TensorSpec {
    TensorSpec::new([rows, columns].into(), dtype)
}

pub fn layer_meta(
    x: &TensorSpec,
    _weights: &LayerWeightsMetadata,
    _texts: &TensorSpec,
    call: &LayerCall,
) -> ForwardMetadata {
    let words = call.kept(x.dtype.size()).words();
    ForwardMetadata { y: x.clone(), kept: TensorSpec::new([words].into(), DType::F32) }
}

pub fn layer_backward_meta(
    _gradient: &TensorSpec,
    x: &TensorSpec,
    weights: &LayerWeightsMetadata,
    _kept: &TensorSpec,
    _texts: &TensorSpec,
    _call: &LayerCall,
) -> LayerGradientsMetadata {
    LayerGradientsMetadata { x: x.clone(), weights: weights.clone() }
}

pub fn embed_meta(weights: &EmbeddingWeightsMetadata, _texts: &TensorSpec, call: &EmbeddingCall) -> ForwardMetadata {
    ForwardMetadata {
        y: matrix(call.texts.rows(), call.dim, weights.word.dtype),
        kept: TensorSpec::new([call.kept_words()].into(), DType::F32),
    }
}

pub fn embed_backward_meta(
    _gradient: &TensorSpec,
    weights: &EmbeddingWeightsMetadata,
    _kept: &TensorSpec,
    _texts: &TensorSpec,
    _call: &EmbeddingCall,
) -> EmbeddingWeightsMetadata {
    weights.clone()
}

pub fn mean_meta(x: &TensorSpec, _texts: &TensorSpec, call: &MeanCall) -> TensorSpec {
    matrix(call.texts.texts, call.dim, x.dtype)
}

pub fn mean_backward_meta(gradient: &TensorSpec, _texts: &TensorSpec, call: &MeanCall) -> TensorSpec {
    matrix(call.texts.rows(), call.dim, gradient.dtype)
}
