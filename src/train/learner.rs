//! The model as burn-train's learner sees it: with a step to train, a step to validate, and the classifier's schedule.

use burn::{
    backend::ExecutionError,
    module::Module,
    tensor::Tensor,
    train::{InferenceStep, ItemLazy, TrainOutput, TrainStep},
};

use crate::{
    evaluate::Ranked,
    loader::{EvalBatch, TrainBatch},
    model::XmcModel,
    optim::Schedule,
};

/// How the classifier learns.
#[derive(Clone, Debug)]
pub struct ClassifierSchedule {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its course over the classifier's steps.
    pub schedule: Schedule,
    /// The loss is computed every so many steps; never if 0.
    pub loss_every: u64,
    /// Micro-batches whose gradients the encoder sums before it steps; the input gradient is divided by it.
    pub accumulation: usize,
}

impl ClassifierSchedule {
    /// The learning rate of step `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.factor(step)
    }

    /// Whether step `step` computes its loss.
    pub fn wants_loss(&self, step: u64) -> bool {
        self.loss_every > 0 && step.is_multiple_of(self.loss_every)
    }
}

/// A model that is trained.
#[derive(Module, Debug)]
pub struct TrainModel {
    pub model: XmcModel,
    #[module(skip)]
    pub schedule: ClassifierSchedule,
}

/// What a training step reports.
#[derive(Debug, Clone)]
pub struct TrainReport {
    /// See [`ClassifierStep::report`](crate::classifier::ClassifierStep::report).
    pub report: Tensor<1>,
    /// Whether the step computed its loss.
    pub has_loss: bool,
    /// Rows of the batch.
    pub rows: usize,
}

impl ItemLazy for TrainReport {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl TrainStep for TrainModel {
    type Input = TrainBatch;
    type Output = TrainReport;

    fn step(&self, batch: TrainBatch) -> TrainOutput<TrainReport> {
        let XmcModel { encoder, classifier } = &self.model;
        let at = classifier.steps();
        let wants_loss = self.schedule.wants_loss(at);
        let rows = batch.inputs.rows();
        let key = classifier.config().seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pass = encoder.forward_train(batch.inputs, key);
        let step = classifier.step(
            pass.embedding.clone(),
            &batch.positives,
            self.schedule.at(at),
            wants_loss,
        );
        TrainOutput {
            grads: pass.backward(step.input_gradient / self.schedule.accumulation as f64),
            item: TrainReport {
                report: step.report,
                has_loss: wants_loss,
                rows,
            },
        }
    }
}

impl ItemLazy for Ranked {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl InferenceStep for TrainModel {
    type Input = EvalBatch;
    type Output = Ranked;

    fn step(&self, batch: EvalBatch) -> Ranked {
        Ranked::new(&self.model, batch)
    }
}
