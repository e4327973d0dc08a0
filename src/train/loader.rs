//! The loaders that burn-train asks for batches.

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
    data::{Batch, Split, plan_evaluation, plan_training},
    model::{EvalBatch, TrainBatch},
};

/// Training batches: every row once an epoch, in a new order each time the loader is iterated.
#[derive(Clone)]
pub struct TrainLoader {
    split: Arc<Split>,
    batch_size: usize,
    pad_id: u32,
    seed: u64,
    device: Device,
    epoch: Arc<AtomicU64>,
}

impl TrainLoader {
    /// Batches of `split` on `device`.
    pub fn new(
        split: Arc<Split>,
        batch_size: usize,
        pad_id: u32,
        seed: u64,
        device: Device,
    ) -> Self {
        Self {
            split,
            batch_size,
            pad_id,
            seed,
            device,
            epoch: Arc::default(),
        }
    }
}

impl DataLoader<TrainBatch> for TrainLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TrainBatch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        Box::new(Batches {
            plan: plan_training(&self.split, self.batch_size, self.seed, epoch).into_iter(),
            done: 0,
            total: self.split.len(),
            make: move |rows: &[u32]| {
                let batch = Batch::gather(&self.split, rows, self.pad_id);
                TrainBatch::new(&batch, &self.device)
            },
        })
    }

    fn num_items(&self) -> usize {
        self.split.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<TrainBatch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<TrainBatch>> {
        unimplemented_for_several_devices()
    }
}

/// Batches to rank labels for: every row once, shortest first, so that little is padded.
#[derive(Clone)]
pub struct EvalLoader {
    split: Arc<Split>,
    batch_size: usize,
    pad_id: u32,
    device: Device,
}

impl EvalLoader {
    /// Batches of `split` on `device`.
    pub fn new(split: Arc<Split>, batch_size: usize, pad_id: u32, device: Device) -> Self {
        Self {
            split,
            batch_size,
            pad_id,
            device,
        }
    }
}

impl DataLoader<EvalBatch> for EvalLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<EvalBatch> + 'a> {
        Box::new(Batches {
            plan: plan_evaluation(&self.split, self.batch_size).into_iter(),
            done: 0,
            total: self.split.len(),
            make: move |rows: &[u32]| {
                let batch = Batch::gather(&self.split, rows, self.pad_id);
                EvalBatch::new(&batch, &self.split, &self.device)
            },
        })
    }

    fn num_items(&self) -> usize {
        self.split.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<EvalBatch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<EvalBatch>> {
        unimplemented_for_several_devices()
    }
}

/// burn-train slices loaders for strategies with several devices only, and this crate's strategy has one.
fn unimplemented_for_several_devices() -> ! {
    panic!("training on several devices is not available")
}

/// A plan, made into batches as they are asked for.
struct Batches<F> {
    plan: std::vec::IntoIter<Vec<u32>>,
    make: F,
    done: usize,
    total: usize,
}

impl<B, F: Fn(&[u32]) -> B> Iterator for Batches<F> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.plan.next()?;
        self.done += rows.len();
        Some(Ok((self.make)(&rows)))
    }
}

impl<B, F: Fn(&[u32]) -> B> DataLoaderIterator<B> for Batches<F> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.total, Some("rows".into()))
    }
}
