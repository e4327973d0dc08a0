//! A classifier and made-up batches: random numbers everywhere, since zeros run faster than data does.

use std::f64::consts::TAU;

use burn::tensor::{DType, Tensor, TensorData};

use super::{Options, Shape, Task};
use crate::{
    classifier::{Classifier, ClassifierConfig, ClassifierStep, Initializer, Positives, TopK},
    data::Random,
    device::Compute,
};

/// Batches that take turns, so that none stays in a cache.
const BATCHES: usize = 4;
/// Xavier's weights of millions of labels are nearly all zeros in E4M3. These have every code up to their size.
const WEIGHT_BOUND: f32 = 0.05;
/// Small enough for the weights to stay what they are like over any number of steps.
const LEARNING_RATE: f64 = 1e-3;
const SEED: u64 = 0;

/// A classifier with random weights, and random batches that take turns.
pub struct Workload {
    classifier: Classifier,
    batches: Vec<Batch>,
    next: usize,
    k: usize,
    loss: bool,
}

struct Batch {
    x: Tensor<2>,
    positives: Positives,
}

pub(super) fn classifier_config(compute: &Compute, shape: &Shape, options: &Options) -> ClassifierConfig {
    ClassifierConfig {
        chunk: options.chunk,
        kernels: options.kernels,
        segment_bytes: compute.segment_bytes,
        ..ClassifierConfig::new(shape.labels, shape.dim)
            .with_precision(options.precision)
            .with_operands(options.operands)
            .with_initializer(Initializer::Uniform { bound: WEIGHT_BOUND })
            .with_seed(SEED)
    }
}

/// Bytes of all batches on the host.
pub(super) fn data_bytes(shape: &Shape) -> u64 {
    let rows = (BATCHES * shape.batch) as f64;
    (rows * (4.0 * shape.dim as f64 + 8.0 * shape.positives)) as u64
}

impl Workload {
    /// Draws weights and batches, the same every time.
    pub fn new(compute: &Compute, shape: &Shape, options: &Options) -> Self {
        let device = &compute.device;
        let batches = (0..BATCHES).map(|index| {
            let mut random = Random::new(SEED, index as u64);
            let x = normal(&mut random, shape.batch * shape.dim);
            let x = TensorData::new(x, [shape.batch, shape.dim]);
            Batch {
                x: Tensor::from_data(x, (device, DType::from(compute.float))),
                positives: positives(&mut random, shape),
            }
        });
        Self {
            batches: batches.collect(),
            classifier: classifier_config(compute, shape, options).init(device),
            next: 0,
            k: options.k,
            loss: options.loss,
        }
    }

    /// The classifier that is put to work.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// A training step on the next batch; queued, not waited for.
    pub fn step(&mut self) -> ClassifierStep {
        let at = self.advance();
        let Batch { x, positives } = &self.batches[at];
        self.classifier.step(x.clone(), positives, LEARNING_RATE, self.loss)
    }

    /// The best labels of the next batch; queued, not waited for.
    pub fn top_k(&mut self) -> TopK {
        let at = self.advance();
        self.classifier.top_k(self.batches[at].x.clone(), self.k)
    }

    fn advance(&mut self) -> usize {
        self.next += 1;
        self.next % BATCHES
    }

    /// Does the task once more, and looks at what comes out.
    pub(super) fn is_finite(&mut self, task: Task) -> bool {
        match task {
            Task::Step => {
                let step = self.step();
                let (loss, kept) = step.read_report();
                let sum: f32 = step.input_gradient.cast(DType::F32).sum().into_scalar();
                loss.is_finite() && kept == 0.0 && sum.is_finite()
            }
            Task::TopK => {
                let best: f32 = self.top_k().scores.max().into_scalar();
                best.is_finite()
            }
        }
    }
}

/// In `(0, 1)`.
pub(super) fn uniform(random: &mut Random) -> f64 {
    ((random.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Standard normal numbers, by Box-Muller.
fn normal(random: &mut Random, length: usize) -> Vec<f32> {
    let draw = |_| {
        let radius = (-2.0 * uniform(random).ln()).sqrt();
        (radius * (TAU * uniform(random)).cos()) as f32
    };
    (0..length).map(draw).collect()
}

/// Knuth's method on parts whose exponential is far from underflow.
fn poisson(random: &mut Random, mut mean: f64) -> usize {
    let mut events = 0;
    while mean > 0.0 {
        let part = mean.min(32.0);
        mean -= part;
        let (limit, mut product) = ((-part).exp(), uniform(random));
        while product > limit {
            events += 1;
            product *= uniform(random);
        }
    }
    events
}

/// A row has one positive and a Poisson number of others; half of them are drawn evenly from all labels, half by the
/// logarithm of the index, as frequent labels would be.
pub(super) fn positives(random: &mut Random, shape: &Shape) -> Positives {
    let labels = shape.labels as f64;
    let mut pairs = Vec::new();
    for row in 0..shape.batch as u32 {
        for number in 0..1 + poisson(random, shape.positives - 1.0) {
            let u = uniform(random);
            let label = match number % 2 == row as usize % 2 {
                true => u * labels,
                false => labels.powf(u) - 1.0,
            };
            pairs.push(((label as u32).min(shape.labels as u32 - 1), row));
        }
    }
    Positives::new(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positives_are_as_many_as_asked_for_and_prefer_low_labels() {
        let shape = Shape { batch: 4000, ..Shape::named("amazon3m").unwrap() };
        let positives = positives(&mut Random::new(1, 0), &shape);
        let pairs = positives.pairs();
        // Repeated pairs are dropped: the first labels are drawn twice a row now and then.
        let average = pairs.len() as f64 / 4000.0;
        assert!((34.0..36.5).contains(&average), "{average}");
        let low = pairs.iter().filter(|pair| pair.0 < 1677).count();
        // Half of the logarithm of 2.8 million.
        let share = low as f64 / pairs.len() as f64;
        assert!((0.2..0.27).contains(&share), "{share}");
    }

    #[test]
    fn normal_numbers_have_their_moments() {
        let x = normal(&mut Random::new(2, 0), 100_000);
        let mean = x.iter().sum::<f32>() / 1e5;
        let square = x.iter().map(|x| x * x).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.013 && (square - 1.0).abs() < 0.02, "{mean} {square}");
    }
}
