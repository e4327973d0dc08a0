//! A data set, read, tokenised and split.

use std::{collections::HashSet, path::Path, sync::Arc};

use super::{
    LabelMap, Report, Source, Split, TextTokenizer,
    filter::Filter,
    hash::{self, Fnv128, Random},
    json_lines::{JsonLines, TextRule, find, find_required},
    labels::Titles,
    ragged::Ragged,
    token_cache::{self, TokenStore},
    tokenizer::Training,
};
use crate::error::{Error, Place, Result};

/// Everything that training and evaluation need of a data set.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// Labelled rows of `trn.json` that are not held out, then the label titles if asked for.
    pub train: Split,
    /// Rows held out of `trn.json`, in its order.
    pub valid: Split,
    /// All rows of `tst.json`, in its order.
    pub test: Split,
    pub labels: LabelMap,
    /// Rows of `trn.json` that have the label, for every output. Held-out rows count and label titles do not: this is
    /// the published protocol for propensities, which the reference departs from.
    pub train_label_freq: Vec<u32>,
    /// Rows of `trn.json`, labelled or not: the `N` of the propensities.
    pub train_rows: usize,
    pub report: Report,
}

impl Corpus {
    /// Reads a data set. Tokens are looked for, and left, in `cache_dir`; texts are not kept.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Data`], with file and line, for files that are missing, damaged or at odds with each
    /// other; [`Error::Config`] for a `num_labels` or `max_len` that does not fit them.
    ///
    /// # Panics
    /// If `validation_fraction` is not in `[0, 1)`.
    pub fn load(
        source: &Source,
        tokenizer: &TextTokenizer,
        cache_dir: Option<&Path>,
    ) -> Result<Self> {
        let files = Files::find(source)?;
        let titles = files.titles()?;
        let listed = files.labels.is_some().then(|| titles.len());
        let train = files.points("trn.json", listed)?;
        let test = files.points("tst.json", listed)?;
        let labels = LabelMap::build(source, &titles, &train.labels, &test.labels)?;
        let output = |id| labels.index(id).expect("every label seen has an output");

        let train_filter = read_filter(source, "train", train.labels.len(), &labels)?;
        let test_filter = read_filter(source, "test", test.labels.len(), &labels)?;
        let [train_pairs, test_pairs] = [&train, &test].map(|points| points.labels.values().len());

        let cache = Cache {
            dir: cache_dir,
            tokenizer,
            max_len: source.max_len,
        };
        let (train_tokens, train_hit) = cache.points(&train, "trn", files.rule)?;
        let (test_tokens, test_hit) = cache.points(&test, "tst", files.rule)?;

        let train_positives = train.labels.map_and_sort(output);
        let test_positives = test.labels.map_and_sort(output);
        let mut train_label_freq = vec![0; labels.len()];
        for &label in train_positives.values() {
            train_label_freq[label as usize] += 1;
        }

        let (kept, held_out) = hold_out(source, &train_positives);
        if kept.is_empty() {
            return Err(Error::Data {
                place: Place::file(&train.path).field("target_ind"),
                expected: "at least one training row with a label".into(),
                found: "none".into(),
                hint: None,
            });
        }
        let train_split =
            |rows| Split::new(train_tokens.clone(), rows, &train_positives, &train_filter.rows);
        let (mut train_rows, valid) = (train_split(kept), train_split(held_out));
        let mut title_hit = true;
        if source.augment_label_data {
            let (tokens, hit) = cache.titles(&titles)?;
            title_hit = hit;
            train_rows.add_titles(tokens, (0..titles.len() as u32).map(output));
        }
        let test_rows = (0..test_positives.len() as u32).collect();
        let test_split = Split::new(test_tokens, test_rows, &test_positives, &test_filter.rows);

        let unlabelled = |rows: &Ragged| rows.rows().filter(|row| row.is_empty()).count();
        let rows = train_tokens.len();
        let report = Report {
            train_rows: rows,
            train_unlabelled: unlabelled(&train_positives),
            valid_rows: valid.len(),
            label_rows: if source.augment_label_data {
                titles.len()
            } else {
                0
            },
            train_pairs,
            test_rows: test_split.len(),
            test_unlabelled: unlabelled(&test_positives),
            test_pairs,
            empty_texts: train.empty + test.empty,
            labels: labels.len(),
            labels_in_train: train_label_freq.iter().filter(|&&n| n > 0).count(),
            filter_pairs: test_filter.rows.values().len(),
            filter_skipped: train_filter.skipped + test_filter.skipped,
            tokens_mean: train_tokens.total() as f64 / rows as f64,
            tokens_max: (0..rows).map(|row| train_tokens.length(row)).max().unwrap_or(0),
            truncated: train_tokens.truncated() as f64 / rows as f64,
            cached: train_hit && test_hit && title_hit,
        };
        Ok(Self {
            train: train_rows,
            valid,
            test: test_split,
            labels,
            train_label_freq,
            train_rows: rows,
            report,
        })
    }
}

/// Trains a tokenizer of at most `vocab_size` tokens on the training texts and the label titles of a data set.
///
/// # Errors
/// As [`Corpus::load`] for the files, and [`TextTokenizer::train`].
pub fn train_tokenizer(source: &Source, vocab_size: usize) -> Result<TextTokenizer> {
    let files = Files::find(source)?;
    let mut training = Training::default();
    for text in texts(&find_required(source.dir, "trn.json")?, files.rule)? {
        training.add(text?)?;
    }
    if let Some(path) = &files.labels {
        for title in texts(path, TextRule::Title)? {
            training.add(title?)?;
        }
    }
    training.finish(vocab_size)
}

fn texts(path: &Path, rule: TextRule) -> Result<impl Iterator<Item = Result<String>>> {
    let records = JsonLines::open(path)?;
    Ok(records.map(move |record| Ok(record?.text(rule))))
}
