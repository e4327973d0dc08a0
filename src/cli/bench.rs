//! `elmo bench`

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    bench::{
        Bench, Clock, CsvFile, Measurement, Options, Shape, Spread, Task, Work,
        train_step::{Lengths, TrainStep},
    },
    classifier::{Format, KernelPath},
    cli::whole_number,
    device::Compute,
    encoder::Activations,
};

/// The most features, and the most rows in a batch.
const SIDE: u64 = 1 << 16;
/// The most steps.
const COUNT: u64 = 1_000_000_000;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A data set of the paper, or small; may be repeated. By default small on a CPU, amazontitles670k on a GPU.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Shape::names()), conflicts_with = "labels")]
    shape: Vec<String>,
    /// Labels of a shape of your own.
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>(1..=i32::MAX as u64))]
    labels: Option<usize>,
    /// Its features.
    #[arg(long, value_name = "N", requires = "labels", default_value_t = 768, value_parser = whole_number::<usize>(1..=SIDE))]
    dim: usize,
    /// Its rows in a batch.
    #[arg(long, value_name = "N", requires = "labels", default_value_t = 128, value_parser = whole_number::<usize>(1..=SIDE))]
    batch: usize,
    /// Its positives a row, on average.
    #[arg(long, value_name = "N", requires = "labels", default_value_t = 5.0)]
    positives: f64,
    /// How weights are stored.
    #[arg(long, value_name = "FORMAT", value_parser = formats(), default_value_t = Format::E4m3)]
    precision: Format,
    /// In what precision the input meets the weights; that of the weights by default.
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    operands: Option<Format>,
    /// Labels whose logits exist at one time; chosen from the batch by default.
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>(1..=i32::MAX as u64))]
    chunk: Option<usize>,
    /// Labels a row that the search finds.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = whole_number::<u16>(1..=65_535))]
    k: u16,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Tasks::All)]
    task: Tasks,
    /// How long the texts of a whole training step are: full, uniform (2 tokens to the most), or their mean length.
    #[arg(long, value_name = "LENGTHS", default_value_t = Lengths::Uniform)]
    lengths: Lengths,
    /// The most of a GPU that kernels may use: F32 arithmetic on every device, matrix instructions of CUDA since
    /// compute capability 8.0, or those of 9.0.
    #[arg(long, value_name = "KERNELS", value_parser = kernels(), default_value_t = KernelPath::Hopper)]
    kernels: KernelPath,
    /// What of the encoder's layers is kept for the way back in a whole training step: balanced, or the input alone.
    #[arg(long, value_name = "LEVEL", value_parser = levels(), default_value_t = Activations::Balanced)]
    activations: Activations,
    /// Compute the loss in the training step too.
    #[arg(long)]
    loss: bool,
    /// Samples of a measurement.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = whole_number::<usize>(1..=COUNT))]
    steps: usize,
    /// Steps before the first sample.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole_number::<usize>(0..=COUNT))]
    warmup: usize,
    /// Append the numbers to this CSV file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// The formats of weights and operands by their names.
fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::WEIGHTS.map(Format::name)).try_map(|name| name.parse::<Format>())
}

/// Paths of kernels by their names.
fn kernels() -> impl TypedValueParser<Value = KernelPath> {
    PossibleValuesParser::new(KernelPath::ALL.map(KernelPath::name)).try_map(|name| name.parse::<KernelPath>())
}

/// Levels of kept activations by their names.
fn levels() -> impl TypedValueParser<Value = Activations> {
    PossibleValuesParser::new(Activations::ALL.map(Activations::name)).try_map(|name| name.parse::<Activations>())
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Tasks {
    /// The training step.
    Step,
    /// The search for the best labels.
    TopK,
    /// Both.
    All,
    /// A whole training step: loader, encoder, classifier and optimizer.
    TrainStep,
}

impl Tasks {
    fn list(self) -> &'static [Task] {
        match self {
            Self::Step => &[Task::Step],
            Self::TopK => &[Task::TopK],
            Self::All => &[Task::Step, Task::TopK],
            Self::TrainStep => &[],
        }
    }
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    super::start_log();
    if cfg!(debug_assertions) {
        tracing::warn!("not a release build: its times say little");
    }
    let operands = arguments.operands.unwrap_or(arguments.precision);
    let options = Options {
        precision: arguments.precision,
        operands,
        chunk: arguments.chunk,
        kernels: arguments.kernels,
        activations: arguments.activations,
        k: arguments.k.into(),
        loss: arguments.loss,
        steps: arguments.steps,
        warmup: arguments.warmup,
    };
    if let Tasks::TrainStep = arguments.task {
        return train_steps(&arguments, &options, device);
    }
    // Before anything is measured: a file that cannot be continued is found out at once.
    let csv = arguments.csv.as_deref().map(CsvFile::open).transpose()?;
    let compute = Compute::open(device, operands != Format::F32, 0)?;
    let tasks = arguments.task.list();
    let mut out = std::io::stdout();
    for (number, shape) in shapes(&arguments, &compute).into_iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        let mut bench = Bench::prepare(&compute, shape, options.clone())?;
        writeln!(out, "{}", bench.summary(tasks))?;
        for (number, task) in tasks.iter().enumerate() {
            let measured = bench.measure(*task)?;
            if number == 0 {
                writeln!(out, "{}", head(&options, measured.clock))?;
            }
            write!(out, "{}", table(&bench, &options, &measured))?;
            if let Some(csv) = &csv {
                csv.add(&bench, &measured)?;
            }
        }
    }
    Ok(())
}

/// Whole training steps. The encoder has 16 bits where the device has BF16.
fn train_steps(arguments: &Arguments, options: &Options, device: Option<&str>) -> Result<()> {
    let csv = arguments.csv.as_deref().map(CsvFile::open_for_steps).transpose()?;
    let compute = Compute::open(device, true, 0)?;
    let mut out = std::io::stdout();
    for shape in shapes(arguments, &compute) {
        let mut step = TrainStep::prepare(&compute, &shape, options, arguments.lengths)?;
        writeln!(out, "{}", step.summary())?;
        let measured = step.measure()?;
        write!(out, "{}", step.table(&measured))?;
        if let Some(csv) = &csv {
            step.append_csv(&measured, csv)?;
        }
    }
    Ok(())
}

fn shapes(arguments: &Arguments, compute: &Compute) -> Vec<Shape> {
    if let Some(labels) = arguments.labels {
        return vec![Shape {
            name: "custom".into(),
            labels,
            dim: arguments.dim,
            batch: arguments.batch,
            positives: arguments.positives,
        }];
    }
    let default = match compute.is_cpu() {
        true => "small",
        false => "amazontitles670k",
    };
    let names = arguments.shape.iter().map(String::as_str);
    let default = arguments.shape.is_empty().then_some(default);
    names.chain(default).filter_map(Shape::named).collect()
}

fn head(options: &Options, clock: Clock) -> String {
    format!(
        "time    {} samples after {} steps, by the clock of the {}\n{:24}{:>8}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}",
        options.steps,
        options.warmup,
        clock.name(),
        "",
        "launches",
        "median ms",
        "p10",
        "p90",
        "free ms",
        "TFLOP/s",
        "GB/s",
        "x floor",
    )
}

/// The task's line, its kernels' lines, and its memory.
fn table(bench: &Bench, options: &Options, measured: &Measurement) -> String {
    let name = measured.task.name(options);
    let free = format!("{:.3}", 1e3 * measured.free_running);
    let times_floor =
        (bench.floor(measured.task)).map_or(String::new(), |floor| format!("{:.2}", measured.time.median / floor));
    let (time, work) = (measured.time, measured.work);
    let mut text = line(&name, "", time, &free, work, &times_floor);
    for kernel in &measured.kernels {
        let launches = kernel.launches.to_string();
        let name = format!("  {}", kernel.name);
        text += &line(&name, &launches, kernel.time, "", kernel.work, "");
    }
    if let Some(reserved) = measured.reserved {
        let weights = bench.weight_bytes();
        let beyond = reserved.saturating_sub(weights);
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        text += &format!(
            "  memory {:.1} MiB, {:.1} MiB beyond the weights ({:.1}%)\n",
            mib(reserved),
            mib(beyond),
            100.0 * beyond as f64 / weights as f64,
        );
    }
    text
}

fn line(name: &str, launches: &str, time: Spread, free: &str, work: Work, times_floor: &str) -> String {
    let ms = |seconds: f64| format!("{:.3}", 1e3 * seconds);
    // A CPU's rates are a thousandth of a GPU's.
    let rate = |rate: Option<f64>| match rate {
        Some(rate) if rate < 10.0 => format!("{rate:.4}"),
        Some(rate) => format!("{rate:.1}"),
        None => String::new(),
    };
    let text = format!(
        "{name:24}{launches:>8}{:>11}{:>10}{:>10}{free:>10}{:>10}{:>10}{times_floor:>9}",
        ms(time.median),
        ms(time.p10),
        ms(time.p90),
        rate(work.tflops(time.median)),
        rate(work.gbytes_per_s(time.median)),
    );
    text.trim_end().to_owned() + "\n"
}
