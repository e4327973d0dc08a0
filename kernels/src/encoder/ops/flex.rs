//! The operations on Burn's CPU backend.

use burn::backend::{
    Flex,
    tensor::{FloatTensor, IntTensor},
};

use super::{
    super::{
        problem::{EmbeddingCall, LayerCall, MeanCall},
        weights::{EmbeddingWeights, LayerWeights},
    },
    EncoderOps, Forward, LayerGradients,
};

impl EncoderOps for Flex {
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
