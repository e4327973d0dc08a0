//! The operation on tensors, and the backend-extension trait behind it.

use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, ExtensionType, autodiff::checkpoint::strategy::CheckpointStrategy,
    backend_extension, tensor::FloatTensor,
};
use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;

use super::AdamStep;

/// A parameter and what the optimizer keeps of it: before a step, or after it. All of one shape and type.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct AdamTensors<B: Backend> {
    /// The weights.
    pub parameter: FloatTensor<B>,
    /// Moving average of the gradient.
    pub moment_1: FloatTensor<B>,
    /// Moving average of its square.
    pub moment_2: FloatTensor<B>,
    /// What rounding has kept from the parameter; any tensor, and left as it is, without compensation.
    pub compensation: FloatTensor<B>,
}

impl<B: Backend> AdamTensors<B> {
    fn map<C: Backend>(self, f: impl Fn(FloatTensor<B>) -> FloatTensor<C>) -> AdamTensors<C> {
        let Self { parameter, moment_1, moment_2, compensation } = self;
        AdamTensors {
            parameter: f(parameter),
            moment_1: f(moment_1),
            moment_2: f(moment_2),
            compensation: f(compensation),
        }
    }
}

/// Parameters of a batch.
pub const BATCH: usize = 8;

/// What belongs to the parameters of a batch, all of one type.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct AdamBatch<B: Backend> {
    /// Of the first parameter.
    #[extension_type]
    pub first: AdamTensors<B>,
    /// Of the second parameter.
    #[extension_type]
    pub second: AdamTensors<B>,
    /// Of the third parameter.
    #[extension_type]
    pub third: AdamTensors<B>,
    /// Of the fourth parameter.
    #[extension_type]
    pub fourth: AdamTensors<B>,
    /// Of the fifth parameter.
    #[extension_type]
    pub fifth: AdamTensors<B>,
    /// Of the sixth parameter.
    #[extension_type]
    pub sixth: AdamTensors<B>,
    /// Of the seventh parameter.
    #[extension_type]
    pub seventh: AdamTensors<B>,
    /// Of the eighth parameter.
    #[extension_type]
    pub eighth: AdamTensors<B>,
}

/// Their gradients.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct GradientBatch<B: Backend> {
    /// Of the first parameter.
    pub first: FloatTensor<B>,
    /// Of the second parameter.
    pub second: FloatTensor<B>,
    /// Of the third parameter.
    pub third: FloatTensor<B>,
    /// Of the fourth parameter.
    pub fourth: FloatTensor<B>,
    /// Of the fifth parameter.
    pub fifth: FloatTensor<B>,
    /// Of the sixth parameter.
    pub sixth: FloatTensor<B>,
    /// Of the seventh parameter.
    pub seventh: FloatTensor<B>,
    /// Of the eighth parameter.
    pub eighth: FloatTensor<B>,
}

impl<B: Backend> AdamBatch<B> {
    /// In the order of the fields.
    pub fn into_array(self) -> [AdamTensors<B>; BATCH] {
        let Self { first, second, third, fourth, fifth, sixth, seventh, eighth } = self;
        [first, second, third, fourth, fifth, sixth, seventh, eighth]
    }

    /// The reverse of [`into_array`](Self::into_array).
    pub fn from_array([first, second, third, fourth, fifth, sixth, seventh, eighth]: [AdamTensors<B>; BATCH]) -> Self {
        Self { first, second, third, fourth, fifth, sixth, seventh, eighth }
    }
}

impl<B: Backend> AdamBatch<B> {
    /// Every parameter's state with its gradient.
    pub fn zip(self, gradients: GradientBatch<B>) -> [(AdamTensors<B>, FloatTensor<B>); BATCH] {
        let [a, b, c, d, e, f, g, h] = self.into_array();
        let GradientBatch { first, second, third, fourth, fifth, sixth, seventh, eighth } = gradients;
        [(a, first), (b, second), (c, third), (d, fourth), (e, fifth), (f, sixth), (g, seventh), (h, eighth)]
    }
}

impl<B: Backend> GradientBatch<B> {
    /// In the order of the fields.
    pub fn into_array(self) -> [FloatTensor<B>; BATCH] {
        let Self { first, second, third, fourth, fifth, sixth, seventh, eighth } = self;
        [first, second, third, fourth, fifth, sixth, seventh, eighth]
    }

    /// The reverse of [`into_array`](Self::into_array).
    pub fn from_array([first, second, third, fourth, fifth, sixth, seventh, eighth]: [FloatTensor<B>; BATCH]) -> Self {
        Self { first, second, third, fourth, fifth, sixth, seventh, eighth }
    }
}

#[cfg(feature = "cube")]
fn adam_meta(
    state: &AdamTensorsMetadata,
    _gradient: &TensorSpec,
    _step: &AdamStep,
    _compensated: &bool,
) -> AdamTensorsMetadata {
    state.clone()
}

#[cfg(feature = "cube")]
fn batch_meta(
    states: &AdamBatchMetadata,
    _gradients: &GradientBatchMetadata,
    _step: &AdamStep,
    _compensated: &bool,
) -> AdamBatchMetadata {
    states.clone()
}

#[cfg(feature = "cube")]
fn settled_meta(tensor: &TensorSpec) -> TensorSpec {
    tensor.clone()
}

/// What a backend does for the optimizer. Users call [`kahan_adam`].
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait OptimizerOps: Backend {
    /// See [`kahan_adam`].
    #[fusion(meta = adam_meta)]
    fn kahan_adam(
        #[extension_type] state: AdamTensors<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamTensors<Self>;

    /// See [`kahan_adam_all`].
    #[fusion(meta = batch_meta)]
    fn kahan_adam_batch(
        #[extension_type] states: AdamBatch<Self>,
        #[extension_type] gradients: GradientBatch<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamBatch<Self>;

    /// See [`settle`].
    #[fusion(meta = settled_meta)]
    fn settle(tensor: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: Backend + OptimizerOps, C: CheckpointStrategy> OptimizerOps for Autodiff<B, C> {
    /// Not on the graph: an optimizer's step has no gradient.
    fn kahan_adam(
        state: AdamTensors<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamTensors<Self> {
        let state = state.map::<B>(<Self as AutodiffBackend>::inner);
        let gradient = <Self as AutodiffBackend>::inner(gradient);
        B::kahan_adam(state, gradient, step, compensated).map::<Self>(<Self as AutodiffBackend>::from_inner)
    }

    /// Not on the graph either.
    fn kahan_adam_batch(
        states: AdamBatch<Self>,
        gradients: GradientBatch<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamBatch<Self> {
        let inner = |state: AdamTensors<Self>| state.map::<B>(<Self as AutodiffBackend>::inner);
        let states = AdamBatch::from_array(states.into_array().map(inner));
        let gradients = GradientBatch::from_array(gradients.into_array().map(<Self as AutodiffBackend>::inner));
        let states = B::kahan_adam_batch(states, gradients, step, compensated).into_array();
        AdamBatch::from_array(states.map(|state| state.map::<Self>(<Self as AutodiffBackend>::from_inner)))
    }

    /// Not on the graph.
    fn settle(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as AutodiffBackend>::from_inner(B::settle(<Self as AutodiffBackend>::inner(tensor)))
    }
}

/// A parameter and what the optimizer keeps of it: before a step, or after it.
#[derive(Clone, Debug)]
pub struct AdamState<const D: usize> {
    /// The weights: F32, F16 or BF16.
    pub parameter: Tensor<D>,
    /// Moving average of the gradient, of the parameter's type, as are the next two.
    pub moment_1: Tensor<D>,
    /// Moving average of its square.
    pub moment_2: Tensor<D>,
    /// What rounding has kept from the parameter so far; `None` where updates are to be rounded away.
    pub compensation: Option<Tensor<D>>,
}

/// The tensor in memory of its own, for one that lives as long as a training: a parameter, or what an optimizer keeps.
///
/// A GPU's pool of temporary memory looks through its buffers whenever it is asked for another one. With the thousand
/// tensors of a model and its optimizer among them that takes longer than the kernels. The result is not on the graph
/// of automatic differentiation.
pub fn settle<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dims().contains(&0) {
        true => tensor,
        false => Tensor::from_dispatch(Dispatch::settle(tensor.into_dispatch())),
    }
}

/// One step of Adam: in place where nobody else holds a tensor. The gradient is rounded to the parameter's type.
///
/// # Panics
/// If shapes or types differ, or the type is none of F32, F16 and BF16.
pub fn kahan_adam<const D: usize>(state: AdamState<D>, gradient: Tensor<D>, step: AdamStep) -> AdamState<D> {
    let AdamState { parameter, moment_1, moment_2, compensation } = state;
    let (shape, dtype) = (parameter.dims(), parameter.dtype());
    for tensor in [&moment_1, &moment_2].into_iter().chain(&compensation) {
        assert_eq!((tensor.dims(), tensor.dtype()), (shape, dtype), "a parameter and its state");
    }
    assert_eq!(gradient.dims(), shape, "a parameter and its gradient");
    if shape.contains(&0) {
        return AdamState { parameter, moment_1, moment_2, compensation };
    }
    let compensated = compensation.is_some();
    let compensation = match compensation {
        Some(lost) => lost.into_dispatch(),
        None => Tensor::<1>::empty([1], (&parameter.device(), dtype)).into_dispatch(),
    };
    let state = AdamTensors {
        parameter: parameter.into_dispatch(),
        moment_1: moment_1.into_dispatch(),
        moment_2: moment_2.into_dispatch(),
        compensation,
    };
    let state = Dispatch::kahan_adam(state, gradient.into_dispatch(), step, compensated);
    AdamState {
        parameter: Tensor::from_dispatch(state.parameter),
        moment_1: Tensor::from_dispatch(state.moment_1),
        moment_2: Tensor::from_dispatch(state.moment_2),
        compensation: compensated.then(|| Tensor::from_dispatch(state.compensation)),
    }
}

/// A parameter with what the optimizer keeps of it, and its gradient: of any number of dimensions.
#[derive(Clone, Debug)]
pub struct AdamWork {
    /// Before the step.
    pub state: AdamTensors<Dispatch>,
    /// Of the parameter's shape; it is rounded to its type.
    pub gradient: FloatTensor<Dispatch>,
}

/// [`kahan_adam`] for many parameters of one type at once, none of them empty: a GPU needs a launch for every
/// [`BATCH`] of them. The states after the step, in the same order.
pub fn kahan_adam_all(work: Vec<AdamWork>, step: AdamStep, compensated: bool) -> Vec<AdamTensors<Dispatch>> {
    let mut states = Vec::with_capacity(work.len());
    let mut work = work.into_iter();
    while work.len() >= BATCH {
        let (batch, gradients): (Vec<_>, Vec<_>) =
            work.by_ref().take(BATCH).map(|AdamWork { state, gradient }| (state, gradient)).unzip();
        let array = |error: usize| -> ! { unreachable!("a batch has {BATCH} parameters, not {error}") };
        let batch = AdamBatch::from_array(batch.try_into().unwrap_or_else(|it: Vec<_>| array(it.len())));
        let gradients = GradientBatch::from_array(gradients.try_into().unwrap_or_else(|it: Vec<_>| array(it.len())));
        states.extend(Dispatch::kahan_adam_batch(batch, gradients, step, compensated).into_array());
    }
    states.extend(work.map(|AdamWork { state, gradient }| Dispatch::kahan_adam(state, gradient, step, compensated)));
    states
}
