//! The whole model: encoder, dropout on the embedding, classifier; and its steps for burn-train.

use burn::{
    backend::ExecutionError,
    module::Module,
    nn::{Dropout, DropoutConfig},
    optim::GradientsParams,
    tensor::{Bool, Device, Int, Tensor, TensorData},
    train::{InferenceStep, ItemLazy, TrainOutput, TrainStep},
};

use crate::{
    classifier::{Classifier, Positives},
    data::{Batch, Split},
    encoder::Encoder,
    eval,
    optim::Schedule,
};

/// Token ids of a batch and where they are padding.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[batch, width]`
    pub ids: Tensor<2, Int>,
    /// `[batch, width]`: true at real tokens.
    pub mask: Tensor<2, Bool>,
}

impl Inputs {
    /// Brings a batch to the device.
    pub fn new(batch: &Batch, device: &Device) -> Self {
        let shape = [batch.lengths.len(), batch.width];
        let mask: Vec<bool> = (batch.lengths.iter())
            .flat_map(|length| (0..batch.width).map(move |at| at < *length as usize))
            .collect();
        Self {
            ids: Tensor::from_data(TensorData::new(batch.ids.clone(), shape), device),
            mask: Tensor::from_data(TensorData::new(mask, shape), device),
        }
    }
}

/// A batch to learn from.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    pub inputs: Inputs,
    pub positives: Positives,
}

impl TrainBatch {
    /// Brings a batch to the device.
    pub fn new(batch: &Batch, device: &Device) -> Self {
        let labels = batch.positive_labels.iter().map(|label| *label as u32);
        let rows = batch.positive_rows.iter().map(|row| *row as u32);
        Self {
            inputs: Inputs::new(batch, device),
            positives: Positives::new(labels.zip(rows).collect()),
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
    pub fn new(batch: &Batch, split: &Split, device: &Device) -> Self {
        let of_rows =
            |f: &dyn Fn(usize) -> Vec<u32>| batch.rows.iter().map(|row| f(*row as usize)).collect();
        Self {
            inputs: Inputs::new(batch, device),
            truth: of_rows(&|row| split.positives(row).to_vec()),
            filter: of_rows(&|row| split.filter(row).to_vec()),
        }
    }
}

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

/// Encoder, dropout and classifier.
#[derive(Module, Debug)]
pub struct XmcModel {
    pub encoder: Encoder,
    dropout: Dropout,
    pub classifier: Classifier,
    #[module(skip)]
    schedule: ClassifierSchedule,
}

/// Labels kept for the metrics: P@k and its kin up to this k.
pub const METRIC_K: usize = 5;

impl XmcModel {
    /// Puts the parts together. `dropout` is the probability that an element of the embedding is dropped in training.
    ///
    /// # Panics
    /// If the encoder's output and the classifier's input differ in size, or `dropout` is outside `[0, 1]`.
    pub fn new(
        encoder: Encoder,
        dropout: f64,
        classifier: Classifier,
        schedule: ClassifierSchedule,
    ) -> Self {
        assert_eq!(
            encoder.dim(),
            classifier.config().dim,
            "size of the embedding"
        );
        Self {
            encoder,
            dropout: DropoutConfig::new(dropout).init(),
            classifier,
            schedule,
        }
    }

    /// The embedding of every row, with dropout if the model is on an autodiff device.
    ///
    /// # Shapes
    /// - returns `[batch, dim]`
    pub fn embed(&self, inputs: Inputs) -> Tensor<2> {
        self.dropout
            .forward(self.encoder.forward(inputs.ids, inputs.mask))
    }

    /// The `k` best labels of every row with their logits, best first, those in the row's `filter` left out.
    /// `filter` is empty, or has one ascending list a row.
    pub fn rank(&self, inputs: Inputs, filter: &[Vec<u32>], k: usize) -> Vec<Vec<(u32, f32)>> {
        let longest = filter.iter().map(Vec::len).max().unwrap_or(0);
        let wanted = (k + longest).min(self.classifier.config().labels);
        let best = self.classifier.top_k(self.embed(inputs), wanted);
        let scores: Vec<f32> = best.scores.into_data().iter().collect();
        let labels: Vec<i32> = best.labels.into_data().iter().collect();
        (scores.chunks(wanted).zip(labels.chunks(wanted)).enumerate())
            .map(|(row, (scores, labels))| {
                let pairs = labels.iter().zip(scores);
                let mut candidates: Vec<(u32, f32)> = pairs
                    .filter_map(|(label, score)| Some((u32::try_from(*label).ok()?, *score)))
                    .collect();
                eval::rank(
                    &mut candidates,
                    filter.get(row).map_or(&[], Vec::as_slice),
                    k,
                );
                candidates
            })
            .collect()
    }
}

/// What a training step reports.
#[derive(Debug, Clone)]
pub struct TrainReport {
    /// See [`ClassifierStep::report`](crate::classifier::ClassifierStep::report); `None` on steps without loss.
    pub report: Option<Tensor<1>>,
    /// Rows of the batch.
    pub rows: usize,
    /// The classifier's learning rate.
    pub learning_rate: f64,
}

impl ItemLazy for TrainReport {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl TrainStep for XmcModel {
    type Input = TrainBatch;
    type Output = TrainReport;

    fn step(&self, batch: TrainBatch) -> TrainOutput<TrainReport> {
        let embedding = self.embed(batch.inputs);
        let rows = embedding.dims()[0];
        let at = self.classifier.steps();
        let learning_rate = self.schedule.at(at);
        let wants_loss = self.schedule.wants_loss(at);
        let step = self.classifier.step(
            embedding.clone().inner(),
            &batch.positives,
            learning_rate,
            wants_loss,
        );
        let surrogate = step.back_propagate(embedding) / self.schedule.accumulation as f64;
        TrainOutput {
            grads: GradientsParams::from_grads(surrogate.backward(), self),
            item: TrainReport {
                report: wants_loss.then_some(step.report),
                rows,
                learning_rate,
            },
        }
    }
}

/// Ranked labels and the truth of a batch.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// Every row's best labels, best first.
    pub predicted: Vec<Vec<u32>>,
    /// Every row's labels, ascending.
    pub truth: Vec<Vec<u32>>,
}

impl ItemLazy for Ranked {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl InferenceStep for XmcModel {
    type Input = EvalBatch;
    type Output = Ranked;

    fn step(&self, batch: EvalBatch) -> Ranked {
        let ranked = self.rank(batch.inputs, &batch.filter, METRIC_K);
        Ranked {
            predicted: (ranked.into_iter())
                .map(|row| row.into_iter().map(|(label, _)| label).collect())
                .collect(),
            truth: batch.truth,
        }
    }
}
