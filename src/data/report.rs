//! What was found in a data set, for a person to check at a glance.

use std::fmt;

/// Counts of a [`Corpus`](super::Corpus). Its `Display` is a summary of a few lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Rows of `trn.json`.
    pub train_rows: usize,
    /// Of these, rows without a label: nothing can be learnt from them and they are left out.
    pub train_unlabelled: usize,
    /// Of these, rows held out for validation.
    pub valid_rows: usize,
    /// Training rows made of label titles.
    pub label_rows: usize,
    /// Pairs of row and label in `trn.json`.
    pub train_pairs: usize,
    /// Rows of `tst.json`.
    pub test_rows: usize,
    /// Of these, rows without a label: they count as misses.
    pub test_unlabelled: usize,
    /// Pairs of row and label in `tst.json`.
    pub test_pairs: usize,
    /// Rows of both files whose text is empty.
    pub empty_texts: usize,
    /// Outputs of the classifier.
    pub labels: usize,
    /// Of these, labels on at least one row of `trn.json`.
    pub labels_in_train: usize,
    /// Pairs of row and label that the test leaves out.
    pub filter_pairs: usize,
    /// Lines of both filter files whose label has no output.
    pub filter_skipped: usize,
    /// Mean number of tokens of a row of `trn.json`, after cutting.
    pub tokens_mean: f64,
    /// Largest number of tokens of a row of `trn.json`, after cutting.
    pub tokens_max: usize,
    /// Share of the rows of `trn.json` that were cut, from 0 to 1.
    pub truncated: f64,
    /// Whether all tokens came from the cache.
    pub cached: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let train = self.train_rows - self.train_unlabelled - self.valid_rows;
        let per_row = |pairs: usize, rows: usize| pairs as f64 / rows.max(1) as f64;
        writeln!(
            f,
            "train   {train} rows + {} label titles, {:.2} labels a row ({} rows without a label left out)",
            self.label_rows,
            per_row(self.train_pairs, self.train_rows),
            self.train_unlabelled
        )?;
        writeln!(f, "valid   {} rows, held out of train", self.valid_rows)?;
        writeln!(
            f,
            "test    {} rows, {:.2} labels a row ({} without a label), {} pairs filtered",
            self.test_rows,
            per_row(self.test_pairs, self.test_rows),
            self.test_unlabelled,
            self.filter_pairs
        )?;
        writeln!(
            f,
            "labels  {}, {} of them on a training row",
            self.labels, self.labels_in_train
        )?;
        write!(
            f,
            "tokens  {:.1} a row, at most {}, {:.1}% of the rows cut{}",
            self.tokens_mean,
            self.tokens_max,
            100.0 * self.truncated,
            if self.cached { " (from the cache)" } else { "" }
        )?;
        if self.empty_texts > 0 {
            write!(f, "\nwarning {} rows have no text", self.empty_texts)?;
        }
        if self.filter_skipped > 0 {
            let skipped = self.filter_skipped;
            write!(f, "\nwarning {skipped} filter pairs name a label without an output")?;
        }
        Ok(())
    }
}
