//! The whole model: an encoder and a classifier, and its description, [`ModelSpec`].

mod saved;
mod spec;

use burn::{module::Module, tensor::Tensor};

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
                let mut candidates: Vec<(u32, f32)> =
                    pairs.filter_map(|(label, score)| Some((u32::try_from(*label).ok()?, *score))).collect();
                eval::rank(&mut candidates, filter.get(row).map_or(&[], Vec::as_slice), k);
                candidates
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        classifier::ClassifierConfig,
        device::Compute,
        encoder::{EncoderConfig, TransformerConfig},
    };

    #[test]
    fn filtered_labels_make_room_for_the_next_best() {
        let spec = ModelSpec {
            encoder: EncoderConfig::bert(TransformerConfig {
                vocab_size: 11,
                hidden_size: 8,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                intermediate_size: 16,
                max_position_embeddings: 8,
                ..TransformerConfig::default()
            }),
            embed_dropout: 0.0,
            classifier: ClassifierConfig::new(20, 8),
        };
        let compute = Compute::open(Some("cpu"), false, 1).unwrap();
        let model = spec.init(None, &compute).unwrap().valid();
        let rank = |filter: &[Vec<u32>], k| {
            let inputs = Inputs::of_texts(&[[2, 5, 3], [2, 9, 3]], &compute.device);
            model.rank(inputs, filter, k)
        };
        let all = rank(&[], 20);
        // The best two of the first row, and nothing of the second.
        let mut best = vec![all[0][0].0, all[0][1].0];
        best.sort();
        let filtered = rank(&[best, vec![]], 3);
        assert_eq!(filtered[0], all[0][2..5]);
        assert_eq!(filtered[1], all[1][..3]);
        // More than there are.
        assert_eq!(rank(&[], 50), all);
    }
}
