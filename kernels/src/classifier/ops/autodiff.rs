//! On an autodiff backend the operations work on the inner tensors: the classifier computes its own gradients.

use burn::backend::{
    Autodiff, AutodiffBackend, Backend,
    autodiff::checkpoint::strategy::CheckpointStrategy,
    tensor::{FloatTensor, IntTensor},
};

use super::ClassifierOps;
use crate::classifier::{
    positives::Positives,
    problem::{Search, Segment, Step},
};

impl<B: Backend + ClassifierOps, C: CheckpointStrategy> ClassifierOps for Autodiff<B, C> {
    fn classifier_step(
        words: IntTensor<Self>,
        compensation: IntTensor<Self>,
        x: FloatTensor<Self>,
        input_gradient: FloatTensor<Self>,
        positives: Positives,
        segment: Segment,
        step: Step,
    ) -> (IntTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let x = <Self as AutodiffBackend>::inner(x);
        let input_gradient = <Self as AutodiffBackend>::inner(input_gradient);
        let (words, compensation, input_gradient, report) =
            B::classifier_step(words, compensation, x, input_gradient, positives, segment, step);
        (
            words,
            compensation,
            <Self as AutodiffBackend>::from_inner(input_gradient),
            <Self as AutodiffBackend>::from_inner(report),
        )
    }

    fn classifier_search(
        words: IntTensor<Self>,
        x: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        labels: IntTensor<Self>,
        segment: Segment,
        search: Search,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let x = <Self as AutodiffBackend>::inner(x);
        let scores = <Self as AutodiffBackend>::inner(scores);
        let (scores, labels) = B::classifier_search(words, x, scores, labels, segment, search);
        (<Self as AutodiffBackend>::from_inner(scores), labels)
    }
}
