//! One node on the graph for each operation.

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};

use super::{
    super::{
        problem::{Activations, EmbeddingCall, LayerCall, MeanCall},
        weights::{EMBEDDING_WEIGHTS, EmbeddingWeights, LAYER_WEIGHTS, LayerWeights},
    },
    EncoderOps, Forward, LayerGradients,
};

/// Why the operations of backward passes are not there on a graph.
const ONCE: &str = "the encoder's gradients cannot be differentiated again";

impl<B: Backend + EncoderOps, C: CheckpointStrategy> EncoderOps for Autodiff<B, C> {
    fn encoder_layer(
        x: FloatTensor<Self>,
        weights: LayerWeights<Self>,
        texts: IntTensor<Self>,
        call: LayerCall,
    ) -> Forward<Self> {
        let (x, node) = x.into_parts();
        let parts = weights.into_array().map(|weight| weight.into_parts());
        let mut weights = Vec::with_capacity(LAYER_WEIGHTS);
        let mut nodes = vec![node];
        for (weight, node) in parts {
            weights.push(weight);
            nodes.push(node);
        }
        let weights = LayerWeights::from_array(array(weights));
        let prepared = Layer.prepare::<C>(array::<_, { LAYER_WEIGHTS + 1 }>(nodes)).compute_bound().stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let call = LayerCall { keep: call.activations == Activations::Balanced, ..call };
                let Forward { y, kept } = B::encoder_layer(x.clone(), weights.clone(), texts.clone(), call);
                let state = LayerState { x, weights, kept: kept.clone(), texts, call };
                Forward { y: prepared.finish(state, y), kept: off_graph::<B, C>(kept) }
            }
            OpsKind::UnTracked(prepared) => {
                let Forward { y, kept } = B::encoder_layer(x, weights, texts, LayerCall { keep: false, ..call });
                Forward { y: prepared.finish(y), kept: off_graph::<B, C>(kept) }
            }
        }
    }

    fn encoder_layer_backward(
        _gradient: FloatTensor<Self>,
        _x: FloatTensor<Self>,
        _weights: LayerWeights<Self>,
        _kept: FloatTensor<Self>,
        _texts: IntTensor<Self>,
        _call: LayerCall,
    ) -> LayerGradients<Self> {
        unimplemented!("{ONCE}")
    }

    fn encoder_embed(weights: EmbeddingWeights<Self>, texts: IntTensor<Self>, call: EmbeddingCall) -> Forward<Self> {
        let parts = weights.into_array().map(|weight| weight.into_parts());
        let (weights, nodes): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let weights = EmbeddingWeights::from_array(array(weights));
        let prepared = Embed.prepare::<C>(array::<_, EMBEDDING_WEIGHTS>(nodes)).compute_bound().stateful();
        let Forward { y, kept } = B::encoder_embed(weights.clone(), texts.clone(), call);
        let y = match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(EmbedState { weights, kept: kept.clone(), texts, call }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        };
        Forward { y, kept: off_graph::<B, C>(kept) }
    }

    fn encoder_embed_backward(
        _gradient: FloatTensor<Self>,
        _weights: EmbeddingWeights<Self>,
        _kept: FloatTensor<Self>,
        _texts: IntTensor<Self>,
        _call: EmbeddingCall,
    ) -> EmbeddingWeights<Self> {
        unimplemented!("{ONCE}")
    }

    fn encoder_mean(x: FloatTensor<Self>, texts: IntTensor<Self>, call: MeanCall) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match Mean.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let y = B::encoder_mean(x, texts.clone(), call);
                prepared.finish(MeanState::<B> { texts, call }, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::encoder_mean(x, texts, call)),
        }
    }

    fn encoder_mean_backward(
        _gradient: FloatTensor<Self>,
        _texts: IntTensor<Self>,
        _call: MeanCall,
    ) -> FloatTensor<Self> {
        unimplemented!("{ONCE}")
    }
}

fn off_graph<B: Backend, C: CheckpointStrategy>(tensor: FloatTensor<B>) -> FloatTensor<Autodiff<B, C>> {
    <Autodiff<B, C> as burn::backend::AutodiffBackend>::from_inner(tensor)
}

fn array<T, const N: usize>(items: Vec<T>) -> [T; N] {
    items.try_into().unwrap_or_else(|items: Vec<T>| unreachable!("{} items instead of {N}", items.len()))
}

#[derive(Debug)]
struct Layer;

/// Moved into the backward pass, so that what it holds is freed when the layer is done.
#[derive(Clone, Debug)]
struct LayerState<B: Backend> {
    x: FloatTensor<B>,
    weights: LayerWeights<B>,
    kept: FloatTensor<B>,
    texts: IntTensor<B>,
    call: LayerCall,
}

impl<B: Backend + EncoderOps> Backward<B, { LAYER_WEIGHTS + 1 }> for Layer {
    type State = LayerState<B>;

    fn backward(self, ops: Ops<Self::State, { LAYER_WEIGHTS + 1 }>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let LayerState { x, weights, mut kept, texts, mut call } = ops.state;
        if !call.keep {
            // Nothing is random here: dropout is a function of its key.
            call.keep = true;
            kept = B::encoder_layer(x.clone(), weights.clone(), texts.clone(), call).kept;
        }
        let LayerGradients { x, weights } = B::encoder_layer_backward(gradient, x, weights, kept, texts, call);
        for (parent, gradient) in ops.parents.into_iter().zip([x].into_iter().chain(weights.into_array())) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Embed;

#[derive(Clone, Debug)]
struct EmbedState<B: Backend> {
    weights: EmbeddingWeights<B>,
    kept: FloatTensor<B>,
    texts: IntTensor<B>,
    call: EmbeddingCall,
}

impl<B: Backend + EncoderOps> Backward<B, EMBEDDING_WEIGHTS> for Embed {
    type State = EmbedState<B>;

    fn backward(self, ops: Ops<Self::State, EMBEDDING_WEIGHTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let EmbedState { weights, kept, texts, call } = ops.state;
        let gradients = B::encoder_embed_backward(gradient, weights, kept, texts, call).into_array();
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Mean;

#[derive(Clone, Debug)]
struct MeanState<B: Backend> {
    texts: IntTensor<B>,
    call: MeanCall,
}

impl<B: Backend + EncoderOps> Backward<B, 1> for Mean {
    type State = MeanState<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let MeanState { texts, call } = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::encoder_mean_backward(gradient, texts, call));
        }
    }
}
