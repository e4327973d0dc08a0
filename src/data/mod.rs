//! From the files of a data set to batches of token ids and positives.
//!
//! [`Corpus::load`] reads a data set once: the label space, the tokenised texts (cached on disk, memory-mapped), the
//! positives of every row and the filters of the evaluation. [`plan_training`] and [`plan_evaluation`] order the rows
//! of a [`Split`], and [`Batch::gather`] makes the arrays of one step. No tensor appears here.
//!
//! [`Format`] lists the layouts of data sets; `datasets/README.md` shows them.
//! The rules for texts and label order are those of ELMO's reference code, so that its numbers can be compared.

mod batches;
mod cached;
mod corpus;
mod faults;
mod filter;
mod formats;
mod frequencies;
mod hash;
mod id_table;
mod inspect;
mod labels;
pub(crate) mod plain;
mod points;
mod progress;
mod ragged;
mod report;
mod row;
mod space;
mod split;
mod synthesize;
pub mod text;
mod titles;
mod token_cache;
mod tokenizer;
mod tokenizer_config;
mod truth;
mod vocab_bpe;
mod vocab_txt;
mod wordpiece;

use std::path::Path;

pub use batches::{Batch, plan_evaluation, plan_training};
pub use cached::{train_tokenizer, trained_tokenizer};
pub use corpus::Corpus;
pub(crate) use formats::json::beginning;
pub use formats::{Columns, Format};
pub use frequencies::Frequencies;
pub(crate) use hash::Random;
pub use inspect::{Inspection, PartStats, Quantiles, Share, inspect};
pub use labels::LabelMap;
pub use progress::{Progress, Watch};
pub use report::{Report, Unlisted};
pub use row::TextFields;
pub use split::Split;
pub use synthesize::Synthesis;
pub use token_cache::Tokens;
pub use tokenizer::{StripAccents, TextTokenizer, Vocabulary};
pub use truth::{Truth, load_test};

/// A data set, and how to read it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The folder with its files, or with a folder `raw_text/` or `raw/` in which they are.
    pub dir: &'a Path,
    /// Name of the data set.
    pub name: &'a str,
    /// How its files are written.
    pub format: Format,
    /// Which columns of a table, or fields of JSON lines with label names, are read.
    pub columns: Columns<'a>,
    /// Which fields make the text of a row.
    pub text: TextFields,
    /// Whether every label's title becomes a training row with that one label.
    pub augment_label_data: bool,
    /// Whether `filter_labels_{train,test}.txt` are read.
    pub use_filter_eval: bool,
    /// Outputs of the classifier; 0 for as many as there are labels in the files.
    pub num_labels: usize,
    /// Longest row in tokens, the tokenizer's special tokens included.
    pub max_len: usize,
    /// Order of the outputs: by falling frequency (true) or by label id (false).
    pub label_sort: bool,
    /// Share of the labelled training rows that is held out, in `[0, 1)`.
    pub validation_fraction: f64,
    /// Most rows that are held out.
    pub validation_max: usize,
    /// Seed of the choice of the rows held out.
    pub seed: u64,
    /// Whether tokens that are not in the cache are put there.
    pub keep_tokens: bool,
}

/// What the tests of this module share.
#[cfg(test)]
mod testing {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::OnceLock,
    };

    use super::{Columns, Format, Source, StripAccents, TextFields, TextTokenizer, Vocabulary, Watch, train_tokenizer};

    pub fn food() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/food")
    }

    /// The data set in `dir`, with nothing special asked for.
    pub fn source(dir: &Path) -> Source<'_> {
        Source {
            dir,
            name: "test",
            format: Format::LabelFeatures,
            columns: Columns::default(),
            text: TextFields::Auto,
            augment_label_data: false,
            use_filter_eval: true,
            num_labels: 0,
            max_len: 32,
            label_sort: false,
            validation_fraction: 0.0,
            validation_max: usize::MAX,
            seed: 1,
            keep_tokens: true,
        }
    }

    pub fn vocabulary(size: usize) -> Vocabulary {
        Vocabulary { size, lowercase: true, strip_accents: StripAccents::Auto }
    }

    /// A tokenizer of 1000 tokens, trained on `food`.
    pub fn tokenizer() -> &'static TextTokenizer {
        static TOKENIZER: OnceLock<TextTokenizer> = OnceLock::new();
        TOKENIZER.get_or_init(|| train_tokenizer(&source(&food()), vocabulary(1000), &Watch::default()).unwrap())
    }

    /// A folder with these files.
    pub fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }
}
