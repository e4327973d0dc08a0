//! What a training tells of itself while it runs.

use std::{sync::Arc, time::Duration};

use crate::eval::Metrics;

/// What happens while a model is trained.
#[derive(Clone, Debug)]
pub enum Event {
    /// A training step has been taken.
    Step(StepEvent),
    /// A batch has been ranked, on validation or on test.
    Ranked(RankedEvent),
    /// An epoch has ended, and its checkpoint is on disk.
    Epoch(Box<EpochEvent>),
    /// Something that the user should know, and that does not end the training.
    Warning(String),
}

/// See [`Event::Step`].
#[derive(Clone, Debug)]
pub struct StepEvent {
    /// From 1.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Rows of this epoch seen so far.
    pub rows: usize,
    /// Rows of an epoch.
    pub total_rows: usize,
    /// Steps of the whole training so far.
    pub steps: u64,
    /// Loss a row of this step's batch; `None` if it was not computed.
    pub step_loss: Option<f64>,
    /// Mean loss a row over the epoch so far; `None` while none was computed.
    pub loss: Option<f64>,
    /// Since the epoch began.
    pub elapsed: Duration,
}

/// The rows that metrics are computed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Held out of the training rows.
    Validation,
    /// The test rows.
    Test,
    /// The rows that are learned from, without the titles of labels.
    Training,
}

/// See [`Event::Ranked`].
#[derive(Clone, Debug)]
pub struct RankedEvent {
    /// Which rows are ranked.
    pub of: Rows,
    /// Rows done.
    pub rows: usize,
    /// Rows in all.
    pub total_rows: usize,
    /// Since the first of them.
    pub elapsed: Duration,
}

/// See [`Event::Epoch`].
#[derive(Clone, Debug)]
pub struct EpochEvent {
    /// From 1.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Mean loss a row, over `loss_rows`; `None` if it is never computed.
    pub loss: Option<f64>,
    /// Rows of the steps that computed the loss.
    pub loss_rows: usize,
    /// On the validation rows; `None` if nothing was held out, or it was interrupted.
    pub metrics: Option<Metrics>,
    /// On the test rows, if this epoch is evaluated there.
    pub test: Option<Metrics>,
    /// On the training rows, likewise.
    pub train: Option<Metrics>,
    /// Bytes that the device has set aside so far, weights included; `None` where it does not tell.
    pub device_bytes: Option<u64>,
    /// How long the steps took.
    pub training: Duration,
    /// How long the validation took.
    pub validation: Duration,
    /// Rows of an epoch.
    pub rows: usize,
}

/// Who is told of [`Event`]s.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
