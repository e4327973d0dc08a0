//! A look at a data set before anything is trained on it: counts, quantiles, and every fault in its files.

mod picture;
mod quantiles;

use std::fmt;

pub use quantiles::Quantiles;
use rayon::prelude::*;

use super::{
    LabelMap, Source, TextTokenizer, Watch,
    faults::Faults,
    filter::Filter,
    formats::{Files, Part},
    points::Points,
    ragged::Ragged,
    report::Unlisted,
    row::Row,
    space::Space,
};
use crate::error::{Error, Result};

/// What is in a data set.
#[derive(Debug)]
pub struct Inspection {
    /// The layout, and the files.
    pub layout: String,
    /// Rows to train on, among them those that may be held out.
    pub train: PartStats,
    /// Rows to evaluate on.
    pub test: PartStats,
    /// Labels that occur, or have a title.
    pub labels: usize,
    /// Labels on a training row.
    pub labels_in_train: usize,
    /// Labels on test rows alone: no model can learn them from rows.
    pub labels_in_test_only: usize,
    /// Training rows of the labels that have one.
    pub rows_a_label: Option<Quantiles>,
    /// Shares of the labels that have a training row.
    pub shares: [Share; 3],
    /// Labels of rows that the vocabulary does not have.
    pub unlisted_labels: usize,
    /// The first of these.
    pub first_unlisted: Option<Unlisted>,
    /// Pairs of both filters, and those of them whose label does not occur.
    pub filter_pairs: [usize; 2],
    /// How often labels occur in train, as a picture of several lines.
    pub picture: String,
    /// The first faults of the files.
    pub faults: Vec<Error>,
    /// The number of all faults.
    pub fault_count: usize,
}

/// What is in one file of rows.
#[derive(Debug, Default)]
pub struct PartStats {
    /// Rows.
    pub rows: usize,
    /// Of these, rows without a label.
    pub unlabelled: usize,
    /// Of these, rows without text.
    pub without_text: usize,
    /// Pairs of row and label.
    pub pairs: usize,
    /// Labels of a row.
    pub labels_a_row: Option<Quantiles>,
    /// Words of a text: what stands between spaces.
    pub words: Option<Quantiles>,
    /// Tokens of a text, special ones included, if a tokenizer was given.
    pub tokens: Option<Quantiles>,
}

/// The labels with a like number of training rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// What they are called.
    pub name: &'static str,
    /// The fewest and the most training rows that one of them has.
    pub rows: [u32; 2],
    /// How many labels they are.
    pub labels: usize,
    /// Pairs of training row and label.
    pub pairs: usize,
}

/// Training rows of a label of the head, the torso and the tail.
const SHARES: [(&str, [u32; 2]); 3] = [("head", [101, u32::MAX]), ("torso", [6, 100]), ("tail", [1, 5])];

/// Texts that are tokenised at a time.
const CHUNK: usize = 4096;

/// Reads a data set as a training would, but goes on behind faults, of which it keeps `most_faults`. `watch` is told how far
/// it has come.
///
/// # Errors
/// [`Error::Io`] and [`Error::Data`] if the files of a layout are not there.
///
/// # Panics
/// Never.
pub fn inspect(
    source: &Source,
    tokenizer: Option<&TextTokenizer>,
    most_faults: usize,
    watch: &Watch,
) -> Result<Inspection> {
    let files = Files::find(source)?;
    let mut faults = Faults::listed(most_faults);
    let mut space = Space::open(&files, &mut faults, watch)?;
    let listed = space.titles.len();
    let (mut train, mut train_labels) = part(&files.train, &mut space, tokenizer, &mut faults, watch)?;
    let (mut test, mut test_labels) = part(&files.test, &mut space, tokenizer, &mut faults, watch)?;
    space.settle([&mut train_labels, &mut test_labels]);
    let everything = Source { num_labels: 0, ..*source };
    let map = LabelMap::build(&everything, &space.titles, &space.names, &train_labels, &test_labels)?;
    let index = |id| map.index(id);
    let train_filter = Filter::read(files.train_filter.as_deref(), train_labels.len(), &mut faults, index)?;
    let test_filter = Filter::read(files.test_filter.as_deref(), test_labels.len(), &mut faults, index)?;

    for (part, labels) in [(&mut train, &train_labels), (&mut test, &test_labels)] {
        part.rows = labels.len();
        part.unlabelled = labels.rows().filter(|row| row.is_empty()).count();
        part.pairs = labels.values().len();
        part.labels_a_row = Quantiles::of(labels.rows().map(|row| row.len() as u32).collect());
    }
    let outputs = map.table();
    let mut counts = vec![0; map.len()];
    for id in train_labels.values() {
        counts[outputs.get(*id).expect("every label seen has an output") as usize] += 1u32;
    }
    drop((train_labels, test_labels));
    counts.retain(|count| *count > 0);
    counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
    let shares = SHARES.map(|(name, rows)| {
        let of_share = || counts.iter().filter(|count| (rows[0]..=rows[1]).contains(count));
        let pairs = of_share().map(|count| *count as usize).sum();
        Share { name, rows, labels: of_share().count(), pairs }
    });
    let (faults, fault_count) = faults.finish();
    Ok(Inspection {
        layout: files.layout,
        labels: map.len().max(listed),
        labels_in_train: counts.len(),
        labels_in_test_only: map.len() - counts.len(),
        shares,
        unlisted_labels: space.unlisted,
        first_unlisted: space.first_unlisted.map(Unlisted::from),
        filter_pairs: [
            train_filter.rows.values().len() + test_filter.rows.values().len(),
            train_filter.skipped + test_filter.skipped,
        ],
        picture: picture::draw(&counts),
        rows_a_label: Quantiles::of(counts),
        train,
        test,
        faults,
        fault_count,
    })
}

/// Reads a file of rows: what its texts are like, and its labels.
fn part(
    part: &Part,
    space: &mut Space,
    tokenizer: Option<&TextTokenizer>,
    faults: &mut Faults,
    watch: &Watch,
) -> Result<(PartStats, Ragged)> {
    let mut stats = PartStats::default();
    let (mut words, mut tokens, mut waiting, mut failed) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut count = |texts: &mut Vec<String>, failed: &mut Option<Error>| {
        let counted: Result<Vec<u32>> = match tokenizer {
            Some(tokenizer) => {
                (texts.par_iter()).map(|text| Ok(tokenizer.encode(text, usize::MAX)?.len() as u32)).collect()
            }
            None => Ok(Vec::new()),
        };
        match counted {
            Ok(counted) => tokens.extend(counted),
            Err(error) => *failed = Some(error),
        }
        texts.clear();
    };
    let points = Points::read_all(part, space, faults, watch, |row: &Row| {
        let words_of_row = row.text.split_whitespace().count() as u32;
        stats.without_text += usize::from(words_of_row == 0);
        words.push(words_of_row);
        if tokenizer.is_some() {
            waiting.push(row.text.clone());
            if waiting.len() == CHUNK {
                count(&mut waiting, &mut failed);
            }
        }
    })?;
    count(&mut waiting, &mut failed);
    if let Some(error) = failed {
        return Err(error);
    }
    stats.words = Quantiles::of(words);
    stats.tokens = Quantiles::of(tokens);
    Ok((stats, points.labels))
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "data    {}", self.layout)?;
        for (name, part) in [("train", &self.train), ("test", &self.test)] {
            let PartStats { rows, unlabelled, without_text, pairs, .. } = part;
            writeln!(
                f,
                "{name:<8}{rows} rows, {pairs} labels on them; {unlabelled} without a label, {without_text} without text"
            )?;
        }
        let [pairs, skipped] = self.filter_pairs;
        writeln!(
            f,
            "labels  {}, {} of them on a training row, {} on test rows alone",
            self.labels, self.labels_in_train, self.labels_in_test_only
        )?;
        writeln!(f, "filter  {pairs} pairs of row and label, {skipped} more whose label does not occur")?;
        if self.unlisted_labels > 0 {
            write!(f, "warning {} labels of rows not in the vocabulary, left out", self.unlisted_labels)?;
            self.first_unlisted.iter().try_for_each(|unlisted| write!(f, "{unlisted}"))?;
            writeln!(f)?;
        }
        write!(f, "\n{:<26}{:>10}", "", "mean")?;
        quantiles::NAMES.iter().try_for_each(|name| write!(f, "{name:>9}"))?;
        for (name, quantiles) in [
            ("labels a row, train", &self.train.labels_a_row),
            ("labels a row, test", &self.test.labels_a_row),
            ("rows a label, train", &self.rows_a_label),
            ("words a row, train", &self.train.words),
            ("words a row, test", &self.test.words),
            ("tokens a row, train", &self.train.tokens),
            ("tokens a row, test", &self.test.tokens),
        ] {
            if let Some(quantiles) = quantiles {
                write!(f, "\n{name:<26}{quantiles}")?;
            }
        }
        writeln!(f, "\n")?;
        let all: usize = self.shares.iter().map(|share| share.pairs).sum();
        for Share { name, rows: [fewest, most], labels, pairs } in &self.shares {
            let rows = match *most {
                u32::MAX => format!("{fewest} rows or more"),
                most => format!("{fewest} to {most} rows"),
            };
            let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
            writeln!(
                f,
                "{name:<8}{rows:<18}{labels:>10} labels, {:5.1}%; {:5.1}% of all labels on rows",
                percent(*labels, self.labels_in_train),
                percent(*pairs, all)
            )?;
        }
        if !self.picture.is_empty() {
            write!(
                f,
                "\ntraining rows of a label, from the most frequent label on (both logarithmic)\n{}\n",
                self.picture
            )?;
        }
        match self.fault_count {
            0 => write!(f, "\nno faults"),
            1 => write!(f, "\n1 fault"),
            n => write!(f, "\n{n} faults"),
        }?;
        if self.faults.len() < self.fault_count {
            write!(f, ", of which the first {}", self.faults.len())?;
        }
        self.faults.iter().try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{
        Format,
        testing::{folder, food, source, tokenizer},
    };

    fn look(source: &Source, tokenizer: Option<&TextTokenizer>, most: usize) -> Inspection {
        inspect(source, tokenizer, most, &Watch::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn food_has_the_counts_of_its_stats() {
        let dir = food();
        let found = look(&source(&dir), Some(tokenizer()), 10);
        assert_eq!((found.train.rows, found.test.rows, found.labels), (2333, 236, 437));
        assert_eq!((found.train.pairs, found.labels_in_train, found.fault_count), (5042, 437, 0));
        let shares = found.shares.map(|share| share.labels);
        assert_eq!(shares.iter().sum::<usize>(), 437);
        assert_eq!(found.rows_a_label.as_ref().unwrap().values[6], 237);
        let [words, tokens] = [&found.train.words, &found.train.tokens].map(|quantiles| quantiles.clone().unwrap());
        assert!(words.values.iter().zip(tokens.values).all(|(words, tokens)| tokens > *words));
        let summary = found.to_string();
        for part in ["tokens a row, train", "no faults", "237 │█", "train   2333 rows, 5042 labels"] {
            assert!(summary.contains(part), "{part}\n{summary}");
        }
    }

    #[test]
    fn every_fault_is_counted_and_the_first_are_listed() {
        let good = "{\"title\": \"a\", \"target_ind\": [1]}\n";
        let train =
            format!("{good}{{\"title\": 3}}\n{good}nothing\n{{\"title\": \"b\", \"target_ind\": [0, 7]}}\n{good}");
        let dir = folder(&[
            ("trn.json", &train),
            ("tst.json", "{\"title\": \"a\", \"target_ind\": [2]}\n[]\n"),
            ("lbl.json", "{\"title\": \"p\"}\n{\"title\": false}\n{\"title\": \"r\"}\n"),
            ("filter_labels_train.txt", "0 1\n9 1\nx\n0 0\n"),
        ]);
        let found = look(&source(dir.path()), None, 100);
        let faults: Vec<_> = found.faults.iter().map(ToString::to_string).collect();
        for (fault, part) in faults.iter().zip([
            "lbl.json:2: `title`: expected a text or null, found false",
            "trn.json:2: `title`: expected a text or null, found 3",
            "trn.json:4: expected one JSON object a line, found `nothing`",
            "trn.json:5: `target_ind`: expected ids below 3, the number of labels, found 7",
            "tst.json:2: expected one JSON object a line, found a JSON array",
            "filter_labels_train.txt:2: expected a row below 6, found `9 1`",
            "filter_labels_train.txt:3: expected two numbers",
        ]) {
            assert!(fault.contains(part), "{fault}\n{part}");
        }
        assert_eq!((faults.len(), found.fault_count), (7, 7));
        assert_eq!((found.train.rows, found.train.pairs, found.train.unlabelled), (6, 3, 3));
        assert_eq!((found.labels_in_train, found.labels_in_test_only), (1, 1));
        assert_eq!(found.filter_pairs, [1, 1]);
        let few = look(&source(dir.path()), None, 2).to_string();
        assert!(few.contains("\n7 faults, of which the first 2\n"), "{few}");
        assert!(few.contains("trn.json:2") && !few.contains("trn.json:4"), "{few}");
    }

    #[test]
    fn labels_that_a_vocabulary_lacks_are_counted_and_the_first_is_named() {
        let dir = folder(&[
            ("train.tsv", "a\tu:1\nb\t<u:7> u:1 u:8\nc\tu:8\n"),
            ("test.tsv", "a\tu:1\n"),
            ("vocabulary.tsv", "u:1\twine\n"),
        ]);
        let annif = Source { format: Format::Annif, ..source(dir.path()) };
        let found = look(&annif, None, 5);
        assert_eq!((found.unlisted_labels, found.train.pairs, found.fault_count), (3, 2, 0));
        let corpus = crate::data::Corpus::load(&annif, tokenizer(), None, &Watch::default()).unwrap();
        for summary in [found.to_string(), corpus.report.to_string()] {
            assert!(summary.contains("warning 3 labels of rows not in the vocabulary, left out; the first is `u:7` ("));
            assert!(summary.contains("train.tsv:2)"), "{summary}");
        }
    }

    #[test]
    fn files_that_break_off_end_the_look_at_them_alone() {
        let packed = crate::data::text::tests::gzip("{\"text\": \"a\", \"labels\": [\"b\"]}\n".repeat(9000).as_bytes());
        let dir = folder(&[("test.jsonl", "{\"text\": \"a\", \"labels\": [\"b\"]}\n")]);
        std::fs::write(dir.path().join("train.jsonl.gz"), &packed[..packed.len() - 20]).unwrap();
        let found = look(&Source { format: Format::Auto, ..source(dir.path()) }, None, 5);
        assert_eq!((found.fault_count, found.test.rows), (1, 1));
        assert!(found.faults[0].to_string().contains("expected a complete gzip archive"));
    }

    #[test]
    fn shares_are_those_of_labels_with_so_many_rows() {
        let row = |label: usize| format!("{{\"text\": \"a\", \"labels\": [\"{label}\"]}}\n");
        let mut train: String = (0..150).map(|_| row(0)).collect();
        train.extend((0..6).map(|_| row(1)));
        train.extend((2..5).map(row));
        let dir = folder(&[("train.jsonl", &train), ("test.jsonl", &row(9))]);
        let found = look(&Source { format: Format::Auto, ..source(dir.path()) }, None, 5);
        let shares = found.shares.map(|share| (share.name, share.labels, share.pairs));
        assert_eq!(shares, [("head", 1, 150), ("torso", 1, 6), ("tail", 3, 3)]);
        assert_eq!((found.labels, found.labels_in_test_only), (6, 1));
    }
}
