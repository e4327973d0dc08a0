//! Batches on a device, and the loader that burn-train and the evaluation ask for them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderIterator, Progress},
        dataset::DatasetError,
    },
    tensor::Device,
};

use crate::{
    classifier::Positives,
    data::{Batch, Split, plan_evaluation, plan_training},
    encoder::Inputs,
};

/// Brings the texts of a batch to the device.
pub fn inputs(batch: &Batch, device: &Device) -> Inputs {
    Inputs::padded(batch.ids.clone(), &batch.lengths, batch.width, device)
}

/// A batch to learn from.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    pub inputs: Inputs,
    pub positives: Positives,
}

impl TrainBatch {
    /// Brings a batch to the device.
    pub fn new(batch: Batch, device: &Device) -> Self {
        Self {
            inputs: inputs(&batch, device),
            positives: Positives::new(batch.positives),
        }
    }
}

/// A batch to rank labels for.
#[derive(Clone, Debug)]
pub struct EvalBatch {
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
            inputs: inputs(&batch, device),
            truth: of_rows(&|row| split.positives(row).to_vec()),
            filter: of_rows(&|row| split.filter(row).to_vec()),
        }
    }
}

/// Batches of a split on a device, of the kind `B`.
#[derive(Clone)]
pub struct Loader<B> {
    split: Arc<Split>,
    batch_size: usize,
    pad_id: u32,
    device: Device,
    order: Order,
    make: fn(Batch, &Split, &Device) -> B,
}

#[derive(Clone)]
enum Order {
    /// Shuffled anew each time the loader is iterated.
    Shuffled { seed: u64, epoch: Arc<AtomicU64> },
    /// Shortest first, so that little is padded.
    ByLength,
}

impl Loader<TrainBatch> {
    /// Batches to learn from: every row once an epoch, in a new order each time the loader is iterated.
    pub fn training(split: Arc<Split>, batch_size: usize, pad_id: u32, seed: u64, device: Device) -> Self {
        let epoch = Arc::default();
        Self {
            split,
            batch_size,
            pad_id,
            device,
            order: Order::Shuffled { seed, epoch },
            make: |batch, _, device| TrainBatch::new(batch, device),
        }
    }
}

impl Loader<EvalBatch> {
    /// Batches to rank labels for: every row once.
    pub fn evaluation(split: Arc<Split>, batch_size: usize, pad_id: u32, device: Device) -> Self {
        Self {
            split,
            batch_size,
            pad_id,
            device,
            order: Order::ByLength,
            make: EvalBatch::new,
        }
    }
}

impl<B: Send + 'static> DataLoader<B> for Loader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<B> + 'a> {
        let plan = match &self.order {
            Order::Shuffled { seed, epoch } => {
                let epoch = epoch.fetch_add(1, Ordering::Relaxed);
                plan_training(&self.split, self.batch_size, *seed, epoch)
            }
            Order::ByLength => plan_evaluation(&self.split, self.batch_size),
        };
        Box::new(Batches {
            loader: self,
            plan: plan.into_iter(),
            done: 0,
        })
    }

    fn num_items(&self) -> usize {
        self.split.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<B>> {
        Arc::new(Self {
            split: self.split.clone(),
            device: device.clone(),
            order: self.order.clone(),
            ..*self
        })
    }

    /// burn-train slices loaders for strategies with several devices only, and this crate's strategy has one.
    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B>> {
        panic!("training on several devices is not available")
    }
}

/// A plan, made into batches as they are asked for.
struct Batches<'a, B> {
    loader: &'a Loader<B>,
    plan: std::vec::IntoIter<Vec<u32>>,
    done: usize,
}

impl<B> Iterator for Batches<'_, B> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.plan.next()?;
        self.done += rows.len();
        let Loader { split, device, .. } = self.loader;
        let batch = Batch::gather(split, &rows, self.loader.pad_id);
        Some(Ok((self.loader.make)(batch, split, device)))
    }
}

impl<B> DataLoaderIterator<B> for Batches<'_, B> {
    fn progress(&self) -> Progress {
        let total = self.loader.split.len();
        Progress::new(self.done, total, Some("rows".into()))
    }
}
