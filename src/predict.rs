//! Prediction: text in, labels out.

use serde::Serialize;

use crate::{
    data::Batch,
    encoder::Inputs,
    error::{Error, Result},
    loader,
    trained::Trained,
};

/// The labels of a text, best first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The text as it was given.
    pub text: String,
    /// Its labels; none for a text without words.
    pub labels: Vec<PredictedLabel>,
}

/// A label and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictedLabel {
    /// The label's id in the data set.
    pub id: u32,
    /// The label's title, as in the data set.
    pub title: String,
    /// What the data set calls the label, where that is neither its id nor its title, as the URI of a vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The sigmoid of the label's logit, in `[0, 1]`.
    pub score: f32,
}

/// The `k` best labels of every text, or all where there are fewer, in the order of the texts.
///
/// A text without words has none: one that [is blank](is_blank), or of which the tokenizer makes nothing but special
/// tokens, as of words that it does not know.
///
/// # Errors
/// [`Error::Data`] if a text cannot be tokenised, [`Error::NotFinite`] if the model's scores are not finite.
pub fn predict(trained: &Trained, texts: &[String], k: usize) -> Result<Vec<Prediction>> {
    let mut predictions: Vec<Prediction> =
        (texts.iter()).map(|text| Prediction { text: text.clone(), labels: Vec::new() }).collect();
    for (rows, inputs) in batches(trained, texts)? {
        let ranked = trained.model.rank(inputs, &[], k);
        for (row, ranked) in rows.into_iter().zip(ranked) {
            // A search among scores that are NaN finds too few labels.
            if ranked.len() < k.min(trained.labels.len()) || ranked.iter().any(|(_, logit)| !logit.is_finite()) {
                return Err(Error::NotFinite {
                    hint: Some("its training diverged; try --checkpoint last, or train again with lower rates".into()),
                });
            }
            let label = |(index, logit): (u32, f32)| PredictedLabel {
                id: trained.labels.id(index as usize),
                title: trained.labels.title(index as usize).into_owned(),
                name: trained.labels.name(index as usize).map(str::to_owned),
                score: 1.0 / (1.0 + (-logit).exp()),
            };
            predictions[row].labels = ranked.into_iter().map(label).collect();
        }
    }
    Ok(predictions)
}

/// The texts that have words, in batches on the model's device: which of `texts` they are, and themselves.
///
/// # Errors
/// [`Error::Data`] if a text cannot be tokenised.
pub(crate) fn batches<'a>(
    trained: &'a Trained,
    texts: &[String],
) -> Result<impl Iterator<Item = (Vec<usize>, Inputs)> + use<'a>> {
    let data = &trained.config.dataset.data;
    let tokens = trained.tokenizer.encode_batch(texts, data.max_len)?;
    let has_words = |(row, ids): &(usize, Vec<u32>)| {
        !is_blank(&texts[*row]) && ids.iter().any(|id| !trained.tokenizer.is_special(*id))
    };
    let (rows, tokens): (Vec<usize>, Vec<Vec<u32>>) = tokens.into_iter().enumerate().filter(has_words).unzip();
    let batches: Vec<_> = (rows.chunks(data.test_batch_size).map(<[usize]>::to_vec))
        .zip(tokens.chunks(data.test_batch_size).map(<[Vec<u32>]>::to_vec))
        .collect();
    let on_device = |(rows, tokens): (Vec<usize>, Vec<Vec<u32>>)| {
        (rows, loader::inputs(Batch::from_tokens(&tokens), &trained.compute.device))
    };
    Ok(batches.into_iter().map(on_device))
}

/// Whether there is nothing to see in a text: only spaces of any kind, control characters, and characters that Unicode
/// says are not shown, such as a zero-width space or a soft hyphen.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| {
        c.is_whitespace()
            || c.is_control()
            // `Default_Ignorable_Code_Point`.
            || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
                | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_blank() {
        for text in ["", " \t\r\n", "\u{a0}\u{3000}\u{2028}", "\u{200b}", "\u{ad}", "\u{200d}\u{fe0f}", "\u{feff}\0"] {
            assert!(is_blank(text), "{text:?}");
        }
        for text in ["a", "\u{200b}a", ".", "語", "🍎"] {
            assert!(!is_blank(text), "{text:?}");
        }
    }
}
