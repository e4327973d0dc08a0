//! A data set, read, tokenised and split.

use std::path::Path;

use super::{
    LabelMap, Report, Source, Split, TextFields, TextTokenizer, Unlisted, Watch,
    cached::{Cache, Texts},
    faults::Faults,
    filter::Filter,
    formats::{Files, Labelling},
    hash::Random,
    points::Points,
    ragged::Ragged,
    space::Space,
    token_cache::TokenStore,
};
use crate::error::{Error, Result};

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
    /// Rows of `trn.json` that have the label, for every output up to the last one that has any. Held-out rows count
    /// and label titles do not: this is the published protocol for propensities, which the reference departs from.
    pub train_label_freq: Vec<u32>,
    /// Rows of `trn.json`, labelled or not: the `N` of the propensities.
    pub train_rows: usize,
    /// What was found.
    pub report: Report,
}

impl Corpus {
    /// Reads a data set. Tokens are looked for, and left, in `cache_dir`; texts are not kept. `watch` is told how far
    /// it has come.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Data`], with file and line, for files that are missing, damaged or at odds with each
    /// other; [`Error::Config`] for a `num_labels` or `max_len` that does not fit them.
    ///
    /// # Panics
    /// If `validation_fraction` is not in `[0, 1)`.
    pub fn load(source: &Source, tokenizer: &TextTokenizer, cache_dir: Option<&Path>, watch: &Watch) -> Result<Self> {
        let files = Files::find(source)?;
        let mut space = Space::open(&files, &mut Faults::fatal(), watch)?;
        let mut train = Points::read(&files.train, &mut space, watch)?;
        let mut test = Points::read(&files.test, &mut space, watch)?;
        space.settle([&mut train.labels, &mut test.labels]);
        if !test.have_labels {
            return Err(Error::Data {
                place: files.test.labels_place(),
                expected: "at least one row with the field".into(),
                found: "none".into(),
                hint: files.test.lacks_labels(),
            });
        }
        let Space { titles, names, unlisted, first_unlisted, .. } = space;
        let labels = LabelMap::build(source, &titles, &names, &train.labels, &test.labels)?;
        let outputs = labels.table();
        let output = |id| outputs.get(id).expect("every label seen has an output");
        let filter =
            |path: &Option<_>, rows| Filter::read(path.as_deref(), rows, &mut Faults::fatal(), |id| labels.index(id));
        let train_filter = filter(&files.train_filter, train.labels.len())?;
        let test_filter = filter(&files.test_filter, test.labels.len())?;

        let cache = Cache::new(cache_dir, source, tokenizer, watch);
        let (train_tokens, train_cached) = cache.tokens(Texts::Of(&files.train), "trn", train.labels.len())?;
        let (test_tokens, test_cached) = cache.tokens(Texts::Of(&files.test), "tst", test.labels.len())?;
        let train_labels = train.labels.map_and_sort(output);
        let test_labels = test.labels.map_and_sort(output);

        let (kept, held_out) = hold_out(source, &train_labels);
        if kept.is_empty() {
            return Err(Error::Data {
                place: files.train.labels_place(),
                expected: "at least one training row with a label".into(),
                found: "none".into(),
                hint: (!train.have_labels).then(|| files.train.lacks_labels()).flatten(),
            });
        }
        let train_points = kept.len();
        let part = |rows| Split::new(train_tokens.clone(), rows, &train_labels, &train_filter.rows);
        let (mut train_split, valid_split) = (part(kept), part(held_out));
        let kept_freq = frequencies((0..train_points).map(|row| train_split.positives(row)));
        let mut titles_cached = true;
        if source.augment_label_data {
            let texts = match &files.labelling {
                Labelling::Ids(Some(list)) => Texts::Of(list),
                _ => Texts::Titles(&titles),
            };
            let (tokens, cached) = cache.tokens(texts, "lbl", titles.len())?;
            titles_cached = cached;
            train_split.add_titles(tokens, (0..titles.len() as u32).map(output));
        }
        let all = (0..test_labels.len() as u32).collect();
        let test_split = Split::new(test_tokens.clone(), all, &test_labels, &test_filter.rows);

        let unlabelled = |labels: &Ragged| labels.rows().filter(|row| row.is_empty()).count();
        let empty = |tokens: &TokenStore| {
            let rows = 0..tokens.len();
            rows.filter(|row| tokens.length(*row) <= tokenizer.special_tokens()).count()
        };
        let rows = train_labels.len();
        let report = Report {
            layout: files.layout,
            unlisted_labels: unlisted,
            first_unlisted: first_unlisted.map(Unlisted::from),
            train_rows: rows,
            train_unlabelled: unlabelled(&train_labels),
            valid_rows: valid_split.len(),
            label_rows: train_split.len() - train_points,
            train_pairs: train_labels.values().len(),
            kept_pairs: kept_freq.iter().map(|count| *count as usize).sum(),
            test_rows: test_split.len(),
            test_unlabelled: unlabelled(&test_labels),
            test_pairs: test_labels.values().len(),
            empty_texts: empty(&train_tokens) + empty(&test_tokens),
            unread_contents: match source.text {
                TextFields::Auto => train.unread + test.unread,
                _ => 0,
            },
            labels: labels.len(),
            labels_in_train: kept_freq.iter().filter(|count| **count > 0).count(),
            untitled: titles.iter().filter(|title| title.trim().is_empty()).count(),
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
            train_label_freq: frequencies(train_labels.rows()),
            labels,
            train_rows: rows,
            report,
        })
    }
}

/// How many of the rows have each output, up to the last one that any of them has.
fn frequencies<'a>(rows: impl Iterator<Item = &'a [u32]>) -> Vec<u32> {
    let mut counts = Vec::new();
    for output in rows.flatten() {
        let output = *output as usize;
        if output >= counts.len() {
            counts.resize(output + 1, 0);
        }
        counts[output] += 1;
    }
    counts
}

/// Rows of `trn.json` to train on and rows to hold out, both in order. Rows without a label are in neither.
///
/// The rows with the smallest hash of (seed, row) are held out, so a larger fraction holds out the same rows and more.
fn hold_out(source: &Source, labels: &Ragged) -> (Vec<u32>, Vec<u32>) {
    let fraction = source.validation_fraction;
    assert!((0.0..1.0).contains(&fraction), "validation_fraction {fraction}");
    let mut rows: Vec<u32> =
        (0u32..).zip(labels.rows()).filter_map(|(row, labels)| (!labels.is_empty()).then_some(row)).collect();
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

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

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
        Corpus::load(source, tokenizer(), None, &Watch::default())
    }

    #[test]
    fn food_has_the_counts_of_its_stats() {
        let dir = food();
        let stats = fs::read_to_string(dir.join("stats.json")).unwrap();
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let corpus =
            load(&Source { augment_label_data: true, validation_fraction: 0.1, validation_max: 100, ..source(&dir) })
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
        assert!(report.to_string().contains("\ntrain   2233 rows + 437 label titles, 2.16 labels"));
    }

    #[test]
    fn a_second_load_is_from_the_cache_and_a_changed_input_is_not() {
        let (dir, cache) = (small(), tempfile::tempdir().unwrap());
        let cached = |source: &Source| {
            let corpus = Corpus::load(source, tokenizer(), Some(cache.path()), &Watch::default()).unwrap();
            corpus.report.cached
        };
        let first = source(dir.path());
        let with_titles = Source { augment_label_data: true, ..first };
        let longer = Source { max_len: 33, ..first };
        let titles_only = Source { name: "titles", ..first };
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
        assert_eq!((corpus.train_rows, corpus.train_label_freq), (4, vec![2, 2]));
        assert_eq!((corpus.report.train_unlabelled, corpus.report.test_unlabelled), (1, 1));
    }

    #[test]
    fn label_titles_are_rows_but_do_not_count_as_frequency() {
        let dir = small();
        let with_titles = Source { augment_label_data: true, label_sort: true, ..source(dir.path()) };
        let corpus = load(&with_titles).unwrap();
        let ids: Vec<_> = (0..4).map(|index| corpus.labels.id(index)).collect();
        assert_eq!(ids, [0, 2, 3, 1]);
        assert_eq!(corpus.train_label_freq, [2, 2]);
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
            let chosen = Source { validation_fraction: fraction, validation_max: max, seed, ..source(&dir) };
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
        let corpus = load(&Source { validation_fraction: 0.9, ..source(dir.path()) }).unwrap();
        let filter_of = |text: &str| match text {
            "a" => [1],
            "c" => [1],
            _ => [0],
        };
        assert_eq!(corpus.valid.len(), 2);
        for row in 0..2 {
            let tokens: Vec<_> = corpus.valid.tokens(row).collect();
            let text = ["a", "c", "d"].into_iter().find(|text| tokenizer().encode(text, 32).unwrap() == tokens);
            assert_eq!(corpus.valid.filter(row), filter_of(text.unwrap()));
        }
    }

    #[test]
    fn a_test_file_without_the_field_of_labels_is_an_error() {
        let dir = folder(&[("trn.json", TRAIN), ("tst.json", "{\"title\": \"a\", \"labels\": [0]}\n")]);
        let message = load(&source(dir.path())).unwrap_err().to_string();
        for part in ["tst.json: `target_ind`: expected", "the first row has `labels`, `title`"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn training_without_any_label_is_an_error() {
        for (rows, hint) in [
            (
                "{\"title\": \"a\", \"labels\": [0]}\n",
                "no row has the field `target_ind`; the first row has `labels`, `title`",
            ),
            ("{\"title\": \"a\", \"target_ind\": []}\n", "found none"),
        ] {
            let dir = folder(&[("trn.json", rows), ("tst.json", TEST)]);
            let message = load(&source(dir.path())).unwrap_err().to_string();
            assert!(message.contains("at least one training row with a label"), "{message}");
            assert!(message.contains(hint), "{message}");
        }
    }

    #[test]
    fn the_report_counts_what_its_words_say() {
        let row = |text: &str, label: u32| {
            format!("{{\"title\": \"{text}\", \"content\": \"x\", \"target_ind\": [{label}]}}\n")
        };
        let dir = folder(&[
            ("trn.json", &[row("a", 0), row("b", 1)].concat()),
            ("tst.json", &[row("c", 0), row("\u{200b}", 1)].concat()),
            ("lbl.json", "{\"title\": \"p\"}\n{\"name\": \"q\"}\n"),
        ]);
        let two_rows = Source { name: "subtitles", validation_fraction: 0.5, ..source(dir.path()) };
        let summary = load(&two_rows).unwrap().report.to_string();
        for line in [
            "train   1 row, 1.00 labels a row (0 rows without a label left out)\n",
            "valid   1 row, held out of train\n",
            "labels  2, 1 of them on a training row\n",
            "warning 1 row without a word",
            "warning 1 label without a title in the list of labels",
            "warning 4 rows with `content` that is not read, for the data set's name holds \"titles\"",
        ] {
            assert!(summary.contains(line), "{line}\n{summary}");
        }
        let both = Source { text: TextFields::TitleAndContent, augment_label_data: true, ..two_rows };
        let summary = load(&both).unwrap().report.to_string();
        assert!(summary.contains("\ntrain   1 row + 2 label titles, 1.00 labels a row"), "{summary}");
        assert!(summary.contains("labels  2, 1 of them on a training row other than its title\n"), "{summary}");
        assert!(!summary.contains("not read"), "{summary}");
    }

    #[test]
    fn work_is_told_of() {
        let dir = food();
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = seen.clone();
        let watch = Watch::new(move |progress| {
            assert!(progress.done <= progress.total, "{progress:?}");
            told.lock().unwrap().push(progress.doing);
        });
        let tokenizer =
            crate::data::train_tokenizer(&source(&dir), crate::data::testing::vocabulary(300), &watch).unwrap();
        let cache = tempfile::tempdir().unwrap();
        Corpus::load(&source(&dir), &tokenizer, Some(cache.path()), &watch).unwrap();
        let seen = seen.lock().unwrap();
        let phases =
            ["learning words from", "learning the tokens of", "reading", "looking in the cache for", "tokenising"];
        for doing in phases {
            assert!(seen.contains(&doing), "{doing}");
        }
    }
}
