//! One training step of the whole model.

use burn::{
    module::ParamGroup,
    optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer},
};

use super::loss::StepReport;
use crate::{
    config::{self, EncoderOptimizer, EncoderTraining},
    encoder::Encoder,
    loader::TrainBatch,
    model::XmcModel,
    optim::{KahanAdam, ModuleAdam, Schedule},
};

/// A learning rate over the steps.
#[derive(Clone, Debug)]
pub struct Rate {
    /// The rate where the schedule's factor is 1.
    pub peak: f64,
    /// Its course.
    pub schedule: Schedule,
}

impl Rate {
    /// As configured, over `steps` steps.
    pub fn new(peak: f64, kind: config::Schedule, warmup: usize, steps: u64) -> Self {
        let schedule = match kind {
            config::Schedule::Constant => Schedule::Constant,
            config::Schedule::CosineScheduleWithWarmup => {
                Schedule::CosineWithWarmup { warmup: warmup as u64, total: steps }
            }
        };
        Self { peak, schedule }
    }

    /// The rate of step `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        self.peak * self.schedule.factor(step)
    }
}

/// What moves the encoder's parameters.
pub enum EncoderUpdate {
    /// Adam, for all of them at once.
    Adam(ModuleAdam),
    /// Any optimizer of Burn, for one parameter after the other.
    Any(ModuleOptimizer),
}

impl EncoderUpdate {
    fn step(&mut self, rate: f64, model: XmcModel, gradients: GradientsParams) -> XmcModel {
        match self {
            Self::Adam(adam) => adam.step(rate, model, gradients),
            Self::Any(optimizer) => optimizer.step(rate, model, gradients),
        }
    }
}

/// How a model learns.
pub struct Learning {
    /// Of the encoder's parameters.
    pub optimizer: EncoderUpdate,
    /// Over the optimizer's steps.
    pub encoder_rate: Rate,
    /// Over the batches: the classifier takes a step for each.
    pub classifier_rate: Rate,
    /// The loss is computed every so many batches; never if 0.
    pub loss_every: u64,
    /// Batches whose gradients make one step of the optimizer: their mean.
    pub accumulation: usize,
}

/// A model that learns: batch in, both of its parts updated.
pub struct Learner {
    /// `None` while the optimizer has it.
    model: Option<XmcModel>,
    learning: Learning,
    /// Steps of the optimizer so far.
    updates: u64,
    group: Group,
}

/// Batches that make one step of the optimizer together.
struct Group {
    gradients: GradientsAccumulator<XmcModel>,
    /// Batches so far, and in all.
    done: usize,
    size: usize,
}

impl Learner {
    /// `model` is on an autodiff device.
    pub fn new(model: XmcModel, learning: Learning) -> Self {
        Self {
            model: Some(model),
            learning,
            updates: 0,
            group: Group { gradients: GradientsAccumulator::new(), done: 0, size: 0 },
        }
    }

    /// The model as it is now.
    pub fn model(&self) -> &XmcModel {
        self.model.as_ref().expect("the optimizer has given it back")
    }

    /// Learns from a batch, after which `left` follow in this epoch. With accumulation, the optimizer steps with the
    /// last batch of a group; the last group of an epoch may be a short one, and its mean is over its own batches.
    pub fn step(&mut self, batch: TrainBatch, left: usize) -> StepReport {
        if self.group.done == self.group.size {
            self.group.done = 0;
            self.group.size = self.learning.accumulation.min(left + 1);
        }
        let XmcModel { encoder, classifier } = self.model();
        let at = classifier.steps();
        let has_loss = self.learning.loss_every > 0 && at.is_multiple_of(self.learning.loss_every);
        let rows = batch.inputs.rows();
        let key = classifier.config().seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pass = encoder.forward_train(batch.inputs, key);
        let rate = self.learning.classifier_rate.at(at);
        let step = classifier.step(pass.embedding.clone(), &batch.positives, rate, has_loss);
        let device = pass.embedding.device();
        let gradients = pass.backward(step.input_gradient / self.group.size as f64);
        self.accumulate(gradients);
        // While the pool of temporary memory learns what sizes are asked for, it replaces its pages, and gives the old
        // ones back to the card only when it is told to. What goes wrong is told when results are read.
        if (at + 1).is_power_of_two() {
            let _ = device.flush();
        }
        StepReport { report: step.report, has_loss, rows }
    }

    fn accumulate(&mut self, gradients: GradientsParams) {
        let group = &mut self.group;
        group.done += 1;
        if group.size == 1 {
            return self.update(gradients);
        }
        let model = self.model.as_ref().expect("the optimizer has given it back");
        group.gradients.accumulate(model, gradients);
        if group.done == group.size {
            let gradients = group.gradients.grads();
            self.update(gradients);
        }
    }

    fn update(&mut self, gradients: GradientsParams) {
        let rate = self.learning.encoder_rate.at(self.updates);
        self.updates += 1;
        // It has the only handle of every parameter, so that it need not copy them.
        let model = self.model.take().expect("the optimizer has given it back");
        self.model = Some(self.learning.optimizer.step(rate, model, gradients));
    }
}

/// Adam or AdamW for the encoder; biases and layer norms do not decay.
pub fn optimizer(encoder: &EncoderTraining) -> ModuleAdam {
    let adam = match encoder.optimizer {
        EncoderOptimizer::Adam => KahanAdam::adam(),
        EncoderOptimizer::AdamW => KahanAdam::adamw(),
    };
    let decaying = KahanAdam { weight_decay: encoder.wd, kahan: encoder.kahan, ..adam };
    let plain = KahanAdam { weight_decay: 0.0, ..decaying.clone() };
    let without_decay = ParamGroup::from_any_predicates(Encoder::WITHOUT_DECAY.to_vec());
    ModuleAdam::new(decaying).with_group(without_decay, plain)
}
