//! What was found in a data set, for a person to check at a glance.

use std::fmt;

use super::formats::json::beginning;
use crate::error::Place;

/// Counts of a [`Corpus`](super::Corpus). Its `Display` is a summary of a few lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The layout of the data set, and its files.
    pub layout: String,
    /// Rows of the training file.
    pub train_rows: usize,
    /// Of these, rows without a label: nothing can be learnt from them and they are left out.
    pub train_unlabelled: usize,
    /// Of these, rows held out for validation.
    pub valid_rows: usize,
    /// Training rows made of label titles.
    pub label_rows: usize,
    /// Pairs of row and label in the training file.
    pub train_pairs: usize,
    /// Of these, pairs of rows that are not held out.
    pub kept_pairs: usize,
    /// Rows of the test file.
    pub test_rows: usize,
    /// Of these, rows without a label: they count as misses.
    pub test_unlabelled: usize,
    /// Pairs of row and label in the test file.
    pub test_pairs: usize,
    /// Rows of both files whose text has no token.
    pub empty_texts: usize,
    /// Rows of both files with `content` that is not read because of the data set's name.
    pub unread_contents: usize,
    /// Labels of rows that the vocabulary does not have.
    pub unlisted_labels: usize,
    /// The first of these.
    pub first_unlisted: Option<Unlisted>,
    /// Outputs of the classifier.
    pub labels: usize,
    /// Of these, labels on at least one row of the training file that is not held out. Rows made of label titles do not count.
    pub labels_in_train: usize,
    /// Labels with an empty title in the list of labels.
    pub untitled: usize,
    /// Pairs of row and label that the test leaves out.
    pub filter_pairs: usize,
    /// Lines of both filter files whose label has no output.
    pub filter_skipped: usize,
    /// Mean number of tokens of a row of the training file, after cutting.
    pub tokens_mean: f64,
    /// Largest number of tokens of a row of the training file, after cutting.
    pub tokens_max: usize,
    /// Share of the rows of the training file that were cut, from 0 to 1.
    pub truncated: f64,
    /// Whether all tokens came from the cache.
    pub cached: bool,
}

/// A label that the vocabulary does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlisted {
    /// What the row calls it.
    pub label: String,
    /// Where the row's labels stand.
    pub place: Option<Place>,
}

impl From<(String, Option<Place>)> for Unlisted {
    fn from((label, place): (String, Option<Place>)) -> Self {
        Self { label, place }
    }
}

/// Behind a count of such labels.
impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
        write!(f, "; the first is `{}`{place}", beginning(&self.label))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let train = self.train_rows - self.train_unlabelled - self.valid_rows;
        let per_row = |pairs: usize, rows: usize| pairs as f64 / rows.max(1) as f64;
        let titles = match self.label_rows {
            0 => String::new(),
            n => format!(" + {}", counted(n, "label title")),
        };
        writeln!(f, "data    {}", self.layout)?;
        writeln!(
            f,
            "train   {}{titles}, {:.2} labels a row ({} without a label left out)",
            counted(train, "row"),
            per_row(self.kept_pairs, train),
            counted(self.train_unlabelled, "row")
        )?;
        writeln!(f, "valid   {}, held out of train", counted(self.valid_rows, "row"))?;
        writeln!(
            f,
            "test    {}, {:.2} labels a row ({} without a label), {} filtered",
            counted(self.test_rows, "row"),
            per_row(self.test_pairs, self.test_rows),
            self.test_unlabelled,
            counted(self.filter_pairs, "pair")
        )?;
        let beside = if self.label_rows > 0 { " other than its title" } else { "" };
        writeln!(f, "labels  {}, {} of them on a training row{beside}", self.labels, self.labels_in_train)?;
        write!(
            f,
            "tokens  {:.1} a row of train and valid, at most {}, {:.1}% of the rows cut{}",
            self.tokens_mean,
            self.tokens_max,
            100.0 * self.truncated,
            if self.cached { " (from the cache)" } else { "" }
        )?;
        if self.unlisted_labels > 0 {
            write!(f, "\nwarning {} of rows not in the vocabulary, left out", counted(self.unlisted_labels, "label"))?;
            self.first_unlisted.iter().try_for_each(|unlisted| write!(f, "{unlisted}"))?;
        }
        for (count, what, warning) in [
            (self.empty_texts, "row", "without a word, in train, valid and test"),
            (self.filter_skipped, "filter pair", "with a label that has no output"),
            (self.untitled, "label", "without a title in the list of labels"),
            (
                self.unread_contents,
                "row",
                "with `content` that is not read, for the data set's name holds \"titles\"; \
                 dataset.data.text=title+content reads it",
            ),
        ] {
            if count > 0 {
                write!(f, "\nwarning {} {warning}", counted(count, what))?;
            }
        }
        Ok(())
    }
}

/// `1 row`, `2 rows`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
