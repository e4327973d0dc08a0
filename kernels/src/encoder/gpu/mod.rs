//! The operations on GPUs: CubeCL kernels that run on CUDA, Vulkan, Metal and WGSL from one source, and matrix products
//! for each kind of device.
//!
//! Nothing is added up by floating-point atomics, and every sum runs in one order, so that results repeat bit for bit
//! on one device.

mod activation;
mod attention;
mod layer;
mod product;
mod rows;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{
    ops::{EncoderOps, Forward, LayerGradients},
    problem::{EmbeddingCall, LayerCall, MeanCall},
    weights::{EmbeddingWeights, LayerWeights},
};
use crate::{
    gpu::memory::empty,
    timing::{Grain, timed},
};
use layer::{Layer, new};

fn contiguous(weights: LayerWeights<CubeBackend>) -> LayerWeights<CubeBackend> {
    LayerWeights::from_array(weights.into_array().map(into_contiguous))
}

impl EncoderOps for CubeBackend {
    fn encoder_layer(
        x: FloatTensor<Self>,
        weights: LayerWeights<Self>,
        texts: IntTensor<Self>,
        call: LayerCall,
    ) -> Forward<Self> {
        let (x, weights, texts) = (into_contiguous(x), contiguous(weights), into_contiguous(texts));
        timed(Grain::Operations, "encoder_layer", &x.client, || {
            Layer { x: &x, weights: &weights, texts: &texts, call: &call }.forward()
        })
    }

    fn encoder_layer_backward(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weights: LayerWeights<Self>,
        kept: FloatTensor<Self>,
        texts: IntTensor<Self>,
        call: LayerCall,
    ) -> LayerGradients<Self> {
        let (x, weights, texts) = (into_contiguous(x), contiguous(weights), into_contiguous(texts));
        let gradient = into_contiguous(gradient);
        timed(Grain::Operations, "encoder_layer_backward", &x.client, || {
            Layer { x: &x, weights: &weights, texts: &texts, call: &call }.backward(gradient, kept)
        })
    }

    fn encoder_embed(weights: EmbeddingWeights<Self>, texts: IntTensor<Self>, call: EmbeddingCall) -> Forward<Self> {
        let weights = EmbeddingWeights::from_array(weights.into_array().map(into_contiguous));
        let texts = into_contiguous(texts);
        let y = new(&weights.word, [call.texts.rows(), call.dim]);
        let kept = empty(&y, call.kept_words(), DType::F32);
        timed(Grain::Operations, "encoder_embed", &y.client, || rows::embed(&weights, &texts, &call, &y, &kept));
        Forward { y, kept }
    }

    fn encoder_embed_backward(
        gradient: FloatTensor<Self>,
        weights: EmbeddingWeights<Self>,
        kept: FloatTensor<Self>,
        texts: IntTensor<Self>,
        call: EmbeddingCall,
    ) -> EmbeddingWeights<Self> {
        let weights = EmbeddingWeights::from_array(weights.into_array().map(into_contiguous));
        let (gradient, texts) = (into_contiguous(gradient), into_contiguous(texts));
        timed(Grain::Operations, "encoder_embed_backward", &gradient.client, || {
            rows::embed_backward(&gradient, &weights, &kept, &texts, &call)
        })
    }

    fn encoder_mean(x: FloatTensor<Self>, texts: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self> {
        let (x, texts) = (into_contiguous(x), into_contiguous(texts));
        let out = new(&x, [call.texts.texts, call.dim]);
        timed(Grain::Operations, "encoder_mean", &x.client, || rows::mean(&x, &texts, &call, &out));
        out
    }

    fn encoder_mean_backward(gradient: FloatTensor<Self>, texts: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self> {
        let (gradient, texts) = (into_contiguous(gradient), into_contiguous(texts));
        let out = new(&gradient, [call.texts.rows(), call.dim]);
        timed(Grain::Operations, "encoder_mean_backward", &out.client, || {
            rows::mean_backward(&gradient, &texts, &call, &out);
        });
        out
    }
}
