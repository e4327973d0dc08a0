//! How often labels occur in training.

use super::Corpus;

/// How many training rows have each label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frequencies {
    /// Rows of the training file, held-out ones included, that have the label; those beyond the end have none.
    pub counts: Vec<u32>,
    /// Rows of the training file.
    pub rows: usize,
    /// The labels that have a training row of their own beside them, ascending.
    pub label_rows: Vec<u32>,
}

impl Frequencies {
    /// Of rows of labels, and labels with a row of their own.
    pub(super) fn new<'a>(rows: impl Iterator<Item = &'a [u32]>, label_rows: impl Iterator<Item = u32>) -> Self {
        let (mut counts, mut number) = (Vec::new(), 0);
        for row in rows {
            number += 1;
            row.iter().for_each(|label| add(&mut counts, *label, 1));
        }
        let mut label_rows: Vec<u32> = label_rows.collect();
        label_rows.sort_unstable();
        Self { counts, rows: number, label_rows }
    }

    /// Of a data set, by output.
    pub fn of(corpus: &Corpus) -> Self {
        let titles = corpus.train.points()..corpus.train.len();
        let mut label_rows: Vec<u32> = titles.flat_map(|row| corpus.train.positives(row)).copied().collect();
        label_rows.sort_unstable();
        Self { counts: corpus.train_label_freq.clone(), rows: corpus.train_rows, label_rows }
    }

    /// The same by another number of the labels; those that have none are left out.
    pub fn map(&self, number: impl Fn(u32) -> Option<u32>) -> Self {
        let mut counts = Vec::new();
        for (label, count) in (0..).zip(&self.counts).filter(|(_, count)| **count > 0) {
            if let Some(label) = number(label) {
                add(&mut counts, label, *count);
            }
        }
        let mut label_rows: Vec<u32> = self.label_rows.iter().filter_map(|label| number(*label)).collect();
        label_rows.sort_unstable();
        Self { counts, rows: self.rows, label_rows }
    }

    /// With the rows that labels have of their own: every such label one more time, in as many more rows.
    pub fn augmented(&self) -> Self {
        let mut counts = self.counts.clone();
        self.label_rows.iter().for_each(|label| add(&mut counts, *label, 1));
        Self { counts, rows: self.rows + self.label_rows.len(), label_rows: Vec::new() }
    }
}

fn add(counts: &mut Vec<u32>, label: u32, count: u32) {
    let label = label as usize;
    if label >= counts.len() {
        counts.resize(label + 1, 0);
    }
    counts[label] += count;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_labels_count_once_more_each() {
        let plain = Frequencies::new([&[0, 2][..], &[], &[2]].into_iter(), [3, 2].into_iter());
        assert_eq!((&plain.counts[..], plain.rows), (&[1, 0, 2][..], 3));
        let augmented = plain.augmented();
        assert_eq!((&augmented.counts[..], augmented.rows), (&[1, 0, 3, 1][..], 5));
        let mapped = plain.map(|label| (label != 0).then(|| 3 - label));
        assert_eq!((mapped.counts, mapped.label_rows), (vec![0, 2], vec![0, 1]));
    }
}
