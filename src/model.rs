//! The whole model: encoder, dropout on the embedding, classifier; and its steps for burn-train.
//!
//! On a CPU, Burn runs most operations on one core. So a training batch is cut in two by rows there: each half goes
//! through the encoder and back on a thread of its own, and the classifier sees the batch as a whole in between.

use burn::{
    backend::ExecutionError,
    module::Module,
    nn::{Dropout, DropoutConfig},
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{Bool, Device, Int, Tensor, TensorData},
    train::{InferenceStep, ItemLazy, TrainOutput, TrainStep},
};

use crate::{
    classifier::{Classifier, Positives},
    data::{Batch, Split},
    device::is_cpu,
    encoder::{self, Encoder, seeded},
    eval::{self, Evaluator, METRIC_K},
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

impl Inputs {
    /// The rows in `parts` parts of like size, in order.
    fn cut(self, parts: usize) -> Vec<Self> {
        let ids = self.ids.chunk(parts, 0).into_iter();
        let mask = self.mask.chunk(parts, 0);
        ids.zip(mask).map(|(ids, mask)| Self { ids, mask }).collect()
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
    pub fn new(batch: Batch, device: &Device) -> Self {
        Self {
            inputs: Inputs::new(&batch, device),
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
            inputs: Inputs::new(&batch, device),
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

/// Rows that are worth a thread.
const MIN_PART_ROWS: usize = 8;
/// Every part has a gradient of the whole encoder. Not the number of cores, on which the result would depend.
const MAX_PARTS: usize = 2;

fn embed(encoder: &Encoder, dropout: &Dropout, inputs: Inputs) -> Tensor<2> {
    encoder::dropout(dropout, encoder.forward(inputs.ids, inputs.mask))
}

/// Runs `f` on every item, on a thread each but for the first.
///
/// Not on the thread pool: while a task waits for the matrix product it has begun, the pool would start another part on
/// the same thread, inside the first one's locks.
fn on_threads<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut items = items.into_iter();
    let first = items.next();
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.map(|item| scope.spawn(|| f(item))).collect();
        let first = first.map(&f);
        let others = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        first.into_iter().chain(others).collect()
    })
}

/// Encoder, dropout and classifier.
#[derive(Module, Debug)]
pub struct XmcModel {
    /// Text to embedding.
    pub encoder: Encoder,
    dropout: Dropout,
    /// Embedding to labels.
    pub classifier: Classifier,
    #[module(skip)]
    schedule: ClassifierSchedule,
}

impl XmcModel {
    /// Puts the parts together. `dropout` is the probability that an element of the embedding is dropped in training.
    ///
    /// # Panics
    /// If the encoder's output and the classifier's input differ in size, or `dropout` is outside `[0, 1]`.
    pub fn new(encoder: Encoder, dropout: f64, classifier: Classifier, schedule: ClassifierSchedule) -> Self {
        assert_eq!(encoder.dim(), classifier.config().dim, "size of the embedding");
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
        embed(&self.encoder, &self.dropout, inputs)
    }

    /// Parts into which a training batch is cut.
    fn parts(&self, inputs: &Inputs) -> usize {
        if !is_cpu(&inputs.ids.device()) {
            return 1;
        }
        inputs.ids.dims()[0].div_ceil(MIN_PART_ROWS).min(MAX_PARTS)
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
                eval::rank(&mut candidates, filter.get(row).map_or(&[], Vec::as_slice), k);
                candidates
            })
            .collect()
    }
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
        let at = self.classifier.steps();
        let learning_rate = self.schedule.at(at);
        let wants_loss = self.schedule.wants_loss(at);
        let parts = self.parts(&batch.inputs);
        let device = batch.inputs.ids.device();
        let rows = batch.inputs.ids.dims()[0];

        let key = self.classifier.config().seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let inputs = batch.inputs.cut(parts).into_iter().enumerate();
        // Forks share the weights and have a graph of their own, so that no thread waits for another's.
        let inputs = inputs
            .map(|(part, inputs)| (part, self.encoder.clone().fork(&device), inputs))
            .collect();
        let embedded = on_threads(inputs, |(part, encoder, inputs)| {
            let embed = || embed(&encoder, &self.dropout, inputs);
            let embedding = seeded(key.wrapping_add(part as u64), embed);
            (encoder, embedding)
        });

        let whole = embedded.iter().map(|(_, x)| x.clone().inner()).collect();
        let step = self
            .classifier
            .step(Tensor::cat(whole, 0), &batch.positives, learning_rate, wants_loss);

        let mut from = 0;
        let back = embedded.into_iter().map(|(encoder, embedding)| {
            let to = from + embedding.dims()[0];
            let part = step.rows(from..to);
            from = to;
            (encoder, embedding, part)
        });
        let gradients = on_threads(back.collect(), |(encoder, embedding, part)| {
            let surrogate = part.back_propagate(embedding) / self.schedule.accumulation as f64;
            GradientsParams::from_grads(surrogate.backward(), &encoder)
        });
        let mut sum = GradientsAccumulator::new();
        for gradients in gradients {
            sum.accumulate(&self.encoder, gradients);
        }
        TrainOutput {
            grads: sum.grads(),
            item: TrainReport {
                report: step.report,
                has_loss: wants_loss,
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

impl Ranked {
    /// Adds every row to the metrics of `evaluator`.
    pub fn count_in(&self, evaluator: &mut Evaluator) {
        for (predicted, truth) in self.predicted.iter().zip(&self.truth) {
            evaluator.add(predicted, truth);
        }
    }
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
