//! The operations on Burn's CPU backend: [`cpu`](super::super::cpu) on the tensors' own memory, or on copies in F32.

use burn::backend::{
    Flex, TensorMetadata,
    flex::FlexTensor,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, TensorData};

use super::{
    super::{
        cpu::{
            Texts, embed,
            layer::{self, Layer, Numbers},
        },
        problem::{EmbeddingCall, LayerCall, MeanCall},
        texts::TextLayout,
        weights::{Affine, EmbeddingWeights, LayerWeights, Norm},
    },
    EncoderOps, Forward, LayerGradients,
};
use crate::gemm::InstructionSet;

/// A tensor's numbers: where they are F32 one behind the other its own memory, else a copy.
fn numbers(tensor: &FlexTensor) -> Numbers<'_> {
    if tensor.dtype() == DType::F32 && tensor.is_contiguous() {
        let length = tensor.shape().num_elements();
        return tensor.storage::<f32>()[..length].into();
    }
    let data = tensor.clone().into_data().convert::<f32>();
    data.try_into_vec().expect("data converted to F32 is F32").into()
}

/// A tensor of the shape and type of another.
struct Like {
    shape: Vec<usize>,
    dtype: DType,
}

impl Like {
    fn new(tensor: &FlexTensor) -> Self {
        Self { shape: tensor.shape().to_vec(), dtype: tensor.dtype() }
    }

    fn tensor(&self, values: Vec<f32>) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(values, self.shape.clone()).convert_dtype(self.dtype))
    }
}

fn matrix(values: Vec<f32>, columns: usize, dtype: DType) -> FlexTensor {
    let rows = values.len() / columns;
    Like { shape: vec![rows, columns], dtype }.tensor(values)
}

fn vector(values: Vec<f32>) -> FlexTensor {
    let length = values.len();
    FlexTensor::from_data(TensorData::new(values, [length]))
}

fn texts(words: IntTensor<Flex>, layout: &TextLayout) -> Texts {
    let words = words.into_data().convert::<u32>().try_into_vec().expect("data converted to U32 is U32");
    Texts::new(words, layout)
}

fn affine(from: &Affine<Flex>) -> layer::Affine<'_> {
    layer::Affine { weight: numbers(&from.weight), bias: numbers(&from.bias) }
}

fn norm(from: &Norm<Flex>) -> layer::Norm<'_> {
    layer::Norm { gamma: numbers(&from.gamma), beta: numbers(&from.beta) }
}

fn layer_weights(from: &LayerWeights<Flex>) -> layer::Weights<'_> {
    layer::Weights {
        query: affine(&from.query),
        key: affine(&from.key),
        value: affine(&from.value),
        output: affine(&from.output),
        attention_norm: norm(&from.attention_norm),
        up: affine(&from.up),
        down: affine(&from.down),
        norm: norm(&from.norm),
    }
}

fn embedding_weights(from: &EmbeddingWeights<Flex>) -> embed::Weights<'_> {
    embed::Weights {
        word: numbers(&from.word),
        position: numbers(&from.position),
        segment: numbers(&from.segment),
        norm: norm(&from.norm),
    }
}

impl EncoderOps for Flex {
    fn encoder_layer(
        x: FloatTensor<Self>,
        weights: LayerWeights<Self>,
        words: IntTensor<Self>,
        call: LayerCall,
    ) -> Forward<Self> {
        let dtype = x.dtype();
        let (x, weights, texts) = (numbers(&x), layer_weights(&weights), texts(words, &call.texts));
        let set = InstructionSet::detect();
        let (y, kept) = Layer { x: &x, weights: &weights, texts: &texts, call: &call, set }.forward();
        Forward { y: matrix(y, call.dim, dtype), kept: vector(kept) }
    }

    fn encoder_layer_backward(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weights: LayerWeights<Self>,
        kept: FloatTensor<Self>,
        words: IntTensor<Self>,
        call: LayerCall,
    ) -> LayerGradients<Self> {
        let dtype = x.dtype();
        let likes = weights.clone().into_array().map(|weight| Like::new(&weight));
        let (x, weights, texts) = (numbers(&x), layer_weights(&weights), texts(words, &call.texts));
        let set = InstructionSet::detect();
        let layer = Layer { x: &x, weights: &weights, texts: &texts, call: &call, set };
        let (x, gradients) = layer.backward(&numbers(&gradient), &numbers(&kept));
        let mut likes = likes.into_iter();
        let weights = gradients.into_array().map(|values| likes.next().expect("as many").tensor(values.into_owned()));
        LayerGradients { x: matrix(x, call.dim, dtype), weights: LayerWeights::from_array(weights) }
    }

    fn encoder_embed(weights: EmbeddingWeights<Self>, words: IntTensor<Self>, call: EmbeddingCall) -> Forward<Self> {
        let dtype = weights.word.dtype();
        let (weights, texts) = (embedding_weights(&weights), texts(words, &call.texts));
        let set = InstructionSet::detect();
        let (y, kept) = embed::Embed { weights: &weights, texts: &texts, call: &call, set }.forward();
        Forward { y: matrix(y, call.dim, dtype), kept: vector(kept) }
    }

    fn encoder_embed_backward(
        gradient: FloatTensor<Self>,
        weights: EmbeddingWeights<Self>,
        kept: FloatTensor<Self>,
        words: IntTensor<Self>,
        call: EmbeddingCall,
    ) -> EmbeddingWeights<Self> {
        let likes = weights.clone().into_array().map(|weight| Like::new(&weight));
        let (weights, texts) = (embedding_weights(&weights), texts(words, &call.texts));
        let set = InstructionSet::detect();
        let embed = embed::Embed { weights: &weights, texts: &texts, call: &call, set };
        let embed::Weights { word, position, segment, norm } = embed.backward(&numbers(&gradient), &numbers(&kept));
        let mut likes = likes.into_iter();
        let gradients = [word, position, segment, norm.gamma, norm.beta]
            .map(|values| likes.next().expect("as many").tensor(values.into_owned()));
        EmbeddingWeights::from_array(gradients)
    }

    fn encoder_mean(x: FloatTensor<Self>, words: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self> {
        let dtype = x.dtype();
        let out = embed::mean(&numbers(&x), &texts(words, &call.texts), &call);
        Like { shape: vec![call.texts.texts, call.dim], dtype }.tensor(out)
    }

    fn encoder_mean_backward(gradient: FloatTensor<Self>, words: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self> {
        let dtype = gradient.dtype();
        let out = embed::mean_backward(&numbers(&gradient), &texts(words, &call.texts), &call);
        matrix(out, call.dim, dtype)
    }
}
