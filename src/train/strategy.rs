//! The training loop, as a strategy of burn-train's learner.
//!
//! burn-train's own strategy saves the model without saying when the files are complete, and takes its learning rate
//! one step late for a layer that updates itself. This one saves a checkpoint that survives a crash, steps the schedule
//! before the step that uses it, and stops on numbers that are not finite before they are saved.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use burn::{
    data::dataloader::DataLoader,
    module::Module,
    optim::GradientsAccumulator,
    tensor::{Device, Tensor},
    train::{
        EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
        SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
    },
};
use serde_json::json;

use super::learner::{TrainModel, TrainReport};
use crate::{
    error::{Error, Result},
    eval::{Metrics, Propensity},
    evaluate::rank_all,
    loader::EvalBatch,
    run::{RunFolder, State},
};

/// What happens while a model is trained.
#[derive(Clone, Debug)]
pub enum Event {
    /// A training step has been taken.
    Step(StepEvent),
    /// An epoch has ended, and its checkpoint is on disk.
    Epoch(Box<EpochEvent>),
}

/// See [`Event::Step`].
#[derive(Clone, Debug)]
pub struct StepEvent {
    /// From 1.
    pub epoch: usize,
    pub epochs: usize,
    /// Rows of this epoch seen so far, and in all.
    pub rows: usize,
    pub total_rows: usize,
    /// Mean loss a row over the epoch so far; `None` while none was computed.
    pub loss: Option<f64>,
    /// Since the epoch began.
    pub elapsed: Duration,
}

/// See [`Event::Epoch`].
#[derive(Clone, Debug)]
pub struct EpochEvent {
    /// From 1.
    pub epoch: usize,
    pub epochs: usize,
    /// Mean loss a row.
    pub loss: Option<f64>,
    /// On the validation rows; `None` if nothing was held out.
    pub metrics: Option<Metrics>,
    /// On the test rows, if this epoch is evaluated there.
    pub test: Option<Metrics>,
    /// Bytes that the device has set aside so far, weights included; `None` where it does not tell.
    pub device_bytes: Option<u64>,
    pub training: Duration,
    pub validation: Duration,
    pub rows: usize,
}

/// Who is told of [`Event`]s.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

/// One device, checkpoints after every epoch.
pub struct Strategy {
    pub folder: RunFolder,
    pub device: Device,
    /// The test rows, and every how many epochs they are evaluated; not at all if 0.
    pub test: Arc<dyn DataLoader<EvalBatch>>,
    pub test_every: usize,
    pub propensity: Arc<Propensity>,
    pub observer: Observer,
    /// What stopped the run, if it was not the user.
    pub error: Mutex<Option<Error>>,
}

type Processor = SupervisedTrainingEventProcessor<TrainModel>;

/// Mean loss over the rows of the steps that computed it.
#[derive(Default)]
struct MeanLoss {
    sum: f64,
    rows: usize,
    /// `[1]`, on the device: weights that kept their value because the new one was not finite.
    refused: Option<Tensor<1>>,
}

impl MeanLoss {
    fn value(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.sum / self.rows as f64)
    }

    /// Reads a step's loss if it computed one, which waits for the device.
    fn add(&mut self, item: &TrainReport) -> Result<()> {
        self.refused = Some(match self.refused.take() {
            Some(sum) => sum + item.report.clone().narrow(0, 1, 1),
            None => item.report.clone().narrow(0, 1, 1),
        });
        if item.has_loss {
            let loss: Vec<f32> = item.report.to_data().iter().collect();
            if loss[1] > 0.0 || !loss[0].is_finite() {
                return Err(not_finite(loss[0], loss[1]));
            }
            self.sum += loss[0] as f64;
            self.rows += item.rows;
        }
        Ok(())
    }

    /// Whether every update of the epoch was finite, also in steps that computed no loss.
    fn check(&mut self) -> Result<()> {
        let refused = self.refused.take().map_or(0.0, |sum| sum.into_scalar::<f32>());
        match refused > 0.0 {
            true => Err(not_finite(f32::NAN, refused)),
            false => Ok(()),
        }
    }
}

fn not_finite(loss: f32, refused: f32) -> Error {
    Error::Training {
        message: format!("the numbers are not finite any more (loss {loss}, {refused} updates of weights refused)"),
        hint: Some(
            "lower dataset.training.encoder.lr or dataset.training.xmc.lr; checkpoints of earlier epochs are intact"
                .into(),
        ),
    }
}

/// Whether the user has not stopped the run.
pub fn go_on(interrupter: &Interrupter) -> ControlFlow<()> {
    match interrupter.should_stop() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

impl Strategy {
    fn error_slot(&self) -> MutexGuard<'_, Option<Error>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stopped the run, if it was not the user.
    pub fn take_error(&self) -> Option<Error> {
        self.error_slot().take()
    }

    fn fail(&self, interrupter: &Interrupter, error: Error) {
        interrupter.stop(Some("an error"));
        self.error_slot().get_or_insert(error);
    }

    fn train_epoch(
        &self,
        learner: &mut Learner<TrainModel>,
        loader: &TrainLoader<TrainModel>,
        processor: &mut Processor,
        components: &Scope,
        epoch: usize,
    ) -> Result<Option<f64>> {
        let start = Instant::now();
        let mut loss = MeanLoss::default();
        let mut accumulator = GradientsAccumulator::new();
        let mut accumulated = 0;
        let mut batches = loader.iter();
        let mut iteration = 0;
        while let Some(batch) = batches.next() {
            let batch = batch.expect("the loaders of this crate have read their data");
            let progress = batches.progress();
            iteration += 1;
            if accumulated == 0 {
                learner.lr_step();
            }
            let output = learner.train_step(batch);
            accumulated += 1;
            if components.accumulation == 1 {
                learner.optimizer_step(output.grads);
                accumulated = 0;
            } else {
                accumulator.accumulate(&learner.model(), output.grads);
                if accumulated == components.accumulation || progress.is_completed() {
                    learner.optimizer_step(accumulator.grads());
                    accumulated = 0;
                }
            }
            loss.add(&output.item)?;
            (self.observer)(&Event::Step(StepEvent {
                epoch,
                epochs: components.epochs,
                rows: progress.items_processed,
                total_rows: progress.items_total,
                loss: loss.value(),
                elapsed: start.elapsed(),
            }));
            let lr = Some(learner.lr_current());
            let item = TrainingItem::new(output.item, progress, Some(iteration), lr);
            let event = LearnerEvent::ProcessedItem(item);
            components.interrupter.fail_on_error(processor.process_train(event));
            if components.interrupter.should_stop() {
                break;
            }
        }
        loss.check()?;
        Ok(loss.value())
    }

    fn validate(
        &self,
        learner: &Learner<TrainModel>,
        loader: &ValidLoader<TrainModel>,
        processor: &mut Processor,
        interrupter: &Interrupter,
    ) -> Option<Metrics> {
        let model = learner.model().model.valid();
        let mut iteration = 0;
        let on_batch = |ranked, progress| {
            iteration += 1;
            let item = TrainingItem::new(ranked, progress, Some(iteration), None);
            interrupter.fail_on_error(processor.process_valid(LearnerEvent::ProcessedItem(item)));
            go_on(interrupter)
        };
        rank_all(&model, &**loader, self.propensity.clone(), on_batch).ok()
    }

    /// Puts the epoch on disk, then tells of it.
    fn finish_epoch(&self, learner: &Learner<TrainModel>, event: EpochEvent) -> Result<()> {
        let model = learner.model().model.valid();
        let precision = event.metrics.as_ref().map(|m| m.precision_at(1));
        let state = State::new(event.epoch, model.classifier.steps(), precision);
        self.folder.save_checkpoint(&model, state)?;
        self.folder.append_metrics(&json!({
            "epoch": event.epoch,
            "loss": event.loss,
            "valid": event.metrics.as_ref().map(Metrics::to_json),
            "test": event.test.as_ref().map(Metrics::to_json),
            "device_bytes": event.device_bytes,
            "seconds": event.training.as_secs_f64(),
            "valid_seconds": event.validation.as_secs_f64(),
            "rows": event.rows,
        }))?;
        (self.observer)(&Event::Epoch(Box::new(event)));
        Ok(())
    }
}

/// What the loop takes from burn-train's components.
struct Scope {
    epochs: usize,
    accumulation: usize,
    interrupter: Interrupter,
}

impl SupervisedLearningStrategy<TrainModel> for Strategy {
    fn fit(
        &self,
        components: TrainingComponents<TrainModel>,
        mut learner: Learner<TrainModel>,
        train: TrainLoader<TrainModel>,
        valid: ValidLoader<TrainModel>,
        starting_epoch: usize,
    ) -> (TrainModel, Processor) {
        let mut processor = components.event_processor;
        let scope = Scope {
            epochs: components.num_epochs,
            accumulation: components.grad_accumulation.unwrap_or(1),
            interrupter: components.interrupter,
        };
        let interrupter = &scope.interrupter;
        for epoch in starting_epoch..=scope.epochs {
            interrupter.fail_on_error(processor.process_train(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items: train.num_items(),
            }));
            let start = Instant::now();
            let loss = self.train_epoch(&mut learner, &train, &mut processor, &scope, epoch);
            let training = start.elapsed();
            interrupter.fail_on_error(processor.process_train(LearnerEvent::EndSplit(epoch)));
            let loss = match loss {
                Ok(loss) => loss,
                Err(error) => {
                    self.fail(interrupter, error);
                    break;
                }
            };
            if interrupter.should_stop() {
                break;
            }

            let start = Instant::now();
            let mut metrics = None;
            if valid.num_items() > 0 {
                interrupter.fail_on_error(processor.process_valid(LearnerEvent::StartSplit {
                    epoch_number: epoch,
                    total_items: valid.num_items(),
                }));
                // None if it was interrupted: what was seen of the validation rows says nothing.
                metrics = self.validate(&learner, &valid, &mut processor, interrupter);
                interrupter.fail_on_error(processor.process_valid(LearnerEvent::EndSplit(epoch)));
            }
            interrupter.fail_on_error(processor.process_train(LearnerEvent::EndEpoch(epoch)));
            interrupter.fail_on_error(processor.flush());
            let validation = start.elapsed();
            let mut test = None;
            if self.test_every > 0 && epoch.is_multiple_of(self.test_every) && !interrupter.should_stop() {
                let model = learner.model().model.valid();
                let on_batch = |_, _| go_on(interrupter);
                test = rank_all(&model, &*self.test, self.propensity.clone(), on_batch).ok();
            }
            let event = EpochEvent {
                epoch,
                epochs: scope.epochs,
                loss,
                metrics,
                test,
                device_bytes: self.device.memory_pool_usage().map(|usage| usage.bytes_reserved),
                training,
                validation,
                rows: train.num_items(),
            };
            if let Err(error) = self.finish_epoch(&learner, event) {
                self.fail(interrupter, error);
            }
            if interrupter.should_stop() {
                break;
            }
        }
        (learner.model(), processor)
    }
}
