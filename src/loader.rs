//! Batches on a device: those to learn from, in the order that an epoch's number gives, and those to rank labels for.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::{
    classifier::Positives,
    data::{Batch, Split, plan_evaluation, plan_training},
    encoder::Inputs,
};

/// Batches that are gathered before they are asked for, at most.
const AHEAD: usize = 2;

/// Brings the texts of a batch to the device.
pub fn inputs(batch: Batch, device: &Device) -> Inputs {
    Inputs::new(batch.texts, device)
}

/// A batch to learn from.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    /// The texts.
    pub inputs: Inputs,
    /// The rows' labels.
    pub positives: Positives,
}

impl TrainBatch {
    /// Brings a batch to the device.
    pub fn new(mut batch: Batch, device: &Device) -> Self {
        Self { positives: Positives::from_sorted(std::mem::take(&mut batch.positives)), inputs: inputs(batch, device) }
    }
}

/// A batch to rank labels for.
#[derive(Clone, Debug)]
pub struct EvalBatch {
    /// The texts.
    pub inputs: Inputs,
    /// Every row's labels, ascending.
    pub truth: Vec<Vec<u32>>,
    /// Every row's labels that must not be proposed, ascending.
    pub filter: Vec<Vec<u32>>,
}

impl EvalBatch {
    /// Brings a batch of `split` to the device.
    pub fn new(batch: Batch, split: &Split, device: &Device) -> Self {
        let of_rows = |f: &dyn Fn(usize) -> Vec<u32>| batch.rows.iter().map(|row| f(*row as usize)).collect();
        Self {
            truth: of_rows(&|row| split.positives(row).to_vec()),
            filter: of_rows(&|row| split.filter(row).to_vec()),
            inputs: inputs(batch, device),
        }
    }
}

/// Where a training stands in its data: all that is needed to go on with the next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, from 0. Its number and the seed give the order of the rows.
    pub epoch: u64,
    /// Batches of this epoch that are done.
    pub batch: usize,
}

/// Batches of a split on a device, of the kind `B`.
pub struct Loader<B> {
    split: Arc<Split>,
    batch_size: usize,
    device: Device,
    /// Of the order of training rows; evaluation has one order.
    seed: u64,
    make: fn(Batch, &Split, &Device) -> B,
}

impl<B> Loader<B> {
    /// Rows of the split.
    pub fn rows(&self) -> usize {
        self.split.len()
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        self.split.len().div_ceil(self.batch_size)
    }

    fn iterate(&self, plan: Vec<Vec<u32>>, skip: usize) -> Batches<'_, B> {
        let mut plan = plan.into_iter();
        let rows = plan.by_ref().take(skip).map(|rows| rows.len()).sum();
        let left = plan.len();
        let (ready, batches) = mpsc::sync_channel(AHEAD);
        let split = self.split.clone();
        // It ends with the plan, or when nobody wants another batch.
        thread::spawn(move || plan.try_for_each(|rows| ready.send(Batch::gather(&split, &rows))));
        Batches { loader: self, batches, left, rows }
    }
}

impl Loader<TrainBatch> {
    /// Batches to learn from: every row once an epoch, in an order that follows from `seed` and the epoch's number.
    pub fn training(split: Arc<Split>, batch_size: usize, seed: u64, device: Device) -> Self {
        Self { split, batch_size, device, seed, make: |batch, _, device| TrainBatch::new(batch, device) }
    }

    /// The rest of an epoch, from `position` on. The loader has no state of its own.
    pub fn from(&self, position: Position) -> Batches<'_, TrainBatch> {
        let plan = plan_training(&self.split, self.batch_size, self.seed, position.epoch);
        self.iterate(plan, position.batch)
    }
}

impl Loader<EvalBatch> {
    /// Batches to rank labels for: every row once, in their order.
    pub fn evaluation(split: Arc<Split>, batch_size: usize, device: Device) -> Self {
        Self { split, batch_size, device, seed: 0, make: EvalBatch::new }
    }

    /// All batches.
    pub fn iter(&self) -> Batches<'_, EvalBatch> {
        self.iterate(plan_evaluation(&self.split, self.batch_size), 0)
    }
}

/// Batches that are gathered ahead on a thread of their own while the device computes, and brought to it as they are
/// asked for.
pub struct Batches<'a, B> {
    loader: &'a Loader<B>,
    batches: mpsc::Receiver<Batch>,
    left: usize,
    rows: usize,
}

impl<B> Batches<'_, B> {
    /// Rows of the batches handed out so far, those before the first one of this iteration included.
    pub fn rows_done(&self) -> usize {
        self.rows
    }

    /// Batches that are still to come.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl<B> Iterator for Batches<'_, B> {
    type Item = B;

    fn next(&mut self) -> Option<B> {
        if self.left == 0 {
            return None;
        }
        let batch = self.batches.recv().expect("the thread gathers all that is left");
        self.left -= 1;
        self.rows += batch.rows.len();
        let Loader { split, device, .. } = self.loader;
        Some((self.loader.make)(batch, split, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader() -> Loader<TrainBatch> {
        let tokens: Vec<_> = (0..23).map(|row| vec![5; row % 6 + 1]).collect();
        let labels: Vec<_> = (0..23).map(|row| vec![row]).collect();
        Loader::training(Arc::new(Split::from_rows(&tokens, &labels)), 4, 7, Device::flex())
    }

    /// The rows of every batch, ascending; the label of each is its number.
    fn rows(batches: Batches<TrainBatch>) -> Vec<Vec<u32>> {
        let labels = |batch: TrainBatch| batch.positives.pairs().iter().map(|pair| pair.0).collect();
        batches.map(labels).collect()
    }

    #[test]
    fn iterating_again_repeats_an_epoch_and_the_next_one_is_asked_for() {
        let loader = loader();
        let epoch = |epoch| rows(loader.from(Position { epoch, batch: 0 }));
        assert_eq!(loader.batches(), 6);
        assert_eq!(epoch(0), epoch(0));
        assert_ne!(epoch(0), epoch(1));
    }

    #[test]
    fn an_epoch_goes_on_in_its_middle() {
        let loader = loader();
        let whole = rows(loader.from(Position { epoch: 3, batch: 0 }));
        for batch in 0..=6 {
            let rest = loader.from(Position { epoch: 3, batch });
            assert_eq!(rest.left(), 6 - batch);
            assert_eq!(rest.rows_done(), whole[..batch].concat().len());
            assert_eq!(rows(rest), whole[batch..]);
        }
    }
}
