//! What a configuration says about one data set, and the texts and labels themselves.

use super::{Model, Training, optional};
use crate::data::{Format, TextFields};
use serde::{Deserialize, Serialize};

/// Everything under the key `dataset`: the data, the model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Texts and labels: which, and how they are read.
    pub data: Data,
    /// Encoder and classifier.
    pub model: Model,
    /// Optimization and evaluation.
    pub training: Training,
}

/// `dataset.data`: texts and labels, and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Name of the data set.
    pub dataset: String,
    /// Folder of its files, under `dataset_path`, as `LF-AmazonTitles-131K/raw_text`. `None`: the folder named as the
    /// data set.
    #[serde(with = "optional")]
    pub folder: Option<String>,
    /// The layout of its files.
    pub format: Format,
    /// The column of a table, or the field of JSON lines with label names, that holds the text. `None`: known by its
    /// name.
    #[serde(with = "optional")]
    pub text_column: Option<String>,
    /// The column, or the field, that holds the labels. `None`: known by its name.
    #[serde(with = "optional")]
    pub label_column: Option<String>,
    /// What stands between two labels of a row of a table; `space` and `tab` for these. `None`: found out.
    #[serde(with = "optional")]
    pub label_separator: Option<String>,
    /// Which fields make the text of a row.
    pub text: TextFields,
    /// Every label's title is a training row whose one label is itself.
    pub augment_label_data: bool,
    /// Leave the pairs of `filter_labels_train.txt` (for held-out rows) and `filter_labels_test.txt` out of the
    /// ranking.
    pub use_filter_eval: bool,
    /// Number of labels; 0 for as many as the data has.
    pub num_labels: usize,
    /// Tokens per text, special tokens included; longer texts are cut.
    pub max_len: usize,
    /// Texts per training step.
    pub batch_size: usize,
    /// Texts per step of evaluation and prediction.
    pub test_batch_size: usize,
    /// Number the labels by frequency, the most frequent first.
    /// [`Fp8ChunkedHeadKahan`](super::Implementation::Fp8ChunkedHeadKahan) needs it.
    pub label_sort: bool,
    /// Share of the labelled training rows that is held out for validation.
    pub validation_fraction: f64,
    /// At most so many rows are held out.
    pub validation_max: usize,
}
