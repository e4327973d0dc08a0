//! The operations on Burn's CPU backend: [`cpu`] on the tensors' own memory.

use burn::backend::{
    Flex, TensorMetadata,
    flex::FlexTensor,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::TensorData;

use super::ClassifierOps;
use crate::classifier::{
    cpu::{self, Best},
    positives::Positives,
    problem::{Search, Segment, Step},
};

fn to_f32(tensor: FlexTensor) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("data converted to F32 is F32")
}

impl ClassifierOps for Flex {
    fn classifier_step(
        mut words: IntTensor<Self>,
        mut compensation: IntTensor<Self>,
        x: FloatTensor<Self>,
        mut input_gradient: FloatTensor<Self>,
        positives: Positives,
        segment: Segment,
        step: Step,
    ) -> (IntTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !input_gradient.is_contiguous() {
            input_gradient = input_gradient.to_contiguous();
        }
        // `storage_mut` copies only what somebody else holds too.
        let report = cpu::step(
            &segment,
            &step,
            words.storage_mut(),
            compensation.storage_mut(),
            &to_f32(x),
            &positives,
            input_gradient.storage_mut(),
        );
        let report = TensorData::from([report.loss as f32, report.non_finite as f32]);
        (words, compensation, input_gradient, FlexTensor::from_data(report))
    }

    fn classifier_search(
        words: IntTensor<Self>,
        x: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        labels: IntTensor<Self>,
        segment: Segment,
        search: Search,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let shape = scores.shape();
        let labels = labels.into_data().convert::<i32>().try_into_vec().expect("data converted to I32 is I32");
        let mut best = Best::from_parts(search.k, to_f32(scores), labels);
        cpu::search(&segment, &search, words.storage(), &to_f32(x), &mut best);
        (
            FlexTensor::from_data(TensorData::new(best.scores, shape.clone())),
            FlexTensor::from_data(TensorData::new(best.labels, shape)),
        )
    }
}
