//! The operations on tensors, and the backend-extension trait behind them.

mod autodiff;
#[cfg(feature = "flex")]
mod flex;

use burn::backend::{
    Backend, Dispatch, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Int, Tensor};

use super::{
    positives::Positives,
    problem::{Search, Segment, Step},
};

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;

#[cfg(feature = "cube")]
fn step_meta(
    words: &TensorSpec,
    compensation: &TensorSpec,
    _x: &TensorSpec,
    input_gradient: &TensorSpec,
    _positives: &Positives,
    _segment: &Segment,
    _step: &Step,
) -> (TensorSpec, TensorSpec, TensorSpec, TensorSpec) {
    (words.clone(), compensation.clone(), input_gradient.clone(), TensorSpec::new([2].into(), DType::F32))
}

#[cfg(feature = "cube")]
fn search_meta(
    _words: &TensorSpec,
    _x: &TensorSpec,
    scores: &TensorSpec,
    labels: &TensorSpec,
    _segment: &Segment,
    _search: &Search,
) -> (TensorSpec, TensorSpec) {
    (scores.clone(), labels.clone())
}

/// What a backend does for the classifier. Users call [`classifier_step`] and [`classifier_search`].
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait ClassifierOps: Backend {
    /// See [`classifier_step`]. Returns words, compensation, input gradient and report.
    #[fusion(meta = step_meta)]
    fn classifier_step(
        words: IntTensor<Self>,
        compensation: IntTensor<Self>,
        x: FloatTensor<Self>,
        input_gradient: FloatTensor<Self>,
        positives: Positives,
        segment: Segment,
        step: Step,
    ) -> (IntTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// See [`classifier_search`]. Returns scores and labels.
    #[fusion(meta = search_meta)]
    fn classifier_search(
        words: IntTensor<Self>,
        x: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        labels: IntTensor<Self>,
        segment: Segment,
        search: Search,
    ) -> (FloatTensor<Self>, IntTensor<Self>);
}

/// What [`classifier_step`] gives back.
#[derive(Debug)]
pub struct StepOutput {
    /// The segment's weights after the update: the tensor that went in, updated in place if nobody else held it.
    pub words: Tensor<1, Int>,
    /// The head labels' compensation, likewise.
    pub compensation: Tensor<1, Int>,
    /// `[batch, dim]`, F32: what went in plus `G^T W` of this segment.
    pub input_gradient: Tensor<2>,
    /// `[2]`, F32: the loss (0 unless asked for), and how many weights kept their value because the new one was not
    /// finite.
    pub report: Tensor<1>,
}

/// One training step over one segment: logits, gradient of the binary cross-entropy, input gradient, update in place.
///
/// Nothing is read back from the device. Tensors are off the autodiff graph.
///
/// # Shapes
/// - `words`: `[segment.words()]`, U32
/// - `compensation`: `[segment.compensation_words()]`, U32; any length where there is no head
/// - `x`: `[batch, dim]`, F32, F16 or BF16
/// - `input_gradient`: `[batch, dim]`, F32
///
/// # Panics
/// If a shape or a type is wrong, the chunk is zero, or a positive names a row beyond the batch.
pub fn classifier_step(
    segment: Segment,
    step: Step,
    words: Tensor<1, Int>,
    compensation: Tensor<1, Int>,
    x: Tensor<2>,
    positives: Positives,
    input_gradient: Tensor<2>,
) -> StepOutput {
    check_words(&segment, &words);
    let [batch, dim] = x.dims();
    assert_eq!(dim, segment.dim, "features of X and of the classifier");
    assert_eq!(input_gradient.dims(), [batch, dim], "X and its gradient");
    assert_eq!(input_gradient.dtype(), DType::F32, "type of X's gradient");
    assert!(compensation.dims()[0] >= segment.compensation_words());
    positives.check(batch);
    let (words, compensation, input_gradient, report) = Dispatch::classifier_step(
        words.into_dispatch(),
        compensation.into_dispatch(),
        x.into_dispatch(),
        input_gradient.into_dispatch(),
        positives,
        segment,
        step,
    );
    StepOutput {
        words: Tensor::from_dispatch(words),
        compensation: Tensor::from_dispatch(compensation),
        input_gradient: Tensor::from_dispatch(input_gradient),
        report: Tensor::from_dispatch(report),
    }
}

/// Merges the best labels of one segment into what earlier segments found.
///
/// Start with scores of negative infinity and labels of -1; go through the segments in ascending order. Scores come
/// back best first, ties by the lower label; a place that no label took keeps its -1.
///
/// # Shapes
/// - `words`: `[segment.words()]`, U32
/// - `x`: `[batch, dim]`
/// - `scores`: `[batch, k]`, F32
/// - `labels`: `[batch, k]`, I32: the classifier's label indices
///
/// # Panics
/// If a shape or a type is wrong.
pub fn classifier_search(
    segment: Segment,
    search: Search,
    words: Tensor<1, Int>,
    x: Tensor<2>,
    scores: Tensor<2>,
    labels: Tensor<2, Int>,
) -> (Tensor<2>, Tensor<2, Int>) {
    check_words(&segment, &words);
    let [batch, dim] = x.dims();
    assert_eq!(dim, segment.dim, "features of X and of the classifier");
    assert_eq!(scores.dims(), [batch, search.k], "best scores");
    assert_eq!(labels.dims(), [batch, search.k], "best labels");
    assert_eq!((scores.dtype(), labels.dtype()), (DType::F32, DType::I32));
    let (scores, labels) = Dispatch::classifier_search(
        words.into_dispatch(),
        x.into_dispatch(),
        scores.into_dispatch(),
        labels.into_dispatch(),
        segment,
        search,
    );
    (Tensor::from_dispatch(scores), Tensor::from_dispatch(labels))
}

fn check_words(segment: &Segment, words: &Tensor<1, Int>) {
    segment.check();
    assert_eq!(words.dims(), [segment.words()], "words of the segment");
    assert_eq!(words.dtype(), DType::U32, "type of the words");
}
