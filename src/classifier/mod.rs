//! The extreme multi-label classifier: one linear layer with up to millions of outputs, kept in 8 bits, trained in
//! place.
//!
//! It is an ordinary Burn module with an unusual training step. A normal layer hands its weight gradient to an
//! optimizer; this one never has one. [`Classifier::step`] computes the logits of one chunk of labels at a time, the
//! gradient of the binary cross-entropy, the gradient of its input, and updates the chunk's weights by SGD with
//! stochastic rounding before it goes on. The model around it back-propagates the input gradient as usual:
//!
//! ```
//! use burn::{optim::GradientsParams, prelude::*};
//! use elmo::classifier::{ClassifierConfig, Positives};
//!
//! let device = Device::flex().autodiff();
//! let classifier = ClassifierConfig::new(1000, 16).init(&device);
//! let embedding = Tensor::<2>::random([4, 16], burn::tensor::Distribution::Default, &device).require_grad();
//!
//! // Rows 0 and 2 are examples of the labels 7 and 900.
//! let positives = Positives::new(vec![(7, 0), (900, 2)]);
//! let step = classifier.step(embedding.clone().inner(), &positives, 0.05, true);
//! let grads = step.back_propagate(embedding.clone()).backward();
//! assert_eq!(embedding.grad(&grads).unwrap().dims(), [4, 16]);
//! ```
//!
//! Source: ELMO (ICML 2025, arXiv 2510.11168). There is no bias, no tensor scale, no master copy and no momentum.

mod buffer;
mod plan;
mod stored;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use burn::{
    module::Module,
    tensor::{DType, Device, Int, Tensor},
};
pub use elmo_kernels::{Format, Initializer, KernelPath, Positives};
use elmo_kernels::{Head, Search, Segment, Step, classifier_search, classifier_step, cpu};

use buffer::SharedWords;
pub use stored::Stored;
#[cfg(test)]
pub(crate) use stored::drawn;

/// Configuration of a [`Classifier`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifierConfig {
    /// Outputs, `L`.
    pub labels: usize,
    /// Features of the input, `D`.
    pub dim: usize,
    /// How weights are stored, one of [`Format::WEIGHTS`]; E4M3 by default.
    pub precision: Format,
    /// In what precision the input meets the weights; BF16 by default ("simulated FP8"), which any device can do.
    pub operands: Format,
    /// The number of most frequent labels that keep a compensation, and its format, one of [`Format::COMPENSATIONS`];
    /// none by default.
    pub head: Option<(usize, Format)>,
    /// Initial weights; Xavier-uniform by default.
    pub initializer: Initializer,
    /// Weight decay of the SGD, 0 by default.
    pub weight_decay: f64,
    /// Labels whose logits exist at one time; chosen from batch size and device by default. It changes memory and
    /// speed, never the weights.
    pub chunk: Option<usize>,
    /// The best kernel path that may be used on a GPU; all of it by default.
    pub kernels: KernelPath,
    /// Largest buffer in bytes; 1 GiB by default. Some devices allow 128 MiB only.
    pub segment_bytes: usize,
    /// Seed of initial weights and of rounding, 0 by default.
    pub seed: u64,
}

impl ClassifierConfig {
    /// E4M3 weights and simulated FP8: a quarter of F32's memory on any device.
    ///
    /// # Panics
    /// If there is no label or no feature.
    pub fn new(labels: usize, dim: usize) -> Self {
        assert!(labels > 0 && dim > 0, "a classifier needs labels and features");
        Self {
            labels,
            dim,
            precision: Format::E4m3,
            operands: Format::Bf16,
            head: None,
            initializer: Initializer::xavier_uniform(labels, dim),
            weight_decay: 0.0,
            chunk: None,
            kernels: KernelPath::default(),
            segment_bytes: 1 << 30,
            seed: 0,
        }
    }

    /// The same with weights of this type; the operands follow it.
    pub fn with_precision(mut self, precision: Format) -> Self {
        self.precision = precision;
        self.operands = match precision {
            Format::F32 => Format::F32,
            _ => Format::Bf16,
        };
        self
    }

    /// The same with another precision of the product that gives the logits.
    pub fn with_operands(mut self, operands: Format) -> Self {
        self.operands = operands;
        self
    }

    /// The same with a compensation for the first `labels` labels, which should be the most frequent ones.
    pub fn with_head(mut self, labels: usize, compensation: Format) -> Self {
        self.head = Some((labels, compensation));
        self
    }

    /// The same with other initial weights.
    pub fn with_initializer(mut self, initializer: Initializer) -> Self {
        self.initializer = initializer;
        self
    }

    /// The same with this seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Bytes of weights and compensation.
    pub fn bytes(&self) -> u64 {
        let words: usize = (self.segments().iter()).map(|segment| segment.words() + segment.compensation_words()).sum();
        4 * words as u64
    }

    /// Bytes that a step over `batch` rows takes on a CPU beside [`bytes`](Self::bytes).
    pub fn step_bytes(&self, batch: usize) -> u64 {
        cpu::step_bytes(self.chunk, self.labels, self.dim, batch)
    }

    /// Labels whose logits exist at one time, in a step over `batch` rows on `device`; what the kernels choose unless
    /// [`chunk`](Self::chunk) is set.
    pub fn step_chunk(&self, device: &Device, batch: usize) -> usize {
        self.step(0.0, 0, false).chunk_on(device, self.dim, batch).min(self.labels)
    }

    /// Labels whose logits exist at one time, in a search for `batch` rows on `device`.
    pub fn search_chunk(&self, device: &Device, batch: usize) -> usize {
        self.search(1).chunk_on(device, self.dim, batch).min(self.labels)
    }

    /// The step with number `number` of a run.
    fn step(&self, learning_rate: f64, number: u64, loss: bool) -> Step {
        Step {
            operands: self.operands,
            chunk: self.chunk,
            weight_bytes: self.bytes(),
            learning_rate: learning_rate as f32,
            weight_decay: self.weight_decay as f32,
            rounding_key: Step::rounding_key(self.seed, number),
            loss,
            kernels: self.kernels,
        }
    }

    fn search(&self, k: usize) -> Search {
        Search { operands: self.operands, chunk: self.chunk, k, kernels: self.kernels }
    }

    fn segments(&self) -> Vec<Segment> {
        let head = self.head.map(|(labels, compensation)| Head { labels: labels as u64, compensation });
        plan::segments(self.labels, self.dim, self.precision, head, self.segment_bytes)
    }
}

/// See the [module](self). Built by [`ClassifierConfig::init`]; clones share the weights.
#[derive(Module, Debug)]
pub struct Classifier {
    weights: Vec<SharedWords>,
    compensation: Vec<SharedWords>,
    #[module(skip)]
    control: Control,
}

/// What is not a tensor.
#[derive(Clone, Debug)]
struct Control {
    config: Arc<ClassifierConfig>,
    segments: Arc<[Segment]>,
    steps: Arc<AtomicU64>,
}

/// What [`Classifier::step`] gives back.
#[derive(Debug, Clone)]
pub struct ClassifierStep {
    /// `[batch, dim]`, F32: the gradient of the loss by the input, from the weights before the update.
    pub input_gradient: Tensor<2>,
    /// `[2]`, F32, summed over labels and rows: the binary cross-entropy (0 unless asked for), and how many weights
    /// kept their value because the new one was not finite. Reading it waits for the device.
    pub report: Tensor<1>,
}

impl ClassifierStep {
    /// A scalar whose gradient by `embedding` is the step's input gradient: call `backward()` on it.
    ///
    /// # Shapes
    /// - `embedding`: `[batch, dim]`, the autodiff tensor whose value went into the step
    pub fn back_propagate(&self, embedding: Tensor<2>) -> Tensor<1> {
        let gradient = self.input_gradient.clone().cast(embedding.dtype());
        (embedding * Tensor::from_inner(gradient)).sum()
    }

    /// The loss, and the number of weights that kept their value because the new one was not finite. Waits for the
    /// device.
    pub fn read_report(&self) -> (f32, f32) {
        let report: Vec<f32> = self.report.to_data().iter().collect();
        (report[0], report[1])
    }
}

/// The best labels of a batch, best first; equal scores stand by ascending label.
#[derive(Debug, Clone)]
pub struct TopK {
    /// `[batch, k]`: logits. Negative infinity where there are fewer than `k` labels.
    pub scores: Tensor<2>,
    /// `[batch, k]`: label indices; -1 where there are fewer than `k` labels.
    pub labels: Tensor<2, Int>,
}

impl Classifier {
    /// What it was built from.
    pub fn config(&self) -> &ClassifierConfig {
        &self.control.config
    }

    /// Steps taken. It keys the random bits of the rounding; a resumed run sets it.
    pub fn steps(&self) -> u64 {
        self.control.steps.load(Ordering::Relaxed)
    }

    /// Continues a run after `steps` steps.
    pub fn set_steps(&self, steps: u64) {
        self.control.steps.store(steps, Ordering::Relaxed);
    }

    /// One training step: the gradient of the summed binary cross-entropy by the input, and the weights updated in
    /// place by SGD.
    ///
    /// Nothing is divided by the batch size or the number of labels. Unless `loss` is set the loss is not computed, as
    /// the update does not need it. Nothing is read back from the device.
    ///
    /// # Shapes
    /// - `x`: `[batch, dim]`, off the autodiff graph
    ///
    /// # Panics
    /// If a shape is wrong, or a positive names a row beyond the batch or a label beyond the classifier.
    pub fn step(&self, x: Tensor<2>, positives: &Positives, learning_rate: f64, loss: bool) -> ClassifierStep {
        let config = self.config();
        let [batch, dim] = x.dims();
        if let (Some(label), Some(row)) = (positives.max_label(), positives.max_row()) {
            assert!(
                (label as usize) < config.labels && (row as usize) < batch,
                "positives up to label {label} and row {row}, outside {} labels, {batch} rows",
                config.labels
            );
        }
        let number = self.control.steps.fetch_add(1, Ordering::Relaxed);
        let step = config.step(learning_rate, number, loss);
        let device = x.device();
        let mut input_gradient = Tensor::zeros([batch, dim], (&device, DType::F32));
        let mut report: Option<Tensor<1>> = None;
        let parts = self.weights.iter().zip(&self.compensation);
        for ((weights, compensation), segment) in parts.zip(self.control.segments.iter()) {
            let (gradient, segment_report) = weights.update(|words| {
                let (words, results) = compensation.update(|compensation| {
                    let output = classifier_step(
                        *segment,
                        step,
                        words,
                        compensation,
                        x.clone(),
                        positives.clone(),
                        input_gradient,
                    );
                    let results = (output.input_gradient, output.report);
                    (output.compensation, (output.words, results))
                });
                (words, results)
            });
            input_gradient = gradient;
            report = Some(match report {
                Some(report) => report + segment_report,
                None => segment_report,
            });
        }
        ClassifierStep {
            input_gradient,
            report: report.expect("a classifier has at least one label, hence one segment"),
        }
    }

    /// The `k` best labels of every row. Scores never exist for all labels at once.
    ///
    /// # Shapes
    /// - `x`: `[batch, dim]`, off the autodiff graph
    ///
    /// # Panics
    /// If a shape is wrong or `k` is zero.
    pub fn top_k(&self, x: Tensor<2>, k: usize) -> TopK {
        assert!(k > 0, "the best 0 labels");
        let config = self.config();
        let [batch, _] = x.dims();
        let device = x.device();
        let search = config.search(k);
        let mut scores = Tensor::full([batch, k], f32::NEG_INFINITY, (&device, DType::F32));
        let mut labels = Tensor::full([batch, k], -1, (&device, DType::I32));
        for (weights, segment) in self.weights.iter().zip(self.control.segments.iter()) {
            (scores, labels) = classifier_search(*segment, search, weights.get(), x.clone(), scores, labels);
        }
        TopK { scores, labels }
    }

    /// All weights as numbers, `[labels, dim]`, for inspection. Waits for the device; takes four bytes a weight.
    pub fn weights(&self) -> Vec<f32> {
        (self.weights.iter())
            .zip(self.control.segments.iter())
            .flat_map(|(weights, segment)| {
                let words: Vec<u32> = weights.get().into_data().iter().collect();
                segment.decode(&words)
            })
            .collect()
    }

    /// The share of the weights that are at the largest magnitude of their format, 448 in E4M3, in a sample of some
    /// hundred labels; 0 in formats without such a limit. Waits for the device.
    pub fn saturated(&self) -> f64 {
        const LABELS: usize = 256;
        if self.config().precision != Format::E4m3 {
            return 0.0;
        }
        let (mut at_limit, mut all) = (0, 0);
        for (weights, segment) in self.weights.iter().zip(self.control.segments.iter()) {
            let sample = Segment { labels: segment.labels.min(LABELS), ..*segment };
            let words: Vec<u32> = weights.get().narrow(0, 0, sample.words()).into_data().iter().collect();
            let values = sample.decode(&words);
            at_limit += values.iter().filter(|value| value.abs() >= 448.0).count();
            all += values.len();
        }
        at_limit as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    fn input(batch: usize, dim: usize) -> Tensor<2> {
        Tensor::random([batch, dim], Distribution::Default, &Device::flex())
    }

    #[test]
    fn segments_do_not_change_the_result() {
        let config = ClassifierConfig::new(300, 20).with_head(100, Format::Bf16);
        let x = input(9, 20);
        let positives = Positives::new(vec![(0, 0), (150, 3), (299, 8)]);
        let run = |config: ClassifierConfig| {
            let classifier = config.init(&Device::flex());
            for _ in 0..3 {
                classifier.step(x.clone(), &positives, 0.1, true);
            }
            let step = classifier.step(x.clone(), &positives, 0.1, false);
            let best = classifier.top_k(x.clone(), 5);
            let labels: Vec<i32> = best.labels.into_data().iter().collect();
            let gradient: Vec<f32> = step.input_gradient.into_data().iter().collect();
            (classifier.weights(), gradient, labels)
        };
        let whole = run(config.clone());
        let cut = ClassifierConfig { segment_bytes: 32 * 77, chunk: Some(13), ..config };
        assert_eq!(cut.init(&Device::flex()).weights.len(), 4);
        assert_eq!(whole, run(cut));
    }

    #[test]
    fn clones_share_the_weights_and_the_step_count() {
        let classifier = ClassifierConfig::new(50, 8).init(&Device::flex());
        let clone = classifier.clone();
        classifier.step(input(4, 8), &Positives::default(), 0.1, false);
        assert_eq!(clone.steps(), 1);
        assert_eq!(clone.weights(), classifier.weights());
    }

    #[test]
    fn it_learns_what_it_is_shown() {
        let device = Device::flex();
        for precision in Format::WEIGHTS {
            let config = ClassifierConfig::new(40, 40).with_precision(precision);
            let classifier = config.init(&device);
            let x = Tensor::<2>::eye(40, &device);
            let positives = Positives::new((0..40).map(|i| ((i * 7) % 40, i)).collect());
            let before = classifier.step(x.clone(), &positives, 1.0, true).read_report().0;
            for _ in 0..30 {
                classifier.step(x.clone(), &positives, 1.0, false);
            }
            let after = classifier.step(x.clone(), &positives, 1.0, true).read_report().0;
            assert!(after < before / 5.0, "{precision}: {before} {after}");
            let best: Vec<i32> = classifier.top_k(x, 1).labels.into_data().iter().collect();
            assert_eq!(best, (0..40).map(|i| (i * 7) % 40).collect::<Vec<i32>>());
        }
    }

    #[test]
    #[should_panic(expected = "outside 10 labels")]
    fn a_positive_beyond_the_classifier_is_refused() {
        let classifier = ClassifierConfig::new(10, 4).init(&Device::flex());
        classifier.step(input(2, 4), &Positives::new(vec![(10, 0)]), 0.1, false);
    }
}
