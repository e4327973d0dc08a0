//! The order of the rows, and the arrays of one step.

use elmo_kernels::encoder::PackedTexts;

use super::{Split, hash::Random};

/// The rows of every batch of a training epoch, each row of the split in exactly one, also in a short last batch.
///
/// Rows are shuffled: batches are independent draws. The order follows from `seed` and `epoch` alone: a resumed run
/// goes on where it stopped.
///
/// # Panics
/// If `batch_size` is 0.
pub fn plan_training(split: &Split, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    assert!(batch_size > 0, "batch_size is 0");
    let mut rows: Vec<u32> = (0..split.len() as u32).collect();
    Random::new(seed, epoch).shuffle(&mut rows);
    cut(&rows, batch_size)
}

/// The rows of every batch of an evaluation, each row of the split in exactly one, in order.
///
/// # Panics
/// If `batch_size` is 0.
pub fn plan_evaluation(split: &Split, batch_size: usize) -> Vec<Vec<u32>> {
    assert!(batch_size > 0, "batch_size is 0");
    cut(&(0..split.len() as u32).collect::<Vec<_>>(), batch_size)
}

fn cut(rows: &[u32], batch_size: usize) -> Vec<Vec<u32>> {
    rows.chunks(batch_size).map(<[u32]>::to_vec).collect()
}

/// The arrays of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which rows of the split these are.
    pub rows: Vec<u32>,
    /// Their token ids.
    pub texts: PackedTexts,
    /// The positives, each once: output index of the label, and row of this batch from 0. Sorted by label, then row.
    pub positives: Vec<(u32, u32)>,
}

impl Batch {
    /// Gathers these rows of `split`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn gather(split: &Split, rows: &[u32]) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|&row| split.length(row as usize)).collect();
        let ids: Vec<u32> = rows.iter().flat_map(|&row| split.tokens(row as usize)).collect();
        let mut positives: Vec<(u32, u32)> = (0..)
            .zip(rows)
            .flat_map(|(at, &row)| {
                let labels = split.positives(row as usize);
                labels.iter().map(move |&label| (label, at))
            })
            .collect();
        positives.sort_unstable();
        Self { rows: rows.to_vec(), texts: PackedTexts::from_ids(&ids, &lengths), positives }
    }

    /// A batch of rows that come from elsewhere and have no labels: texts to predict for. `rows` counts from 0.
    pub fn from_tokens(rows: &[Vec<u32>]) -> Self {
        Self { rows: (0..rows.len() as u32).collect(), texts: PackedTexts::new(rows), positives: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split_of(lengths: &[usize]) -> Split {
        let tokens: Vec<_> = lengths.iter().map(|&n| vec![5; n]).collect();
        let positives: Vec<_> = (0..lengths.len() as u32).map(|i| vec![i % 3, 7]).collect();
        Split::from_rows(&tokens, &positives)
    }

    fn sorted(batches: &[Vec<u32>]) -> Vec<u32> {
        let mut rows = batches.concat();
        rows.sort_unstable();
        rows
    }

    proptest! {
        #[test]
        fn every_row_is_in_exactly_one_batch(
            lengths in prop::collection::vec(0usize..40, 0..300),
            batch_size in 1usize..50,
            seed: u64,
            epoch in 0u64..100,
        ) {
            let split = split_of(&lengths);
            let all: Vec<u32> = (0..lengths.len() as u32).collect();
            for plan in [plan_training(&split, batch_size, seed, epoch), plan_evaluation(&split, batch_size)] {
                prop_assert_eq!(sorted(&plan), all.clone());
                prop_assert_eq!(plan.len(), lengths.len().div_ceil(batch_size));
                let short = plan.iter().filter(|rows| rows.len() < batch_size).count();
                prop_assert!(short <= 1);
            }
        }
    }

    #[test]
    fn evaluation_keeps_the_order_of_the_rows() {
        let split = split_of(&[3, 1, 3, 2, 1]);
        assert_eq!(plan_evaluation(&split, 2), [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn an_epoch_is_repeatable_and_unlike_others() {
        let lengths: Vec<_> = (0..500).map(|i| i * 7 % 31).collect();
        let split = split_of(&lengths);
        let plan = |seed, epoch| plan_training(&split, 16, seed, epoch);
        assert_eq!(plan(1, 0), plan(1, 0));
        assert_ne!(plan(1, 0), plan(1, 1));
        assert_ne!(plan(1, 0), plan(2, 0));
    }

    /// A resumed run relies on it: whoever changes the order breaks the runs of others.
    #[test]
    fn the_order_is_that_of_this_version() {
        let split = split_of(&[4; 10]);
        let plan = plan_training(&split, 4, 1, 0);
        assert_eq!(plan, [vec![7, 2, 6, 8], vec![0, 1, 5, 9], vec![3, 4]]);
    }

    #[test]
    fn positives_are_sorted_by_label_then_row() {
        let tokens = vec![vec![1]; 3];
        let split = Split::from_rows(&tokens, &[vec![9, 2], vec![], vec![2, 5]]);
        let batch = Batch::gather(&split, &[2, 1, 0]);
        assert_eq!(batch.rows, [2, 1, 0]);
        assert_eq!(batch.positives, [(2, 0), (2, 2), (5, 0), (9, 2)]);
    }

    #[test]
    fn texts_without_labels_make_a_batch() {
        let batch = Batch::from_tokens(&[vec![2, 6, 3], vec![]]);
        assert_eq!(batch.texts, PackedTexts::new(&[vec![2, 6, 3], vec![]]));
        assert_eq!(batch.rows, [0, 1]);
        assert!(batch.positives.is_empty());
    }
}
