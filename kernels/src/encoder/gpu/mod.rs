//! The operations on GPUs.

use burn::backend::tensor::{FloatTensor, IntTensor};

use burn_cubecl::CubeBackend;

use super::{
    ops::{EncoderOps, Forward, LayerGradients},
    problem::{EmbeddingCall, LayerCall, MeanCall},
    weights::{EmbeddingWeights, LayerWeights},
};

impl EncoderOps for CubeBackend {
    fn encoder_layer(
        x: FloatTensor<Self>,
        weights: LayerWeights<Self>,
        texts: IntTensor<Self>,
        call: LayerCall,
    ) -> Forward<Self> {
        todo!()
    }

    fn encoder_layer_backward(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weights: LayerWeights<Self>,
        kept: FloatTensor<Self>,
        texts: IntTensor<Self>,
        call: LayerCall,
    ) -> LayerGradients<Self> {
        todo!()
    }

    fn encoder_embed(weights: EmbeddingWeights<Self>, texts: IntTensor<Self>, call: EmbeddingCall) -> Forward<Self> {
        todo!()
    }

    fn encoder_embed_backward(
        gradient: FloatTensor<Self>,
        weights: EmbeddingWeights<Self>,
        kept: FloatTensor<Self>,
        texts: IntTensor<Self>,
        call: EmbeddingCall,
    ) -> EmbeddingWeights<Self> {
        todo!()
    }

    fn encoder_mean(x: FloatTensor<Self>, texts: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self> {
        todo!()
    }

    fn encoder_mean_backward(gradient: FloatTensor<Self>, texts: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self> {
        todo!()
    }
}
