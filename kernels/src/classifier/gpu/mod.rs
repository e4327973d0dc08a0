//! The operations on GPUs: CubeCL kernels that run on CUDA, Vulkan, Metal and WGSL from one source.
//!
//! Beside the weights a step holds one chunk's gradient and `X` once or twice. Weights are decoded while they are
//! loaded, in all products that need them, and are updated where they lie; the weight gradient exists in registers
//! alone. The device never waits for the host nor the host for the device: what the host knows (positives, scalars)
//! travels with the launches.
//!
//! Three paths compute the same: [`portable`] in F32 on every device, [`mma`] with 16-bit operands where there are
//! instructions for them, and `wgmma` with Hopper's own instructions. None knows another; [`paths()`] chooses. In all
//! of them every sum runs in one order, and nothing is added up by floating-point atomics. So weights, input gradient
//! and loss repeat bit for bit on one device, for every chunk size. They agree with the CPU up to the rounding of sums
//! (Hopper's of E4M3 products have fewer bits than F32), of `exp` and, with tensor cores, of the gradient to 16 bits;
//! equal values before rounding give equal codes everywhere.
//!
//! F32 denormals may be flushed to zero on the way: BF16 and F32 weights below 2^-126.

mod common;
mod mma;
mod portable;
#[cfg(feature = "cuda")]
mod wgmma;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{
    ops::ClassifierOps,
    positives::Positives,
    problem::{Search, Segment, Step},
};
use crate::{
    gpu::memory::{empty, exclusive, upload},
    path::KernelPath,
    timing::{Grain, timed},
};
use common::{Path, SearchInput, StepInput, search::Best};

/// The paths that may be used, the best first; the last one can do everything.
fn paths(most: KernelPath) -> Vec<Box<dyn Path>> {
    let mut paths: Vec<Box<dyn Path>> = Vec::new();
    #[cfg_attr(not(feature = "cuda"), allow(unused_mut))]
    let mut mma = mma::Mma::default();
    #[cfg(feature = "cuda")]
    if most >= KernelPath::Hopper {
        paths.push(Box::new(wgmma::Wgmma));
        // Of a step with BF16 weights Hopper's kernels have the logits alone.
        mma.gradient = Some(wgmma::bf16_gradient);
    }
    if most >= KernelPath::TensorCores {
        paths.push(Box::new(mma));
    }
    paths.push(Box::new(portable::Portable));
    paths
}

impl ClassifierOps for CubeBackend {
    /// Weights, compensation and input gradient are copied if somebody else holds them too, else updated in place.
    fn classifier_step(
        words: IntTensor<Self>,
        mut compensation: IntTensor<Self>,
        x: FloatTensor<Self>,
        input_gradient: FloatTensor<Self>,
        positives: Positives,
        segment: Segment,
        step: Step,
    ) -> (IntTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let batch = x.meta.shape()[0];
        if batch == 0 || segment.labels == 0 {
            let report = upload(&x, &[0.0f32, 0.0], DType::F32);
            return (words, compensation, input_gradient, report);
        }
        let words = exclusive(words);
        let input_gradient = exclusive(input_gradient);
        let input = StepInput {
            words: words.clone(),
            compensation: if segment.head_rows() > 0 {
                compensation = exclusive(compensation);
                compensation.clone()
            } else {
                // What came in may be empty, and no kernel can bind an empty buffer.
                empty(&words, 0, DType::U32)
            },
            x: into_contiguous(x),
            input_gradient: input_gradient.clone(),
            positives: &positives,
            segment: &segment,
            step: &step,
        };
        let report = timed(Grain::Operations, "classifier_step", &words.client, || {
            let report = paths(step.kernels).iter().find_map(|path| path.step(&input));
            report.expect("the portable path can do every step")
        });
        (words, compensation, input_gradient, report)
    }

    fn classifier_search(
        words: IntTensor<Self>,
        x: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        labels: IntTensor<Self>,
        segment: Segment,
        search: Search,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let batch = x.meta.shape()[0];
        if batch == 0 || segment.labels == 0 || search.k == 0 {
            return (scores, labels);
        }
        let client = words.client.clone();
        timed(Grain::Operations, "classifier_search", &client, || {
            let input = SearchInput {
                words: into_contiguous(words),
                x: into_contiguous(x),
                best: Best::new(into_contiguous(scores), into_contiguous(labels), batch, search.k),
                segment: &segment,
                search: &search,
            };
            let best = paths(search.kernels).iter().find_map(|path| path.search(&input));
            best.expect("the portable path can do every search").into_tensors()
        })
    }
}
