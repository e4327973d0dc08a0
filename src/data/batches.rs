//! The order of the rows, and the arrays of one step.

use super::{Split, hash::Random};

/// Batches whose rows are sorted by length together. Enough that a batch has rows of nearly one length and so little
/// padding, few enough that its rows are still a random choice.
const POOL: usize = 64;

/// Stream of the generator that orders the batches; the rows' streams are the epochs, which stay far below.
const BATCH_ORDER: u64 = 1 << 63;

/// Widths are multiples of this: a few shapes of tensors instead of one for every length, and aligned rows.
const WIDTH_STEP: usize = 8;

/// The rows of every batch of a training epoch, each row of the split in exactly one, also in a short last batch.
///
/// Rows are shuffled, rows of similar length put together within pools of 64 batches, and the batches shuffled. The
/// order follows from `seed` and `epoch` alone, in every version: a resumed run goes on where it stopped.
///
/// # Panics
/// If `batch_size` is 0.
pub fn plan_training(split: &Split, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    assert!(batch_size > 0, "batch_size is 0");
    let mut rows: Vec<u32> = (0..split.len() as u32).collect();
    Random::new(seed, epoch).shuffle(&mut rows);
    for pool in rows.chunks_mut(POOL.saturating_mul(batch_size)) {
        pool.sort_by_key(|&row| split.length(row as usize));
    }
    let mut batches = cut(&rows, batch_size);
    Random::new(seed, epoch | BATCH_ORDER).shuffle(&mut batches);
    batches
}

/// The rows of every batch of an evaluation, each row of the split in exactly one, shortest first.
///
/// # Panics
/// If `batch_size` is 0.
pub fn plan_evaluation(split: &Split, batch_size: usize) -> Vec<Vec<u32>> {
    assert!(batch_size > 0, "batch_size is 0");
    let mut rows: Vec<u32> = (0..split.len() as u32).collect();
    rows.sort_by_key(|&row| split.length(row as usize));
    cut(&rows, batch_size)
}

fn cut(rows: &[u32], batch_size: usize) -> Vec<Vec<u32>> {
    rows.chunks(batch_size).map(<[u32]>::to_vec).collect()
}

/// The arrays of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which rows of the split these are.
    pub rows: Vec<u32>,
    /// Token ids, `[rows, width]`, filled up with the padding id.
    pub ids: Vec<i32>,
    /// Number of tokens of every row.
    pub lengths: Vec<u32>,
    /// Length of the longest row, rounded up to a multiple of 8; 8 if all rows are empty.
    pub width: usize,
    /// The positives, each once: output index of the label, and row of this batch from 0. Sorted by label, then row.
    pub positives: Vec<(u32, u32)>,
}

impl Batch {
    /// Gathers these rows of `split`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn gather(split: &Split, rows: &[u32], pad_id: u32) -> Self {
        let lengths = rows.iter().map(|&row| split.length(row as usize)).collect();
        let tokens = rows.iter().map(|&row| split.tokens(row as usize));
        let mut batch = Self::padded(lengths, tokens, pad_id);
        batch.positives = (0..)
            .zip(rows)
            .flat_map(|(at, &row)| {
                let labels = split.positives(row as usize);
                labels.iter().map(move |&label| (label, at))
            })
            .collect();
        batch.positives.sort_unstable();
        batch.rows = rows.to_vec();
        batch
    }

    /// A batch of rows that come from elsewhere and have no labels: texts to predict for. `rows` counts from 0.
    pub fn from_tokens(rows: &[Vec<u32>], pad_id: u32) -> Self {
        let lengths = rows.iter().map(Vec::len).collect();
        let tokens = rows.iter().map(|row| row.iter().copied());
        Self::padded(lengths, tokens, pad_id)
    }

    fn padded(lengths: Vec<usize>, tokens: impl Iterator<Item = impl Iterator<Item = u32>>, pad_id: u32) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let width = longest.max(1).next_multiple_of(WIDTH_STEP);
        let mut ids = vec![pad_id as i32; lengths.len() * width];
        for (padded, tokens) in ids.chunks_exact_mut(width).zip(tokens) {
            for (id, token) in padded.iter_mut().zip(tokens) {
                *id = token as i32;
            }
        }
        Self {
            rows: (0..lengths.len() as u32).collect(),
            ids,
            lengths: lengths.into_iter().map(|length| length as u32).collect(),
            width,
            positives: Vec::new(),
        }
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

    fn padding(split: &Split, batches: &[Vec<u32>]) -> usize {
        let batches = batches.iter().map(|rows| Batch::gather(split, rows, 0));
        batches.map(|batch| batch.ids.iter().filter(|&&id| id == 0).count()).sum()
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

        #[test]
        fn widths_are_multiples_of_eight_and_no_wider_than_needed(
            lengths in prop::collection::vec(0usize..70, 1..20),
        ) {
            let split = split_of(&lengths);
            let rows: Vec<u32> = (0..lengths.len() as u32).collect();
            let batch = Batch::gather(&split, &rows, 9);
            let longest = lengths.iter().copied().max().unwrap();
            prop_assert_eq!(batch.width % 8, 0);
            prop_assert!(batch.width >= longest && batch.width < longest.max(1) + 8);
            prop_assert_eq!(batch.ids.len(), batch.width * rows.len());
            for (ids, &length) in batch.ids.chunks(batch.width).zip(&lengths) {
                prop_assert!(ids[..length].iter().all(|&id| id == 5));
                prop_assert!(ids[length..].iter().all(|&id| id == 9));
            }
        }
    }

    #[test]
    fn evaluation_goes_from_short_to_long_and_keeps_ties_in_order() {
        let split = split_of(&[3, 1, 3, 2, 1]);
        assert_eq!(plan_evaluation(&split, 2), [vec![1, 4], vec![3, 0], vec![2]]);
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
    fn the_order_is_the_one_of_the_first_version() {
        let split = split_of(&[4; 10]);
        let plan = plan_training(&split, 4, 1, 0);
        assert_eq!(plan, [vec![3, 4], vec![7, 2, 6, 8], vec![0, 1, 5, 9]]);
    }

    #[test]
    fn pools_spare_most_of_the_padding() {
        let lengths: Vec<_> = (0..3000).map(|i| 4 + i * 37 % 60).collect();
        let split = split_of(&lengths);
        let in_order: Vec<Vec<u32>> = cut(&(0..3000).collect::<Vec<_>>(), 32);
        let planned = plan_training(&split, 32, 3, 0);
        assert!(padding(&split, &planned) * 4 < padding(&split, &in_order));
    }

    #[test]
    fn positives_are_sorted_by_label_then_row() {
        let tokens = vec![vec![1]; 3];
        let split = Split::from_rows(&tokens, &[vec![9, 2], vec![], vec![2, 5]]);
        let batch = Batch::gather(&split, &[2, 1, 0], 0);
        assert_eq!(batch.rows, [2, 1, 0]);
        assert_eq!(batch.positives, [(2, 0), (2, 2), (5, 0), (9, 2)]);
    }

    #[test]
    fn texts_without_labels_make_a_batch() {
        let batch = Batch::from_tokens(&[vec![2, 6, 3], vec![]], 1);
        assert_eq!((batch.width, batch.lengths), (8, vec![3, 0]));
        assert_eq!(batch.ids[..9], [2, 6, 3, 1, 1, 1, 1, 1, 1]);
        assert!(batch.positives.is_empty());
    }
}
