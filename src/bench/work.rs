//! What a task has to do at least, and how long an H100 needs for that.
//!
//! The floor counts the weights read once and written once, and the products at the rates of large matrices, as if all
//! else were free; the longer of the two. No version runs much faster. The rates were measured on an H100 80GB: 3.02
//! TB/s copying, 791 TFLOP/s in BF16 and 1442 in E4M3 at 8192 x 8192 x 8192.

use super::{Options, Shape, Task};
use crate::classifier::Format;

/// The H100's rates, as they are printed.
pub(super) const RATES: &str = "3.02 TB/s, 791 TFLOP/s in BF16, 1442 in E4M3";
const BYTES_PER_SECOND: f64 = 3.02e12;
const BF16_PER_SECOND: f64 = 791e12;
const E4M3_PER_SECOND: f64 = 1442e12;

/// Operations and bytes; none where nothing sensible can be said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations: two for each weight and row in each product.
    pub operations: Option<f64>,
    /// Bytes through device memory: weights, and logits in 16 bits where they are stored.
    pub bytes: Option<f64>,
}

impl Work {
    /// TFLOP/s of this work in `seconds`.
    pub fn tflops(&self, seconds: f64) -> Option<f64> {
        self.operations.map(|n| n / seconds / 1e12)
    }

    /// GB/s of this work in `seconds`.
    pub fn gbytes_per_s(&self, seconds: f64) -> Option<f64> {
        self.bytes.map(|n| n / seconds / 1e9)
    }

    pub(super) fn of_task(task: Task, shape: &Shape, weights: u64) -> Self {
        let (products, passes) = match task {
            Task::Step => (3.0, 2.0),
            Task::TopK => (1.0, 1.0),
        };
        Self { operations: Some(products * product(shape)), bytes: Some(passes * weights as f64) }
    }

    /// Other kernels than those of the three products have no work that says much.
    pub(super) fn of_kernel(name: &str, shape: &Shape, weights: u64) -> Self {
        let (products, passes) = match name {
            "logits" | "input_gradient" => (1.0, 1.0),
            "update" => (1.0, 2.0),
            // The input gradient and the update in one.
            "backward" => (2.0, 2.0),
            _ => return Self::default(),
        };
        let logits = 2.0 * shape.labels as f64 * shape.batch as f64;
        Self { operations: Some(products * product(shape)), bytes: Some(passes * weights as f64 + logits) }
    }
}

/// Operations of one product over all labels.
fn product(shape: &Shape) -> f64 {
    2.0 * shape.labels as f64 * shape.dim as f64 * shape.batch as f64
}

/// Seconds of a task on an H100 at least. Products in F32 count as nothing, as there is no rate for them.
pub(super) fn floor(task: Task, shape: &Shape, options: &Options, weights: u64) -> f64 {
    let logits = match options.operands {
        Format::E4m3 => 1.0 / E4M3_PER_SECOND,
        Format::Bf16 => 1.0 / BF16_PER_SECOND,
        _ => 0.0,
    };
    let gradients = match options.precision {
        Format::E4m3 | Format::Bf16 => 2.0 / BF16_PER_SECOND,
        _ => 0.0,
    };
    let products = match task {
        Task::Step => logits + gradients,
        Task::TopK => logits,
    };
    let bytes = Work::of_task(task, shape, weights).bytes;
    (products * product(shape)).max(bytes.unwrap_or(0.0) / BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_those_of_the_baseline() {
        for (name, e4m3, bf16) in [
            ("lfamazontitles131k", 0.33, 0.39),
            ("wiki500k", 0.32, 0.51),
            ("amazontitles670k", 0.85, 1.00),
            ("lfamazontitles1.3m", 3.31, 3.90),
            ("lfpaper2keywords", 5.47, 8.77),
        ] {
            let shape = Shape::named(name).unwrap();
            let weights = (shape.labels * shape.dim) as u64;
            let floor = |precision, operands, bytes| {
                let options = Options { precision, operands, ..Options::default() };
                1e3 * floor(Task::Step, &shape, &options, bytes * weights)
            };
            let ours = floor(Format::E4m3, Format::E4m3, 1);
            assert!((ours - e4m3).abs() < 0.01, "{name}: {ours}");
            let ours = floor(Format::Bf16, Format::Bf16, 2);
            assert!((ours - bf16).abs() < 0.01, "{name}: {ours}");
        }
    }
}
