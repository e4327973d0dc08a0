//! What a configuration says about training and evaluation.

use serde::{Deserialize, Serialize};

/// `dataset.training`: optimization and evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Seed of everything random.
    pub seed: u64,
    /// Passes over the training rows.
    pub epochs: usize,
    /// What is minimized.
    pub loss_fn: LossFn,
    /// Compute the training loss, and stop if it is not finite any more, every so many steps; 0 for never.
    ///
    /// Training does not need the loss, only its gradient: each one computed is extra work. An epoch of fewer than 40
    /// steps computes all of its losses, a longer one at least four.
    pub loss_every: usize,
    /// The encoder's optimizer.
    pub encoder: EncoderTraining,
    /// The classifier's optimizer.
    pub xmc: XmcTraining,
    /// 8-bit floating point beyond the classifier's weights.
    #[serde(rename = "FP8")]
    pub fp8: Fp8,
    /// What the metrics depend on.
    pub evaluation: Evaluation,
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossFn {
    /// Binary cross-entropy, summed over labels and texts.
    Bce,
}

/// How a learning rate changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// A linear rise over `warmup_steps`, then half a cosine down to 0 at the last step.
    CosineScheduleWithWarmup,
    /// Always `lr`, without warm-up.
    Constant,
    /// `lr`, multiplied by `gamma` at each of `milestones`.
    #[serde(rename = "MultiStepLR")]
    MultiStep,
    /// `lr`, multiplied by `gamma` whenever more than `patience` epochs in a row are no better than the best one.
    #[serde(rename = "ReduceLROnPlateau")]
    Plateau,
}

/// The course of a learning rate, as configured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course<'a> {
    /// Its kind.
    pub schedule: Schedule,
    /// Steps in which it rises from 0.
    pub warmup_steps: usize,
    /// Shares of all steps at which it falls.
    pub milestones: &'a [f64],
    /// By what it falls.
    pub gamma: f64,
    /// Epochs that it waits for.
    pub patience: usize,
}

impl Course<'static> {
    /// Always the same.
    pub const CONSTANT: Self =
        Self { schedule: Schedule::Constant, warmup_steps: 0, milestones: &[], gamma: 1.0, patience: 0 };
}

impl EncoderTraining {
    /// The course of the encoder's learning rate.
    pub fn course(&self) -> Course<'_> {
        Course {
            schedule: self.lr_scheduler,
            warmup_steps: self.warmup_steps,
            milestones: &self.milestones,
            gamma: self.gamma,
            patience: self.patience,
        }
    }
}

impl XmcTraining {
    /// The course of the classifier's learning rate.
    pub fn course(&self) -> Course<'_> {
        Course {
            schedule: self.lr_scheduler,
            warmup_steps: self.warmup_steps,
            milestones: &self.milestones,
            gamma: self.gamma,
            patience: self.patience,
        }
    }
}

/// `dataset.training.encoder`: the encoder's optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncoderTraining {
    /// Adam, AdamW or SGD.
    pub optimizer: EncoderOptimizer,
    /// Of SGD: what the sum of gradients keeps of itself at each step.
    pub momentum: f64,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay; biases and layer norms have none.
    pub wd: f64,
    /// Course of the learning rate.
    pub lr_scheduler: Schedule,
    /// Steps in which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Shares of all steps after which `MultiStepLR` lowers the rate.
    pub milestones: Vec<f64>,
    /// What `MultiStepLR` and `ReduceLROnPlateau` multiply the rate with.
    pub gamma: f64,
    /// Epochs without a better one that `ReduceLROnPlateau` waits for.
    pub patience: usize,
    /// Batches per optimizer step. The classifier takes a step every batch.
    pub grad_accum_step: usize,
    /// The norm of all gradients of the encoder together is at most this; 0 for no limit.
    pub max_grad_norm: f64,
    /// Keep what rounding to BF16 loses (Kahan summation). `float32` weights need none and ignore it.
    pub kahan: bool,
}

/// The encoder's optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderOptimizer {
    /// Adam; weight decay is added to the gradient.
    Adam,
    /// Adam; weight decay shrinks the weights directly.
    AdamW,
    /// Stochastic gradient descent with momentum; weight decay is added to the gradient.
    Sgd,
}

/// `dataset.training.xmc`: the classifier's optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XmcTraining {
    /// How the weights are updated.
    pub optimizer: XmcOptimizer,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Not available in this version: always 0.
    pub momentum: f64,
    /// Course of the learning rate.
    pub lr_scheduler: Schedule,
    /// Steps in which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Shares of all steps after which `MultiStepLR` lowers the rate.
    pub milestones: Vec<f64>,
    /// What `MultiStepLR` and `ReduceLROnPlateau` multiply the rate with.
    pub gamma: f64,
    /// Epochs without a better one that `ReduceLROnPlateau` waits for.
    pub patience: usize,
    /// For E4M3 weights: multiply in BF16 (true; works on any device) or in E4M3.
    pub simulated_fp8: bool,
}

/// The classifier's optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XmcOptimizer {
    /// Stochastic gradient descent, fused with the computation of the gradient.
    Sgd,
}

/// `dataset.training.FP8`: 8-bit floating point beyond the classifier's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fp8 {
    /// Linear layers of the encoder in FP8. Not available in this version: without effect, with a warning.
    pub use_fp8_encoder: bool,
    /// Share of the labels that `fp8chunkedheadkahan` compensates: the first ones.
    pub head_ratio: f64,
}

/// `dataset.training.evaluation`: what the metrics depend on. All of them (P, nDCG, R, PSP, PSnDCG, PSR) are computed
/// on the held-out rows after every epoch, and on the test rows at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Constant A of the data set's propensity model.
    #[serde(rename = "A")]
    pub a: f64,
    /// Constant B of the data set's propensity model.
    #[serde(rename = "B")]
    pub b: f64,
    /// Which training rows the propensities are of.
    pub propensity: Protocol,
    /// At which `k` metrics are shown; P@1 to P@5 and their kin are computed beside them.
    pub ks: Vec<usize>,
    /// Epochs from one evaluation on the test rows to the next; the best epoch is chosen without them. 0: only at
    /// the end.
    pub test_evaluate_every: usize,
    /// Evaluate on the training rows as well, to see how much is learned by heart.
    pub train_evaluate: bool,
    /// Epochs from one evaluation on the training rows to the next.
    pub train_evaluate_every: usize,
}

/// Which training rows propensities are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The rows of the training file, as the literature has it.
    Published,
    /// Those that the reference trains on: with `augment_label_data` also a row for every label, so that every label
    /// is one more time in more rows.
    Reference,
}
