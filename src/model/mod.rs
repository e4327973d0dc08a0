//! The whole model: an encoder and a classifier, and its description, [`ModelSpec`].

mod saved;
mod spec;

use burn::{module::Module, tensor::Tensor};

pub(crate) use spec::encoder_from_json;
pub use spec::{Job, ModelSpec, encoder_config, pretrained_encoder};

use crate::{
    classifier::Classifier,
    encoder::{Encoder, Inputs},
    eval,
};

/// Encoder and classifier. Made by [`ModelSpec::init`] or [`Trained::load`](crate::trained::Trained::load).
#[derive(Module, Debug)]
pub struct XmcModel {
    /// Text to embedding.
    pub encoder: Encoder,
    /// Embedding to labels.
    pub classifier: Classifier,
}

impl XmcModel {
    /// The embedding of every row.
    ///
    /// # Shapes
    /// - returns `[batch, dim]`
    pub fn embed(&self, inputs: Inputs) -> Tensor<2> {
        self.encoder.forward(inputs)
    }

    /// The `k` best labels of every row with their logits, best first, those in the row's `filter` left out.
    /// `filter` is empty, or has one ascending list a row.
    pub fn rank(&self, inputs: Inputs, filter: &[Vec<u32>], k: usize) -> Vec<Vec<(u32, f32)>> {
        let longest = filter.iter().map(Vec::len).max().unwrap_or(0);
        let wanted = (k + longest).min(self.classifier.config().labels);
        let best = self.classifier.top_k(self.embed(inputs), wanted);
        let scores: Vec<f32> = best.scores.into_data().iter().collect();
        let labels: Vec<i32> = best.labels.into_data().iter().collect();
        (scores.chunks(wanted).zip(labels.chunks(wanted)).enumerate())
            .map(|(row, (scores, labels))| {
                let pairs = labels.iter().zip(scores);
                let mut candidates: Vec<(u32, f32)> = pairs
                    .filter_map(|(label, score)| Some((u32::try_from(*label).ok()?, *score)))
                    .collect();
                eval::rank(&mut candidates, filter.get(row).map_or(&[], Vec::as_slice), k);
                candidates
            })
            .collect()
    }
}
