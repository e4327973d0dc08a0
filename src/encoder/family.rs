//! The families of encoders: what tells them apart is data.
//!
//! A family is one more variant of [`Family`] and a file with its [`Facts`], as `bert.rs` is for BERT: the names of its
//! tensors, the keys of its `config.json`, and the switches of the transformer.

use serde::{Deserialize, Serialize};

use super::{bert::BERT, distilbert::DISTILBERT, facts::Facts, roberta::ROBERTA};

/// A family of encoders, under the `model_type` of its `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// BERT (Devlin et al., 2019).
    Bert,
    /// DistilBERT (Sanh et al., 2019): BERT with half the layers, and without segments.
    DistilBert,
    /// RoBERTa (Liu et al., 2019): BERT with another vocabulary, whose positions begin after the padding token's id.
    Roberta,
}

impl Family {
    /// All that can be read, as a message lists them.
    pub(super) const READ: &str = "`bert`, `distilbert` or `roberta`";

    pub(super) fn facts(self) -> &'static Facts {
        match self {
            Self::Bert => &BERT,
            Self::DistilBert => &DISTILBERT,
            Self::Roberta => &ROBERTA,
        }
    }
}
