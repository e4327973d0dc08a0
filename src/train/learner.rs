//! One training step of the whole model.

use burn::{
    module::ParamGroup,
    optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer},
};

use super::loss::StepReport;
use crate::{
    config::{self, Course, EncoderOptimizer, EncoderTraining},
    encoder::Encoder,
    loader::TrainBatch,
    model::XmcModel,
    optim::{KahanAdam, KahanSgd, ModuleAdam, Plateau, Schedule, clip},
};

/// A learning rate over the steps.
#[derive(Clone, Debug)]
pub struct Rate {
    /// The rate where the schedule's factor is 1.
    pub peak: f64,
    /// Its course.
    pub schedule: Schedule,
    /// How it falls when training gets no better, if it does.
    pub plateau: Option<Plateau>,
}

impl Rate {
    /// As configured, over `steps` steps.
    pub fn new(peak: f64, course: Course, steps: u64) -> Self {
        let schedule = match course.schedule {
            config::Schedule::Constant | config::Schedule::Plateau => Schedule::Constant,
            config::Schedule::CosineScheduleWithWarmup => {
                Schedule::CosineWithWarmup { warmup: course.warmup_steps as u64, total: steps }
            }
            config::Schedule::MultiStep => Schedule::MultiStep {
                milestones: course.milestones.iter().map(|share| (share * steps as f64) as u64).collect(),
                gamma: course.gamma,
            },
        };
        let is_plateau = course.schedule == config::Schedule::Plateau;
        let plateau = is_plateau.then(|| Plateau::new(course.gamma, course.patience));
        Self { peak, schedule, plateau }
    }

    /// The rate of step `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        self.peak * self.schedule.factor(step) * self.plateau.as_ref().map_or(1.0, Plateau::factor)
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
    pub(super) fn step(&mut self, rate: f64, model: XmcModel, gradients: GradientsParams) -> XmcModel {
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
    /// What the norm of the encoder's gradients together is at most, if there is a limit.
    pub max_norm: Option<f64>,
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

    /// How it learns now.
    pub fn learning(&self) -> &Learning {
        &self.learning
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

    /// Says how good the model is after an epoch, higher being better, to rates that fall when that does not rise.
    pub fn see(&mut self, progress: f64) {
        let Learning { encoder_rate, classifier_rate, .. } = &mut self.learning;
        for plateau in [encoder_rate, classifier_rate].into_iter().filter_map(|rate| rate.plateau.as_mut()) {
            plateau.see(progress);
        }
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
        let gradients = match self.learning.max_norm {
            Some(norm) => clip(gradients, &model.encoder, norm),
            None => gradients,
        };
        self.model = Some(self.learning.optimizer.step(rate, model, gradients));
    }
}

/// The encoder's optimizer as configured; biases and layer norms do not decay.
pub fn optimizer(encoder: &EncoderTraining) -> EncoderUpdate {
    let (weight_decay, kahan) = (encoder.wd, encoder.kahan);
    let without_decay = ParamGroup::from_any_predicates(Encoder::WITHOUT_DECAY.to_vec());
    let adam = match encoder.optimizer {
        EncoderOptimizer::Adam => KahanAdam::adam(),
        EncoderOptimizer::AdamW => KahanAdam::adamw(),
        EncoderOptimizer::Sgd => {
            let decaying = KahanSgd { momentum: encoder.momentum, weight_decay, kahan };
            let plain = KahanSgd { weight_decay: 0.0, ..decaying.clone() };
            return EncoderUpdate::Any(ModuleOptimizer::from(decaying).with_group(without_decay, plain, None));
        }
    };
    let decaying = KahanAdam { weight_decay, kahan, ..adam };
    let plain = KahanAdam { weight_decay: 0.0, ..decaying.clone() };
    EncoderUpdate::Adam(ModuleAdam::new(decaying).with_group(without_decay, plain))
}
