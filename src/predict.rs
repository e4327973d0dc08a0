//! Prediction: text in, labels out.

use serde::Serialize;

use crate::{data::Batch, error::Result, loader, model::Trained};

/// The labels of a text, best first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    pub text: String,
    pub labels: Vec<PredictedLabel>,
}

/// A label and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictedLabel {
    /// The label's id in the data set.
    pub id: u32,
    pub title: String,
    /// The sigmoid of the label's logit, in `[0, 1]`.
    pub score: f32,
}

/// The `k` best labels of every text, in the order of the texts. A text without words has none.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) if a text cannot be tokenised.
pub fn predict(trained: &Trained, texts: &[String], k: usize) -> Result<Vec<Prediction>> {
    let data = &trained.config.dataset.data;
    let tokens = trained.tokenizer.encode_batch(texts, data.max_len)?;
    // Texts of like length share a batch, so that little is padded.
    let mut order: Vec<usize> = (0..texts.len()).filter(|row| !texts[*row].trim().is_empty()).collect();
    order.sort_by_key(|row| tokens[*row].len());
    let mut predictions: Vec<Prediction> = (texts.iter())
        .map(|text| Prediction {
            text: text.clone(),
            labels: Vec::new(),
        })
        .collect();
    for rows in order.chunks(data.test_batch_size) {
        let of_batch: Vec<Vec<u32>> = rows.iter().map(|row| tokens[*row].clone()).collect();
        let batch = Batch::from_tokens(&of_batch, trained.tokenizer.pad_id());
        let inputs = loader::inputs(&batch, &trained.compute.device);
        let ranked = trained.model.rank(inputs, &[], k);
        for (row, ranked) in rows.iter().zip(ranked) {
            let label = |(index, logit): (u32, f32)| PredictedLabel {
                id: trained.labels.id(index as usize),
                title: trained.labels.title(index as usize).into_owned(),
                score: 1.0 / (1.0 + (-logit).exp()),
            };
            predictions[*row].labels = ranked.into_iter().map(label).collect();
        }
    }
    Ok(predictions)
}
