//! Launches every variant of every CUDA kernel, so that each gets compiled; nobody looks at the results.
//!
//! With `scripts/check-cuda-kernels.sh` it runs on machines without a GPU, where nothing is executed at all. What NVRTC
//! or the driver refuses is an error: it says so, and fails.

mod encoder;

use std::process::ExitCode;

use burn::tensor::{DType, Device, ExecutionError, Int, Tensor};
use elmo_kernels::{
    Format, Head, KernelPath, Positives, Search, Segment, Step, classifier_search, classifier_step, cpu,
};

/// Features: whole tiles, and nothing that a tile divides.
const DIMS: [usize; 2] = [768, 123];
/// Rows: one tile, several, and every width that a tile may have.
const BATCHES: [usize; 4] = [40, 100, 200, 500];
/// `X` comes in the type that the encoder computes in. Only the kernels that read `X` itself differ by it, and they do
/// not differ by the batch.
const OTHER_INPUTS: (usize, [DType; 2]) = (100, [DType::BF16, DType::F16]);
/// A list in registers and one in memory.
const K: [usize; 2] = [5, 100];
/// Labels: more than a tile, and not whole ones. Their number chooses no kernel.
const LABELS: usize = 300;
const FIRST_LABEL: u64 = 1000;

/// Lines of an error: NVRTC may have the same to say of every instruction of a kernel.
const ERROR_LINES: usize = 20;

/// One segment and one batch on the device.
#[derive(Clone, Copy, Debug)]
struct Case {
    path: KernelPath,
    segment: Segment,
    operands: Format,
    batch: usize,
    input: DType,
}

impl Case {
    fn words(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::zeros([self.segment.words()], (device, DType::U32))
    }

    fn x(&self, device: &Device) -> Tensor<2> {
        Tensor::zeros([self.batch, self.segment.dim], (device, self.input))
    }

    fn step(&self, loss: bool, weight_decay: f32, device: &Device) -> Result<(), ExecutionError> {
        let compensation = [self.segment.compensation_words().max(1)];
        let positives = (0..LABELS).map(|i| ((FIRST_LABEL as usize + i) as u32, (i % self.batch) as u32)).collect();
        let output = classifier_step(
            self.segment,
            Step {
                operands: self.operands,
                chunk: Some(LABELS),
                learning_rate: 0.05,
                weight_decay,
                rounding_key: Step::rounding_key(1, 1),
                loss,
                weight_bytes: 0,
                kernels: self.path,
            },
            self.words(device),
            Tensor::zeros(compensation, (device, DType::U32)),
            self.x(device),
            Positives::from_sorted(positives),
            Tensor::zeros([self.batch, self.segment.dim], (device, DType::F32)),
        );
        // A launch that failed is known by what it should have written, and to nobody who does not ask for that.
        output.words.try_into_data()?;
        output.compensation.try_into_data()?;
        output.input_gradient.try_into_data()?;
        output.report.try_into_data()?;
        Ok(())
    }

    fn search(&self, k: usize, device: &Device) -> Result<(), ExecutionError> {
        let (scores, labels) = classifier_search(
            self.segment,
            Search { operands: self.operands, chunk: Some(LABELS), k, kernels: self.path },
            self.words(device),
            self.x(device),
            Tensor::full([self.batch, k], cpu::Best::NO_SCORE, (device, DType::F32)),
            Tensor::full([self.batch, k], cpu::Best::NO_LABEL, (device, DType::I32)),
        );
        scores.try_into_data()?;
        labels.try_into_data()?;
        Ok(())
    }
}

/// The heads that weights of a format may have; rounding takes nothing from F32 weights.
fn heads(precision: Format) -> Vec<Option<Head>> {
    let head = |compensation| Some(Head { labels: FIRST_LABEL + LABELS as u64 / 2, compensation });
    match precision {
        Format::F32 => vec![None],
        _ => vec![None, head(Format::Bf16), head(Format::E5m2)],
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (path, precision) in KernelPath::ALL.iter().flat_map(|path| Format::WEIGHTS.map(|p| (*path, p))) {
        for (head, dim) in heads(precision).iter().flat_map(|h| DIMS.map(|d| (*h, d))) {
            let segment = Segment { first_label: FIRST_LABEL, labels: LABELS, dim, precision, head };
            for (operands, batch) in Format::WEIGHTS.iter().flat_map(|o| BATCHES.map(|b| (*o, b))) {
                let case = Case { path, segment, operands, batch, input: DType::F32 };
                cases.push(case);
                if batch == OTHER_INPUTS.0 && head.is_none() {
                    cases.extend(OTHER_INPUTS.1.map(|input| Case { input, ..case }));
                }
            }
        }
    }
    cases
}

/// What has been launched.
#[derive(Default)]
struct Count {
    steps: usize,
    searches: usize,
}

impl Count {
    fn launch(&mut self, case: &Case, device: &Device) -> Result<(), ExecutionError> {
        for loss in [false, true] {
            for weight_decay in [0.0, 0.01] {
                case.step(loss, weight_decay, device)?;
                self.steps += 1;
            }
        }
        // A search knows no head.
        if case.segment.head.is_none() {
            for k in K {
                case.search(k, device)?;
                self.searches += 1;
            }
        }
        Ok(())
    }
}

/// What went wrong, without the kernel's source.
fn print_error(case: &dyn std::fmt::Debug, error: &ExecutionError) {
    eprintln!("{case:?}");
    let text = format!("{error:?}");
    let mut lines: Vec<_> = text.lines().take_while(|line| !line.contains("[Source]")).collect();
    lines.dedup();
    for line in lines.iter().take(ERROR_LINES) {
        eprintln!("  {line}");
    }
    if lines.len() > ERROR_LINES {
        eprintln!("  and {} lines more", lines.len() - ERROR_LINES);
    }
}

fn main() -> ExitCode {
    let device = Device::cuda(0);
    let mut count = Count::default();
    let mut refused = Vec::new();
    for case in cases() {
        // A kernel that is refused is compiled again for each case that needs it.
        let kind = (case.path, case.segment.precision);
        if refused.contains(&kind) {
            continue;
        }
        if let Err(error) = count.launch(&case, &device) {
            print_error(&case, &error);
            refused.push(kind);
        }
    }
    let mut encoders = 0;
    let mut refused_encoders = 0;
    for case in encoder::cases() {
        match case.run(&device) {
            Ok(()) => encoders += 1,
            Err(error) => {
                print_error(&case, &error);
                refused_encoders += 1;
            }
        }
    }
    let Count { steps, searches } = count;
    println!(
        "{steps} steps, {searches} searches and {encoders} encoders launched, {refused_encoders} encoders refused"
    );
    for (path, precision) in &refused {
        println!("refused: {path} kernels with {precision} weights");
    }
    ExitCode::from(u8::from(!refused.is_empty() || refused_encoders > 0))
}
