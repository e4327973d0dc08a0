//! The training loop: epochs of steps, validation, and a checkpoint after each.
//!
//! The loop is its own rather than burn-train's: that one saves a model without saying when its files are complete,
//! takes the learning rate one step late for a layer that updates itself, and keeps a second handle of every parameter
//! while the optimizer steps.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use burn::{module::Module, tensor::Device};
use serde_json::json;

use super::{
    event::{EpochEvent, Event, Observer, RankedEvent, Rows, StepEvent},
    interrupter::Interrupter,
    learner::Learner,
    loss::MeanLoss,
};
use crate::{
    error::{Error, Result},
    eval::{Metrics, Scoring},
    evaluate::rank_all,
    loader::{EvalBatch, Loader, Position, TrainBatch},
    model::XmcModel,
    run::{Checkpoint, RunFolder, State, Which},
};

/// The user is warned where more than this share of the classifier's weights is at the limit of its format.
const SATURATED: f64 = 0.1;
/// Likewise where the loss is so many times that of a classifier that has learned nothing. With a few labels a training
/// that ends well may pass through a hundred times.
const DIVERGED: f64 = 1000.0;

/// What the loop works on: data, a run folder, and who watches.
pub struct Epochs {
    /// How many.
    pub epochs: usize,
    /// What is learned from.
    pub train: Loader<TrainBatch>,
    /// What is held out; may be empty.
    pub valid: Loader<EvalBatch>,
    /// The test rows.
    pub test: Loader<EvalBatch>,
    /// Every how many epochs the test rows are evaluated; not at all if 0.
    pub test_every: usize,
    /// The rows of `train` to be evaluated.
    pub learned: Loader<EvalBatch>,
    /// Every how many epochs they are; not at all if 0.
    pub train_every: usize,
    /// What the metrics are.
    pub scoring: Scoring,
    /// Where checkpoints go.
    pub folder: RunFolder,
    /// Where the model is.
    pub device: Device,
    /// Who is told.
    pub observer: Observer,
    /// Who may stop it.
    pub interrupter: Interrupter,
}

/// What the steps of an epoch did.
struct Trained {
    loss: Option<f64>,
    loss_rows: usize,
    took: Duration,
}

impl Epochs {
    /// Trains from `start` to the end of the last epoch. An epoch that is interrupted leaves no checkpoint.
    ///
    /// # Errors
    /// [`Error::Training`] if the numbers stop being finite, [`Error::Interrupted`] if the user stopped it,
    /// [`Error::Io`] and [`Error::Run`] from the run folder. Checkpoints written before stay.
    pub fn run(&self, learner: &mut Learner, start: Position) -> Result<()> {
        let mut warned = false;
        let mut position = start;
        while position.epoch < self.epochs as u64 {
            let epoch = position.epoch as usize + 1;
            let trained = self.train_epoch(learner, position)?;
            // Off the autodiff graph; the values are shared.
            let model = learner.model().valid();
            let start = Instant::now();
            // Without the metrics if it is interrupted: what was seen of the rows says nothing. The epoch is complete.
            let metrics = match self.valid.rows() {
                0 => None,
                _ => self.rank(&model, Rows::Validation).ok(),
            };
            let validation = start.elapsed();
            let progress = metrics.as_ref().map(|metrics| metrics.precision_at(1)).or(trained.loss.map(|loss| -loss));
            if let Some(progress) = progress {
                learner.see(progress);
            }
            let due = |every: usize, rows| {
                let is_due = every > 0 && epoch.is_multiple_of(every) && !self.interrupter.should_stop();
                is_due.then(|| self.rank(&model, rows).ok()).flatten()
            };
            let test = due(self.test_every, Rows::Test);
            let train = due(self.train_every, Rows::Training);
            let warning = diverged(&model, trained.loss).filter(|_| !warned);
            let event = EpochEvent {
                epoch,
                epochs: self.epochs,
                loss: trained.loss,
                loss_rows: trained.loss_rows,
                metrics,
                test,
                train,
                device_bytes: self.device.memory_pool_usage().map(|usage| usage.bytes_reserved),
                training: trained.took,
                validation,
                rows: self.train.rows(),
            };
            self.save(&model, &event)?;
            (self.observer)(&Event::Epoch(Box::new(event)));
            if let Some(warning) = warning {
                warned = true;
                (self.observer)(&Event::Warning(warning));
            }
            position = Position { epoch: position.epoch + 1, batch: 0 };
            if self.interrupter.should_stop() {
                return Err(interrupted(&self.folder));
            }
        }
        Ok(())
    }

    fn train_epoch(&self, learner: &mut Learner, from: Position) -> Result<Trained> {
        let start = Instant::now();
        let mut loss = MeanLoss::default();
        let mut batches = self.train.from(from);
        loop {
            if self.interrupter.should_stop() {
                return Err(interrupted(&self.folder));
            }
            let Some(batch) = batches.next() else {
                break;
            };
            let report = learner.step(batch, batches.left());
            let step_loss = loss.add(&report)?;
            (self.observer)(&Event::Step(StepEvent {
                epoch: from.epoch as usize + 1,
                epochs: self.epochs,
                rows: batches.rows_done(),
                total_rows: self.train.rows(),
                steps: learner.model().classifier.steps(),
                step_loss,
                loss: loss.value(),
                elapsed: start.elapsed(),
            }));
        }
        loss.check()?;
        Ok(Trained { loss: loss.value(), loss_rows: loss.rows(), took: start.elapsed() })
    }

    /// The metrics of a model on some rows, unless it is interrupted.
    ///
    /// # Errors
    /// `Err(())` if it is.
    pub fn rank(&self, model: &XmcModel, of: Rows) -> Result<Metrics, ()> {
        let start = Instant::now();
        let loader = match of {
            Rows::Validation => &self.valid,
            Rows::Test => &self.test,
            Rows::Training => &self.learned,
        };
        if self.interrupter.should_stop() {
            return Err(());
        }
        let on_batch = |rows| -> ControlFlow<()> {
            (self.observer)(&Event::Ranked(RankedEvent {
                of,
                rows,
                total_rows: loader.rows(),
                elapsed: start.elapsed(),
            }));
            match rows < loader.rows() {
                true => self.interrupter.check(),
                // What is complete is kept.
                false => ControlFlow::Continue(()),
            }
        };
        rank_all(model, loader, &self.scoring, on_batch)
    }

    /// Puts the epoch on disk.
    fn save(&self, model: &XmcModel, event: &EpochEvent) -> Result<()> {
        let precision = event.metrics.as_ref().map(|metrics| metrics.precision_at(1));
        let state = State::new(event.epoch, model.classifier.steps(), precision);
        self.folder.save_checkpoint(&Checkpoint { model: model.clone(), optimizer: None, state })?;
        self.folder.append_metrics(&json!({
            "epoch": event.epoch,
            "loss": event.loss,
            "loss_rows": event.loss_rows,
            "valid": event.metrics.as_ref().map(Metrics::to_json),
            "test": event.test.as_ref().map(Metrics::to_json),
            "train": event.train.as_ref().map(Metrics::to_json),
            "device_bytes": event.device_bytes,
            "seconds": event.training.as_secs_f64(),
            "valid_seconds": event.validation.as_secs_f64(),
            "rows": event.rows,
        }))
    }
}

/// The error of a training that was stopped: what is saved, where, and how to go on.
pub fn interrupted(folder: &RunFolder) -> Error {
    let path = folder.path().display();
    let hint = match folder.state(Which::Last) {
        Ok(state) => format!(
            "the last complete epoch, {}, is saved in {path}: elmo evaluate {path} --checkpoint last",
            state.epoch
        ),
        Err(_) => format!("no epoch was complete, so {path} holds no checkpoint; train again"),
    };
    Error::Interrupted { hint: Some(hint) }
}

/// What is to be said if the classifier's weights have grown beyond what their format or their use allows.
fn diverged(model: &XmcModel, loss: Option<f64>) -> Option<String> {
    let saturated = model.classifier.saturated();
    let labels = model.classifier.config().labels;
    // The loss of logits that are all 0.
    let unlearned = labels as f64 * std::f64::consts::LN_2;
    let what = if saturated > SATURATED {
        format!("{:.0}% of the classifier's weights are at the limit of their format, 448", 100.0 * saturated)
    } else {
        let loss = loss.filter(|loss| *loss > DIVERGED * unlearned)?;
        format!("the loss is {loss:.1} a row, where a classifier that has learned nothing has {unlearned:.1}")
    };
    Some(format!("{what}: lower dataset.training.xmc.lr"))
}
