//! The rows of one part of a data set.

use std::sync::Arc;

use super::{
    ragged::Ragged,
    token_cache::{TokenStore, Tokens},
};

/// Rows with tokens, positives and filters; training, validation or test.
#[derive(Debug, Clone)]
pub struct Split {
    /// Rows of a file of points, of which this split has `rows`.
    points: Arc<TokenStore>,
    rows: Vec<u32>,
    /// Label titles that follow the points as rows of their own.
    titles: Option<Arc<TokenStore>>,
    positives: Ragged,
    filter: Ragged,
}

impl Split {
    /// Rows of `points` with their positives and filters, in this order.
    pub(super) fn new(points: Arc<TokenStore>, rows: Vec<u32>, positives: &Ragged, filter: &Ragged) -> Self {
        Self { positives: positives.select(&rows), filter: filter.select(&rows), points, rows, titles: None }
    }

    /// Adds a row for every title; title `i` has the one positive `outputs[i]` and no filter.
    pub(super) fn add_titles(&mut self, titles: Arc<TokenStore>, outputs: impl Iterator<Item = u32>) {
        for output in outputs {
            self.positives.push([output]);
            self.filter.push([]);
        }
        self.titles = Some(titles);
    }

    /// A split from memory: the tokens of every row (special tokens included) and its positives, output indices in any
    /// order. For data that does not come from the files of a data set.
    ///
    /// # Panics
    /// If there are not as many positives as rows.
    pub fn from_rows(tokens: &[Vec<u32>], positives: &[Vec<u32>]) -> Self {
        assert_eq!(tokens.len(), positives.len(), "positives for every row");
        let mut pairs: Vec<_> =
            (0..).zip(positives).flat_map(|(row, labels)| labels.iter().map(move |&label| (row, label))).collect();
        pairs.sort_unstable();
        pairs.dedup();
        Self {
            points: Arc::new(TokenStore::from_rows(tokens)),
            rows: (0..tokens.len() as u32).collect(),
            titles: None,
            positives: Ragged::from_sorted_pairs(tokens.len(), &pairs),
            filter: Ragged::from_sorted_pairs(tokens.len(), &[]),
        }
    }

    /// Rows that are points; the titles follow them.
    pub fn points(&self) -> usize {
        self.rows.len()
    }

    /// The points alone, without the titles that were added.
    pub fn without_titles(&self) -> Self {
        let rows: Vec<u32> = (0..self.rows.len() as u32).collect();
        Self {
            points: self.points.clone(),
            rows: self.rows.clone(),
            titles: None,
            positives: self.positives.select(&rows),
            filter: self.filter.select(&rows),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.positives.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token ids of a row, special tokens included.
    ///
    /// # Panics
    /// If there is no such row; so do the other functions of a row.
    pub fn tokens(&self, row: usize) -> Tokens<'_> {
        let (store, row) = self.locate(row);
        store.tokens(row)
    }

    /// Number of tokens of a row.
    pub fn length(&self, row: usize) -> usize {
        let (store, row) = self.locate(row);
        store.length(row)
    }

    /// Output indices of the labels of a row, sorted, each once.
    pub fn positives(&self, row: usize) -> &[u32] {
        self.positives.row(row)
    }

    /// Output indices that an evaluation of this row leaves out, sorted, each once.
    pub fn filter(&self, row: usize) -> &[u32] {
        self.filter.row(row)
    }

    fn locate(&self, row: usize) -> (&TokenStore, usize) {
        match (self.rows.get(row), &self.titles) {
            (Some(&point), _) => (&self.points, point as usize),
            (None, Some(titles)) => (titles, row - self.rows.len()),
            (None, None) => panic!("row {row} of {}", self.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_rows_follow_the_points() {
        let mut split = Split::from_rows(&[vec![1, 2], vec![3]], &[vec![4, 0, 4], vec![]]);
        assert_eq!(split.positives(0), [0, 4]);
        let titles = Arc::new(TokenStore::from_rows(&[vec![7, 8, 9]]));
        split.add_titles(titles, [5].into_iter());
        assert_eq!(split.len(), 3);
        assert_eq!(split.tokens(2).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!((split.length(1), split.length(2)), (1, 3));
        assert_eq!((split.positives(2), split.filter(2)), (&[5][..], &[][..]));

        let points = split.without_titles();
        assert_eq!((points.len(), points.points(), split.points()), (2, 2, 2));
        assert_eq!((points.positives(0), points.length(1)), (&[0, 4][..], 1));
    }
}
