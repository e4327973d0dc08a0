//! The names of the layouts.

use serde::{Deserialize, Serialize};

/// How the files of a data set are written: what the key `dataset.data.format` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Whichever layout the folder has.
    Auto,
    /// Label-feature JSON lines of the Extreme Classification Repository: `trn.json`, `tst.json`, `lbl.json`.
    LabelFeatures,
    /// The four files of AttentionXML and LightXML: `train_raw_texts.txt`, `train_labels.txt` and those of the test.
    FourFiles,
    /// pyxclib's sparse text beside raw texts, as Renee and DEXML have them: `trn_X.txt`, `trn_X_Y.txt`, `Y.txt`.
    Sparse,
    /// PECOS: `X.trn.txt`, `Y.trn.npz`, `output-items.txt`.
    Pecos,
    /// A table with a header, CSV or TSV: `train.csv`, `test.csv`.
    Table,
    /// JSON lines whose labels are names: `train.jsonl`, `test.jsonl`.
    JsonLines,
    /// Annif's corpora: `train.tsv` without a header, or folders `train` and `test` of full texts; and its vocabulary.
    Annif,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Auto,
        Self::LabelFeatures,
        Self::FourFiles,
        Self::Sparse,
        Self::Pecos,
        Self::Table,
        Self::JsonLines,
        Self::Annif,
    ];

    /// As the key has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::LabelFeatures => "label-features",
            Self::FourFiles => "four-files",
            Self::Sparse => "sparse",
            Self::Pecos => "pecos",
            Self::Table => "table",
            Self::JsonLines => "json-lines",
            Self::Annif => "annif",
        }
    }

    /// The layout for people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Auto => "whatever the folder has",
            Self::LabelFeatures => "label-feature JSON lines",
            Self::FourFiles => "four text files",
            Self::Sparse => "sparse label matrices beside texts",
            Self::Pecos => "PECOS",
            Self::Table => "a table",
            Self::JsonLines => "JSON lines with label names",
            Self::Annif => "an Annif corpus",
        }
    }
}
