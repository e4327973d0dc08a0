//! What the classifier costs: time and memory of its training step and of its search, measured alone on one device.
//!
//! ```no_run
//! use elmo::{bench::{Bench, Options, Shape, Task}, device::Compute};
//!
//! # fn main() -> elmo::Result<()> {
//! let compute = Compute::open(Some("cpu"), false, 0)?;
//! let mut bench = Bench::prepare(&compute, Shape::named("small").unwrap(), Options::default())?;
//! let step = bench.measure(Task::Step)?;
//! println!("{:.3} ms", 1e3 * step.time.median);
//! # Ok(()) }
//! ```
//!
//! A GPU is timed by its own clock, around every whole operation, and in a second pass around every kernel. The host's
//! clock around many steps with one wait at the end says what a training would see. `benches/NOTES.md` has the method.

mod csv;
mod measure;
mod shape;
pub mod train_step;
mod work;
mod workload;

use burn::backend::ExecutionError;

pub use crate::hardware::Hardware;
pub use csv::CsvFile;
pub use measure::{Clock, Kernel, Spread};
pub use shape::Shape;
pub use work::Work;
pub use workload::Workload;

use crate::{
    classifier::{Format, KernelPath},
    device::Compute,
    encoder::Activations,
    error::{Error, Result, bytes},
    memory::Estimate,
};

/// What is measured, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How weights are stored; E4M3 by default.
    pub precision: Format,
    /// In what precision the input meets the weights; E4M3 by default.
    pub operands: Format,
    /// Labels whose logits exist at one time; the classifier chooses by default.
    pub chunk: Option<usize>,
    /// The most of a GPU that kernels may use; all of it by default.
    pub kernels: KernelPath,
    /// What of the encoder's layers is kept in a whole training step; `balanced` by default.
    pub activations: Activations,
    /// Labels a row that the search finds, 5 by default.
    pub k: usize,
    /// Whether the training step computes the loss too; not by default.
    pub loss: bool,
    /// Samples of a measurement, 30 by default.
    pub steps: usize,
    /// Steps before the first sample, 5 by default: kernels are compiled and memory is taken in them.
    pub warmup: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            precision: Format::E4m3,
            operands: Format::E4m3,
            chunk: None,
            kernels: KernelPath::default(),
            activations: Activations::default(),
            k: 5,
            loss: false,
            steps: 30,
            warmup: 5,
        }
    }
}

/// What the classifier does while it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A training step.
    Step,
    /// The best labels of a batch.
    TopK,
}

impl Task {
    /// `step`, `top5`.
    pub fn name(self, options: &Options) -> String {
        match self {
            Self::Step => "step".into(),
            Self::TopK => format!("top{}", options.k),
        }
    }
}

/// One task, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// What was done.
    pub task: Task,
    /// Whose clock `time` was read from.
    pub clock: Clock,
    /// Seconds.
    pub time: Spread,
    /// Seconds a step by the host's clock, over all steps with one wait for the device at the end.
    pub free_running: f64,
    /// What the whole task has to do.
    pub work: Work,
    /// Its kernels in the order in which they run first; none where the device does not tell.
    pub kernels: Vec<Kernel>,
    /// Bytes that the device's pool had reserved after the steps, weights included; none on a CPU.
    pub reserved: Option<u64>,
}

/// A classifier of one shape on one device, with data to measure it on.
pub struct Bench {
    shape: Shape,
    options: Options,
    compute: Compute,
    hardware: Hardware,
    workload: Workload,
}

impl Bench {
    /// Checks the sizes, and puts classifier and data on the device.
    ///
    /// # Errors
    /// [`Error::Usage`] if a size is out of range, [`Error::Memory`] if it would not fit, [`Error::Device`] if the
    /// device fails.
    pub fn prepare(compute: &Compute, shape: Shape, options: Options) -> Result<Self> {
        shape.check()?;
        options.check()?;
        // What came before, and what the way to the device takes, is not part of the peak.
        let settle = || {
            let settled = compute.device.sync();
            compute.device.memory_cleanup();
            settled.map_err(|error| failed(compute, &error))
        };
        settle()?;
        let hardware = Hardware::of(compute);
        check_memory(compute, &hardware, &shape, &options)?;
        let workload = Workload::new(compute, &shape, &options);
        settle()?;
        Ok(Self { workload, compute: compute.clone(), shape, options, hardware })
    }

    /// Measures one task.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails, [`Error::Training`] if what it computed is not finite.
    pub fn measure(&mut self, task: Task) -> Result<Measurement> {
        let (device, workload) = (&self.compute.device, &mut self.workload);
        let times = match task {
            Task::Step => measure::measure(device, &self.options, || workload.step()),
            Task::TopK => measure::measure(device, &self.options, || workload.top_k()),
        }
        .map_err(|error| failed(&self.compute, &error))?;
        // A launch that failed shows in what it should have written.
        if !self.workload.is_finite(task) {
            return Err(Error::Training {
                message: format!(
                    "{} gives numbers that are not finite on {}",
                    task.name(&self.options),
                    self.compute.name
                ),
                hint: Some("the kernels' tests show what is wrong: cargo test -p elmo-kernels".into()),
            });
        }
        let weights = self.weight_bytes();
        let mut kernels = times.kernels;
        for kernel in &mut kernels {
            kernel.work = Work::of_kernel(kernel.name, &self.shape, weights);
        }
        Ok(Measurement {
            task,
            clock: times.clock,
            time: times.time,
            free_running: times.free_running,
            work: Work::of_task(task, &self.shape, weights),
            kernels,
            reserved: times.reserved,
        })
    }

    /// Seconds that an H100 needs for `task` at least; see [`Work`]. It says nothing about a CPU.
    pub fn floor(&self, task: Task) -> Option<f64> {
        let floor = || work::floor(task, &self.shape, &self.options, self.weight_bytes());
        (!self.compute.is_cpu()).then(floor)
    }

    /// Bytes of the classifier's weights.
    pub fn weight_bytes(&self) -> u64 {
        self.workload.classifier().config().bytes()
    }

    /// Labels whose logits exist at one time in `task`.
    pub fn chunk(&self, task: Task) -> usize {
        let config = self.workload.classifier().config();
        let device = &self.compute.device;
        match task {
            Task::Step => config.step_chunk(device, self.shape.batch),
            Task::TopK => config.search_chunk(device, self.shape.batch),
        }
    }

    /// What is measured and where, in lines for a person.
    pub fn summary(&self, tasks: &[Task]) -> String {
        let shape = &self.shape;
        let driver = (self.hardware.driver.as_ref()).map_or(String::new(), |driver| format!(", driver {driver}"));
        let floors: Vec<String> = (tasks.iter())
            .filter_map(|task| {
                let ms = 1e3 * self.floor(*task)?;
                Some(format!("{} {ms:.3} ms", task.name(&self.options)))
            })
            .collect();
        let floor = match floors.is_empty() {
            true => String::new(),
            false => format!("\nfloor   {} on an H100 ({}), whatever the device here", floors.join(", "), work::RATES),
        };
        let mut chunks: Vec<_> = tasks.iter().map(|task| self.chunk(*task)).collect();
        chunks.dedup();
        let chunks: Vec<_> = chunks.iter().map(usize::to_string).collect();
        format!(
            "shape   {}: {} labels x {}, batch {}, {} positives a row\n\
             model   classifier in {}, operands in {}, {}, chunks of {} labels{}\n\
             device  {}: {}{driver}{floor}",
            shape.name,
            shape.labels,
            shape.dim,
            shape.batch,
            shape.positives,
            self.options.precision,
            self.options.operands,
            bytes(self.weight_bytes()),
            chunks.join(" and "),
            if self.options.loss { ", with the loss" } else { "" },
            self.compute.name,
            self.hardware.name,
        )
    }
}

fn failed(compute: &Compute, error: &ExecutionError) -> Error {
    Error::Device { device: compute.name.clone(), message: format!("failed: {error}"), hint: None }
}

impl Options {
    fn check(&self) -> Result<()> {
        for (key, value) in [("--k", self.k), ("--steps", self.steps), ("--chunk", self.chunk.unwrap_or(1))] {
            if value == 0 {
                return Err(shape::out_of_range(key, "at least 1", "0"));
            }
        }
        Ok(())
    }
}

/// Too large a shape is found out before anything is allocated, where the machine tells what it has.
fn check_memory(compute: &Compute, hardware: &Hardware, shape: &Shape, options: &Options) -> Result<()> {
    const HINT: &str = "choose a smaller shape, a smaller batch or a smaller precision";
    let config = workload::classifier_config(compute, shape, options);
    let found = 16 * (shape.batch * options.k) as u64;
    let mut estimate = Estimate::default();
    estimate.add("classifier weights", config.bytes()).add("classifier step", config.step_bytes(shape.batch) + found);
    if !compute.is_cpu() {
        if let Some(free) = hardware.free_memory {
            estimate.check(&format!("on {}", compute.name), free, HINT)?;
        }
        // Initial weights are drawn on the host, one buffer at a time.
        estimate = Estimate::default();
        estimate.add("initial weights", config.bytes().min(2 * compute.segment_bytes as u64));
    }
    estimate.add("made-up batches", workload::data_bytes(shape));
    estimate.check_cpu(HINT)
}
