//! Which rows of a batch are examples of which labels.

use std::sync::Arc;

/// The positives of a batch: unique (label, row) pairs, sorted by label, then by row. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positives {
    pairs: Arc<Vec<(u32, u32)>>,
    max_row: Option<u32>,
}

impl Positives {
    /// Takes pairs (label, row) that are sorted by label, then by row, each only once. They are looked at here, and
    /// never again.
    ///
    /// # Panics
    /// If they are not sorted, or a pair is repeated.
    pub fn from_sorted(pairs: Vec<(u32, u32)>) -> Self {
        if let Some(at) = pairs.windows(2).position(|two| two[0] >= two[1]) {
            let (before, after) = (pairs[at], pairs[at + 1]);
            panic!("positives (label, row) must ascend: {before:?} stands before {after:?}");
        }
        Self { max_row: pairs.iter().map(|(_, row)| *row).max(), pairs: Arc::new(pairs) }
    }

    /// Sorts pairs (label, row) and drops repeated ones.
    pub fn new(mut pairs: Vec<(u32, u32)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        Self::from_sorted(pairs)
    }

    /// All pairs.
    pub fn pairs(&self) -> &[(u32, u32)] {
        &self.pairs
    }

    /// The largest label.
    pub fn max_label(&self) -> Option<u32> {
        self.pairs.last().map(|(label, _)| *label)
    }

    /// The largest row.
    pub fn max_row(&self) -> Option<u32> {
        self.max_row
    }

    /// The pairs of the labels `first..first + labels`.
    pub fn in_labels(&self, first: u64, labels: usize) -> &[(u32, u32)] {
        let from = self.pairs.partition_point(|pair| u64::from(pair.0) < first);
        let to = self.pairs.partition_point(|pair| u64::from(pair.0) < first + labels as u64);
        &self.pairs[from..to]
    }

    /// # Panics
    /// If a pair names a row beyond the batch.
    pub(crate) fn check(&self, batch: usize) {
        if let Some(row) = self.max_row {
            assert!((row as usize) < batch, "a positive of row {row} in a batch of {batch} rows");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positives_are_unique_and_found_by_label() {
        let positives = Positives::new(vec![(9, 1), (3, 2), (3, 0), (9, 1), (40, 0)]);
        assert_eq!(positives.pairs(), [(3, 0), (3, 2), (9, 1), (40, 0)]);
        assert_eq!(positives.in_labels(3, 7), [(3, 0), (3, 2), (9, 1)]);
        assert_eq!(positives.in_labels(4, 5), []);
        assert_eq!(positives.in_labels(41, 100), []);
        assert_eq!((positives.max_label(), positives.max_row()), (Some(40), Some(2)));
        let none = Positives::default();
        assert_eq!((none.max_label(), none.max_row()), (None, None));
        assert_eq!(Positives::from_sorted(positives.pairs().to_vec()), positives);
    }

    #[test]
    fn what_is_not_sorted_or_repeated_is_refused() {
        for pairs in [vec![(3, 0), (2, 9)], vec![(3, 1), (3, 0)], vec![(1, 1), (3, 0), (3, 0)]] {
            let refused = std::panic::catch_unwind(|| Positives::from_sorted(pairs.clone()));
            assert!(refused.is_err(), "{pairs:?}");
        }
    }
}
