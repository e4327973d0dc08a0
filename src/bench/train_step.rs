//! A whole training step, as training runs it: loader, upload, encoder, classifier, optimizer.
//!
//! ```no_run
//! use elmo::{bench::{Options, Shape, train_step::{Lengths, TrainStep}}, device::Compute};
//!
//! # fn main() -> elmo::Result<()> {
//! let compute = Compute::open(Some("cpu"), false, 0)?;
//! let shape = Shape::named("small").unwrap();
//! let step = TrainStep::prepare(&compute, &shape, &Options::default(), Lengths::Uniform)?.measure()?;
//! println!("{:.3} ms", 1e3 * step.free_running.median);
//! # Ok(()) }
//! ```

use std::{
    fmt::{self, Write as _},
    str::FromStr,
    sync::Arc,
    time::Instant,
};

use super::{
    CsvFile, Hardware, Options, Shape, Spread,
    csv::quoted,
    failed,
    measure::{self, Kernel},
    shape::out_of_range,
    workload::{classifier_config, positives, uniform},
};
use crate::{
    config::{Course, EncoderOptimizer, EncoderTraining, Schedule},
    data::{Random, Split},
    device::Compute,
    encoder::{EncoderConfig, TransformerConfig},
    error::{Error, Result, bytes},
    loader::{Loader, Position, TrainBatch},
    model::ModelSpec,
    train::{Learner, Learning, Rate, optimizer},
};

/// Batches of an epoch: enough that none is what the one before was.
const BATCHES: usize = 32;
/// Windows of free running, of which the median counts.
const WINDOWS: usize = 5;
const SEED: u64 = 3;

/// How long the texts of made-up batches are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lengths {
    /// As long as a text may be.
    Full,
    /// Evenly from 2 tokens to as many as a text may have.
    Uniform,
    /// Normally around a mean with a deviation of 0.4 means, from 2 tokens to as many as a text may have.
    Mean(f64),
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "uniform" => Ok(Self::Uniform),
            number => match number.parse() {
                Ok(mean) if (2.0..=4096.0).contains(&mean) => Ok(Self::Mean(mean)),
                _ => Err("full, uniform, or a mean number of tokens from 2 to 4096".into()),
            },
        }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Uniform => f.write_str("uniform"),
            Self::Mean(mean) => write!(f, "{mean}"),
        }
    }
}

impl Lengths {
    fn draw(self, random: &mut Random, longest: usize) -> usize {
        let length = match self {
            Self::Full => longest as f64,
            Self::Uniform => 2.0 + (longest - 1) as f64 * uniform(random),
            // Twelve even numbers make a normal one.
            Self::Mean(mean) => {
                let normal: f64 = (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0;
                mean + 0.4 * mean * normal + 0.5
            }
        };
        (length as usize).clamp(2, longest)
    }
}

/// Layers and tokens at most of the encoder that a shape's data set is trained with.
fn encoder_of(shape: &Shape) -> (EncoderConfig, usize) {
    let (layers, longest) = match shape.name.as_str() {
        "small" => (2, 32),
        "lfamazontitles131k" | "lfamazontitles1.3m" => (6, 32),
        "amazontitles670k" => (12, 32),
        "lfwikiseealso320k" | "lfpaper2keywords" => (6, 128),
        "wiki500k" => (12, 256),
        "wordnet-lf" => (6, 64),
        _ => (12, 128),
    };
    let head = if shape.dim >= 768 { 64 } else { 32 };
    let transformer = TransformerConfig {
        hidden_size: shape.dim,
        num_hidden_layers: layers,
        num_attention_heads: if shape.dim.is_multiple_of(head) { shape.dim / head } else { 1 },
        intermediate_size: 4 * shape.dim,
        ..TransformerConfig::default()
    };
    (EncoderConfig::bert(transformer), longest)
}

/// A model and made-up data to train it on.
pub struct TrainStep {
    shape: Shape,
    options: Options,
    lengths: Lengths,
    compute: Compute,
    hardware: Hardware,
    encoder: EncoderConfig,
    longest: usize,
    learner: Learner,
    loader: Loader<TrainBatch>,
    tokens: f64,
}

/// What a step takes.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Seconds a step by the host's clock, over windows of steps with one wait for the device at the end of each.
    pub free_running: Spread,
    /// Seconds until a step is queued, while the device works.
    pub host: f64,
    /// Seconds of elmo's own operations by the device's clock; none where it has none.
    pub own: Option<Spread>,
    /// Their kernels.
    pub kernels: Vec<Kernel>,
    /// Seconds of the first step: kernels are compiled in it.
    pub first: f64,
    /// Tokens a step.
    pub tokens: f64,
    /// Bytes that the device's pool has reserved.
    pub reserved: Option<u64>,
    /// Bytes of the card that were taken since the start.
    pub card: Option<u64>,
}

impl TrainStep {
    /// Draws weights and texts, the same every time.
    ///
    /// # Errors
    /// [`Error::Usage`] if a size is out of range.
    pub fn prepare(compute: &Compute, shape: &Shape, options: &Options, lengths: Lengths) -> Result<Self> {
        shape.check()?;
        options.check()?;
        let hardware = Hardware::of(compute);
        let (encoder, longest) = encoder_of(shape);
        if let Err((field, expected, found)) = encoder.check() {
            return Err(out_of_range(field, &expected, &found));
        }
        let mut random = Random::new(SEED, 0);
        let rows = Shape { batch: BATCHES * shape.batch, ..shape.clone() };
        let mut labels = vec![Vec::new(); rows.batch];
        for (label, row) in positives(&mut random, &rows).pairs() {
            labels[*row as usize].push(*label);
        }
        let ids = encoder.vocab_size() as f64;
        let texts: Vec<Vec<u32>> = (0..rows.batch)
            .map(|_| {
                let length = lengths.draw(&mut random, longest);
                // By the logarithm, as words are frequent; the first and the last token of every text are the same.
                let word = |random: &mut Random| ids.powf(uniform(random)) as u32 - 1;
                let inner = (2..length).map(|_| word(&mut random)).collect::<Vec<_>>();
                [101].into_iter().chain(inner).chain([102]).collect()
            })
            .collect();
        let tokens = texts.iter().map(Vec::len).sum::<usize>() as f64 / BATCHES as f64;
        let spec = ModelSpec {
            encoder: encoder.clone(),
            embed_dropout: 0.0,
            classifier: classifier_config(compute, shape, options),
        };
        let training = EncoderTraining {
            optimizer: EncoderOptimizer::AdamW,
            momentum: 0.0,
            lr: 1e-5,
            wd: 0.01,
            lr_scheduler: Schedule::Constant,
            warmup_steps: 0,
            milestones: Vec::new(),
            gamma: 1.0,
            patience: 0,
            grad_accum_step: 1,
            max_grad_norm: 0.0,
            kahan: true,
        };
        let learning = Learning {
            optimizer: optimizer(&training),
            encoder_rate: Rate::new(training.lr, Course::CONSTANT, 1),
            classifier_rate: Rate::new(1e-3, Course::CONSTANT, 1),
            loss_every: u64::from(options.loss),
            accumulation: 1,
            max_norm: None,
        };
        let mut model = spec.init(None, compute)?;
        model.encoder = model.encoder.with_kernels(options.kernels).with_activations(options.activations);
        let device = compute.device.clone();
        let loader = Loader::training(Arc::new(Split::from_rows(&texts, &labels)), shape.batch, SEED, device);
        Ok(Self {
            shape: shape.clone(),
            options: options.clone(),
            lengths,
            compute: compute.clone(),
            hardware,
            learner: Learner::new(model, learning),
            encoder,
            longest,
            loader,
            tokens,
        })
    }

    /// Measures it.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails, [`Error::Training`] if what it computes is not finite.
    pub fn measure(&mut self) -> Result<Measured> {
        let (loader, learner, device) = (&self.loader, &mut self.learner, &self.compute.device);
        let error = |error: &burn::backend::ExecutionError| failed(&self.compute, error);
        let mut epoch = 0;
        let mut batches = loader.from(Position::default());
        let mut step = || {
            let batch = batches.next().unwrap_or_else(|| {
                epoch += 1;
                batches = loader.from(Position { epoch, batch: 0 });
                batches.next().expect("an epoch has batches")
            });
            learner.step(batch, batches.left())
        };
        let start = Instant::now();
        let first = step();
        let values: Vec<f32> = first.report.into_data().convert::<f32>().iter().collect();
        let first = start.elapsed().as_secs_f64();
        if !values.iter().all(|value| value.is_finite()) || values.get(1).is_some_and(|refused| *refused > 0.0) {
            return Err(Error::Training {
                message: "the first step gives numbers that are not finite".into(),
                hint: None,
            });
        }
        for _ in 0..self.options.warmup {
            step();
        }
        device.sync().map_err(|e| error(&e))?;
        let mut free_running = Vec::new();
        let mut host = Vec::new();
        for _ in 0..WINDOWS {
            let start = Instant::now();
            for _ in 0..self.options.steps {
                step();
            }
            host.push(start.elapsed().as_secs_f64() / self.options.steps as f64);
            device.sync().map_err(|e| error(&e))?;
            free_running.push(start.elapsed().as_secs_f64() / self.options.steps as f64);
        }
        let reserved = device.memory_pool_usage().map(|usage| usage.bytes_reserved);
        let free = |hardware: &Hardware| hardware.free_memory;
        let card = free(&self.hardware).zip(free(&Hardware::of(&self.compute)));
        let options = Options { warmup: 0, steps: self.options.steps.min(10), ..self.options.clone() };
        let times = measure::measure(device, &options, step).map_err(|e| error(&e))?;
        let own = (times.clock == measure::Clock::Device).then_some(times.time);
        Ok(Measured {
            free_running: Spread::of(free_running),
            host: Spread::of(host).median,
            own,
            kernels: times.kernels,
            first,
            tokens: self.tokens,
            reserved,
            card: card.map(|(before, after)| before.saturating_sub(after)),
        })
    }

    /// What is measured and where, in lines for a person.
    pub fn summary(&self) -> String {
        let TransformerConfig { hidden_size, num_hidden_layers, .. } = self.encoder.transformer;
        format!(
            "shape   {}: {} labels, batch {}, texts of at most {} tokens, lengths {}, {:.0} tokens a step, activations {}\n\
             model   encoder {num_hidden_layers} x {hidden_size} in {:?}, {:.1}M parameters; classifier in {}, operands in {}\n\
             device  {}: {}{}",
            self.shape.name,
            self.shape.labels,
            self.shape.batch,
            self.longest,
            self.lengths,
            self.tokens,
            self.options.activations,
            self.compute.float,
            self.encoder.parameters() as f64 / 1e6,
            self.options.precision,
            self.options.operands,
            self.compute.name,
            self.hardware.name,
            self.hardware.driver.as_ref().map_or(String::new(), |driver| format!(", driver {driver}")),
        )
    }

    /// The measurement in lines for a person.
    pub fn table(&self, measured: &Measured) -> String {
        let ms = |seconds: f64| format!("{:.3}", 1e3 * seconds);
        let mut text = format!(
            "train-step  {} ms a step (median of {WINDOWS} windows of {} steps; {} to {}), {:.0} texts/s\n  \
             queued by the host in {} ms; first step {:.1} s\n",
            ms(measured.free_running.median),
            self.options.steps,
            ms(measured.free_running.p10),
            ms(measured.free_running.p90),
            self.shape.batch as f64 / measured.free_running.median,
            ms(measured.host),
            measured.first,
        );
        if let Some(own) = measured.own {
            let _ = writeln!(text, "  elmo's own operations by the device's clock {} ms", ms(own.median));
        }
        let mut kernels: Vec<_> = measured.kernels.iter().collect();
        kernels.sort_by(|a, b| b.time.median.total_cmp(&a.time.median));
        for kernel in kernels {
            let _ = writeln!(text, "    {:24}{:>5} x {:>10} ms", kernel.name, kernel.launches, ms(kernel.time.median));
        }
        if let Some(reserved) = measured.reserved {
            let card = measured.card.map_or(String::new(), |card| format!(", {} of the card", bytes(card)));
            let _ = writeln!(text, "  memory {} of the pool{card}", bytes(reserved));
        }
        text
    }

    /// Appends the measurement to a file that was opened for it: one row for the step, one for each kernel.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append_csv(&self, measured: &Measured, file: &CsvFile) -> Result<()> {
        let TransformerConfig { hidden_size, num_hidden_layers, .. } = self.encoder.transformer;
        let mut text = String::new();
        let ms = |seconds: f64| format!("{:.4}", 1e3 * seconds);
        let mib = |bytes: Option<u64>| {
            bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
        };
        let start = format!(
            "{},{},{},{},{},{},{},{num_hidden_layers},{hidden_size},{:?},{},{},{},{},{},{:.0}",
            env!("CARGO_PKG_VERSION"),
            self.compute.name,
            quoted(&self.hardware.name),
            quoted(self.hardware.driver.as_deref().unwrap_or_default()),
            quoted(&self.shape.name),
            self.shape.labels,
            self.shape.batch,
            self.compute.float,
            self.options.precision,
            self.options.operands,
            self.options.kernels,
            self.lengths,
            self.options.activations,
            measured.tokens,
        );
        let _ = writeln!(
            text,
            "{start},step,,{},{},{},{},{},{:.2},{},{}",
            ms(measured.free_running.median),
            ms(measured.free_running.p10),
            ms(measured.free_running.p90),
            ms(measured.host),
            measured.own.map_or(String::new(), |own| ms(own.median)),
            measured.first,
            mib(measured.reserved),
            mib(measured.card),
        );
        for kernel in &measured.kernels {
            let Spread { median, p10, p90 } = kernel.time;
            let _ = writeln!(
                text,
                "{start},{},{},{},{},{},,,,,",
                kernel.name,
                kernel.launches,
                ms(median),
                ms(p10),
                ms(p90)
            );
        }
        file.append(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_asked_for() {
        let mut random = Random::new(1, 1);
        let mut draw = |lengths: Lengths| -> Vec<usize> { (0..4000).map(|_| lengths.draw(&mut random, 32)).collect() };
        assert!(draw(Lengths::Full).iter().all(|length| *length == 32));
        let mean = |lengths: &[usize]| lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        let uniform = draw(Lengths::Uniform);
        assert!((mean(&uniform) - 17.0).abs() < 1.0 && uniform.contains(&2) && uniform.contains(&32));
        let around = draw(Lengths::Mean(16.0));
        assert!((mean(&around) - 16.0).abs() < 0.8, "{}", mean(&around));
        assert_eq!("16".parse(), Ok(Lengths::Mean(16.0)));
        assert!("1".parse::<Lengths>().is_err() && "long".parse::<Lengths>().is_err());
    }
}
