//! A data set, read, tokenised and split.

use std::{path::Path, sync::Arc};

use super::{
    LabelMap, Report, Source, Split, TextTokenizer,
    filter::Filter,
    hash::{self, Fnv128, Random},
    json_lines::{TextRule, find, find_required},
    labels::Titles,
    points::{Points, texts},
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
    /// Which output stands for which label.
    pub labels: LabelMap,
    /// Rows of `trn.json` that have the label, for every output. Held-out rows count and label titles do not: this is
    /// the published protocol for propensities, which the reference departs from.
    pub train_label_freq: Vec<u32>,
    /// Rows of `trn.json`, labelled or not: the `N` of the propensities.
    pub train_rows: usize,
    /// What was found.
    pub report: Report,
}

impl Corpus {
    /// Reads a data set. Tokens are looked for in `cache_dir`, and left there if the source says so; texts are not kept.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Data`], with file and line, for files that are missing, damaged or at odds with each
    /// other; [`Error::Config`] for a `num_labels` or `max_len` that does not fit them.
    ///
    /// # Panics
    /// If `validation_fraction` is not in `[0, 1)`.
    pub fn load(source: &Source, tokenizer: &TextTokenizer, cache_dir: Option<&Path>) -> Result<Self> {
        check_format(source)?;
        let label_file = find(source.dir, "lbl.json");
        if source.augment_label_data && label_file.is_none() {
            // Only for its message: the titles are the rows to add.
            find_required(source.dir, "lbl.json")?;
        }
        let titles = match &label_file {
            Some(path) => {
                let titles = Titles::read(path)?;
                if titles.len() == 0 {
                    return Err(Error::Data {
                        place: Place::file(path),
                        expected: "a label a line".into(),
                        found: "an empty file".into(),
                        hint: Some("without the file, labels are numbered as in the rows".into()),
                    });
                }
                titles
            }
            None => Titles::default(),
        };
        let listed = label_file.as_ref().map(|_| titles.len());
        let train = Points::read(source, "trn.json", listed)?;
        let test = Points::read(source, "tst.json", listed)?;
        let labels = LabelMap::build(source, &titles, &train.labels, &test.labels)?;
        let output = |id| labels.index(id).expect("every label seen has an output");

        let [train_filter, test_filter] = [("train", &train), ("test", &test)].map(|(part, of)| {
            let rows = of.labels.len();
            if source.use_filter_eval {
                let name = format!("filter_labels_{part}.txt");
                Filter::read(source.dir, &name, rows, |id| labels.index(id))
            } else {
                Ok(Filter::none(rows))
            }
        });
        let (train_filter, test_filter) = (train_filter?, test_filter?);

        let cache = Cache {
            dir: cache_dir,
            keep: source.keep_tokens,
            tokenizer,
            max_len: source.max_len,
        };
        let (train_tokens, train_cached) = cache.points(&train, "trn")?;
        let (test_tokens, test_cached) = cache.points(&test, "tst")?;
        let train_labels = train.labels.map_and_sort(output);
        let test_labels = test.labels.map_and_sort(output);

        let (kept, held_out) = hold_out(source, &train_labels);
        if kept.is_empty() {
            return Err(Error::Data {
                place: Place::file(&train.path).field("target_ind"),
                expected: "at least one training row with a label".into(),
                found: "none".into(),
                hint: None,
            });
        }
        let train_points = kept.len();
        let part = |rows| Split::new(train_tokens.clone(), rows, &train_labels, &train_filter.rows);
        let (mut train_split, valid_split) = (part(kept), part(held_out));
        let mut titles_cached = true;
        if let (true, Some(path)) = (source.augment_label_data, &label_file) {
            let (tokens, cached) = cache.titles(path, &titles)?;
            titles_cached = cached;
            train_split.add_titles(tokens, (0..titles.len() as u32).map(output));
        }
        let all = (0..test_labels.len() as u32).collect();
        let test_split = Split::new(test_tokens, all, &test_labels, &test_filter.rows);

        let mut train_label_freq = vec![0; labels.len()];
        for &label in train_labels.values() {
            train_label_freq[label as usize] += 1;
        }
        let unlabelled = |labels: &Ragged| labels.rows().filter(|row| row.is_empty()).count();
        let rows = train_labels.len();
        let report = Report {
            train_rows: rows,
            train_unlabelled: unlabelled(&train_labels),
            valid_rows: valid_split.len(),
            label_rows: train_split.len() - train_points,
            train_pairs: train_labels.values().len(),
            test_rows: test_split.len(),
            test_unlabelled: unlabelled(&test_labels),
            test_pairs: test_labels.values().len(),
            empty_texts: train.empty + test.empty,
            labels: labels.len(),
            labels_in_train: train_label_freq.iter().filter(|&&n| n > 0).count(),
            filter_pairs: test_filter.rows.values().len(),
            filter_skipped: train_filter.skipped + test_filter.skipped,
            tokens_mean: train_tokens.total() as f64 / rows as f64,
            tokens_max: (0..rows).map(|row| train_tokens.length(row)).max().unwrap_or(0),
            truncated: train_tokens.truncated() as f64 / rows as f64,
            cached: train_cached && test_cached && titles_cached,
        };
        Ok(Self {
            train: train_split,
            valid: valid_split,
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
    check_format(source)?;
    let mut training = Training::default();
    let points = find_required(source.dir, "trn.json")?;
    for text in texts(&points, TextRule::of_points(source.name))? {
        training.add(text?)?;
    }
    if let Some(path) = find(source.dir, "lbl.json") {
        for title in texts(&path, TextRule::Title)? {
            training.add(title?)?;
        }
    }
    training.finish(vocab_size)
}

fn check_format(source: &Source) -> Result<()> {
    if source.is_lf_data {
        return Ok(());
    }
    Err(Error::Data {
        place: Place::file(source.dir),
        expected: "label-feature JSON lines (trn.json, tst.json, lbl.json)".into(),
        found: "`is_lf_data = false`, the four-file text format, which this version does not read".into(),
        hint: Some("datasets/README.md shows a row of the format that is read".into()),
    })
}

/// Rows of `trn.json` to train on and rows to hold out, both in order. Rows without a label are in neither.
///
/// The rows with the smallest hash of (seed, row) are held out, so a larger fraction holds out the same rows and more.
fn hold_out(source: &Source, labels: &Ragged) -> (Vec<u32>, Vec<u32>) {
    let fraction = source.validation_fraction;
    assert!((0.0..1.0).contains(&fraction), "validation_fraction {fraction}");
    let mut rows: Vec<u32> = (0u32..)
        .zip(labels.rows())
        .filter_map(|(row, labels)| (!labels.is_empty()).then_some(row))
        .collect();
    let mut held_out = Vec::new();
    if fraction > 0.0 && rows.len() >= 2 {
        let wanted = (fraction * rows.len() as f64).round() as usize;
        let count = wanted.clamp(1, rows.len() - 1).min(source.validation_max);
        rows.sort_by_cached_key(|&row| Random::new(source.seed, row.into()).next());
        held_out = rows.drain(..count).collect();
        rows.sort_unstable();
        held_out.sort_unstable();
    }
    (rows, held_out)
}

/// Where tokens come from.
struct Cache<'a> {
    dir: Option<&'a Path>,
    /// Whether what is not there is put there.
    keep: bool,
    tokenizer: &'a TextTokenizer,
    max_len: usize,
}

impl Cache<'_> {
    /// The tokens of all rows of a file of points, and whether they were in the cache.
    fn points(&self, points: &Points, name: &str) -> Result<(Arc<TokenStore>, bool)> {
        let rows = points.labels.len();
        self.tokens(&points.path, name, points.rule, rows, || points.texts())
    }

    /// The tokens of the titles of the file of labels.
    fn titles(&self, path: &Path, titles: &Titles) -> Result<(Arc<TokenStore>, bool)> {
        let texts = || Ok(titles.iter().map(|title| Ok(title.to_owned())));
        self.tokens(path, "lbl", TextRule::Title, titles.len(), texts)
    }

    fn tokens<T>(
        &self,
        path: &Path,
        name: &str,
        rule: TextRule,
        rows: usize,
        texts: impl Fn() -> Result<T>,
    ) -> Result<(Arc<TokenStore>, bool)>
    where
        T: Iterator<Item = Result<String>>,
    {
        // Without a folder there is nothing to look up, and no need to read the file once more.
        let key = match self.dir {
            Some(_) => self.key(path, rule)?,
            None => 0,
        };
        let dir = self
            .dir
            .filter(|dir| self.keep || token_cache::path(dir, name, key).exists());
        let (store, cached) = TokenStore::open_or_build(dir, name, key, self.tokenizer, self.max_len, texts)?;
        if store.len() == rows {
            return Ok((Arc::new(store), cached));
        }
        Err(Error::Data {
            place: Place::file(path),
            expected: format!("{rows} rows"),
            found: format!("{} when read again", store.len()),
            hint: Some("the file must not change while it is read".into()),
        })
    }

    /// A hash of all that the tokens of a file depend on.
    fn key(&self, path: &Path, rule: TextRule) -> Result<u128> {
        let mut key = Fnv128::new();
        key.write(&token_cache::VERSION.to_le_bytes());
        key.write(&hash::of_file(path)?.to_le_bytes());
        key.write(&[u8::from(rule == TextRule::TitleAndContent)]);
        key.write(&self.tokenizer.fingerprint().to_le_bytes());
        key.write(&(self.max_len as u64).to_le_bytes());
        Ok(key.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::testing::{folder, food, source, tokenizer};

    const TRAIN: &str = r#"{"title": "a", "target_ind": [0]}
{"title": "b", "target_ind": []}
{"title": "c", "target_ind": [2, 0]}
{"title": "d", "target_ind": [2]}
"#;
    const TEST: &str = "{\"title\": \"e\", \"target_ind\": [3]}\n{\"title\": \"f\"}\n";
    const LABELS: &str = "{\"title\": \"p\"}\n{\"title\": \"q\"}\n{\"title\": \"r\"}\n{\"title\": \"s\"}\n";

    fn small() -> tempfile::TempDir {
        folder(&[("trn.json", TRAIN), ("tst.json", TEST), ("lbl.json", LABELS)])
    }

    fn load(source: &Source) -> Result<Corpus> {
        Corpus::load(source, tokenizer(), None)
    }

    #[test]
    fn food_has_the_counts_of_its_stats() {
        let dir = food();
        let stats = fs::read_to_string(dir.join("stats.json")).unwrap();
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let corpus = load(&Source {
            augment_label_data: true,
            validation_fraction: 0.1,
            validation_max: 100,
            ..source(&dir)
        })
        .unwrap();
        let report = &corpus.report;
        for (key, found) in [
            ("train_points", report.train_rows),
            ("train_pairs", report.train_pairs),
            ("test_points", report.test_rows),
            ("test_pairs", report.test_pairs),
            ("labels", report.labels),
            ("filter_test_pairs", report.filter_pairs),
        ] {
            assert_eq!(stats[key], found, "{key}");
        }
        assert_eq!((corpus.train.len(), corpus.valid.len()), (2333 - 100 + 437, 100));
        assert_eq!(corpus.test.len(), 236);
        assert_eq!(corpus.train_label_freq.iter().max(), Some(&237));
        assert_eq!(corpus.labels.title(0), "substance");
        assert_eq!(corpus.test.filter(1), [19, 20, 21, 22, 23]);
        assert!(
            report
                .to_string()
                .starts_with("train   2233 rows + 437 label titles, 2.16 labels")
        );
    }

    #[test]
    fn a_second_load_is_from_the_cache_and_a_changed_input_is_not() {
        let (dir, cache) = (small(), tempfile::tempdir().unwrap());
        let cached = |source: &Source| {
            let corpus = Corpus::load(source, tokenizer(), Some(cache.path())).unwrap();
            corpus.report.cached
        };
        let first = source(dir.path());
        let with_titles = Source {
            augment_label_data: true,
            ..first
        };
        let longer = Source { max_len: 33, ..first };
        let titles_only = Source {
            name: "titles",
            ..first
        };
        for source in [first, with_titles, longer, titles_only] {
            assert!(!cached(&source));
            assert!(cached(&source));
        }
        fs::write(dir.path().join("tst.json"), TEST.replace("\"e\"", "\"g\"")).unwrap();
        assert!(!cached(&first));
    }

    #[test]
    fn unlabelled_rows_are_left_out_of_training_and_kept_in_the_test() {
        let dir = small();
        let corpus = load(&source(dir.path())).unwrap();
        assert_eq!((corpus.train.len(), corpus.test.len()), (3, 2));
        assert_eq!(corpus.train.positives(1), [0, 1]);
        assert!(corpus.test.positives(1).is_empty());
        assert_eq!((corpus.train_rows, corpus.train_label_freq), (4, vec![2, 2, 0]));
        assert_eq!((corpus.report.train_unlabelled, corpus.report.test_unlabelled), (1, 1));
    }

    #[test]
    fn label_titles_are_rows_but_do_not_count_as_frequency() {
        let dir = small();
        let with_titles = Source {
            augment_label_data: true,
            label_sort: true,
            ..source(dir.path())
        };
        let corpus = load(&with_titles).unwrap();
        let ids: Vec<_> = (0..4).map(|index| corpus.labels.id(index)).collect();
        assert_eq!(ids, [0, 2, 3, 1]);
        assert_eq!(corpus.train_label_freq, [2, 2, 0, 0]);
        assert_eq!(corpus.train.len(), 3 + 4);
        assert_eq!(corpus.train.positives(4), [3]);
        let tokens: Vec<_> = corpus.train.tokens(4).collect();
        assert_eq!(tokens, tokenizer().encode("q", 32).unwrap());

        fs::remove_file(dir.path().join("lbl.json")).unwrap();
        let message = load(&with_titles).unwrap_err().to_string();
        assert!(message.contains("lbl.json or lbl.json.gz"), "{message}");
    }

    #[test]
    fn held_out_rows_follow_from_the_seed_and_grow_with_the_fraction() {
        let mut labels = Ragged::new();
        (0..1000).for_each(|row| labels.push((row % 10 != 0).then_some(1)));
        let dir = food();
        let held = |fraction, max, seed| {
            let chosen = Source {
                validation_fraction: fraction,
                validation_max: max,
                seed,
                ..source(&dir)
            };
            let (kept, held_out) = hold_out(&chosen, &labels);
            assert_eq!(kept.len() + held_out.len(), 900);
            held_out
        };
        let tenth = held(0.1, 1000, 1);
        assert_eq!(tenth.len(), 90);
        assert_eq!(tenth, held(0.1, 1000, 1));
        assert_ne!(tenth, held(0.1, 1000, 2));
        let fifth = held(0.2, 1000, 1);
        assert!(tenth.iter().all(|row| fifth.contains(row)));
        assert_eq!(held(0.5, 7, 1).len(), 7);
        assert_eq!(held(1e-9, 7, 1).len(), 1);
        assert!(held(0.0, 7, 1).is_empty());
    }

    #[test]
    fn validation_rows_carry_the_filter_of_their_training_row() {
        let dir = small();
        fs::write(dir.path().join("filter_labels_train.txt"), "0 2\n2 2\n3 0\n").unwrap();
        let corpus = load(&Source {
            validation_fraction: 0.9,
            ..source(dir.path())
        })
        .unwrap();
        let filter_of = |text: &str| match text {
            "a" => [1],
            "c" => [1],
            _ => [0],
        };
        assert_eq!(corpus.valid.len(), 2);
        for row in 0..2 {
            let tokens: Vec<_> = corpus.valid.tokens(row).collect();
            let text = ["a", "c", "d"]
                .into_iter()
                .find(|text| tokenizer().encode(text, 32).unwrap() == tokens);
            assert_eq!(corpus.valid.filter(row), filter_of(text.unwrap()));
        }
    }

    #[test]
    fn the_format_that_is_not_read_is_said_so() {
        let dir = small();
        let four_files = Source {
            is_lf_data: false,
            ..source(dir.path())
        };
        let message = load(&four_files).unwrap_err().to_string();
        assert!(message.contains("four-file text format"), "{message}");
    }

    #[test]
    fn training_without_any_label_is_an_error() {
        let dir = folder(&[("trn.json", "{\"title\": \"a\"}\n"), ("tst.json", TEST)]);
        let message = load(&source(dir.path())).unwrap_err().to_string();
        assert!(message.contains("at least one training row with a label"), "{message}");
    }
}
