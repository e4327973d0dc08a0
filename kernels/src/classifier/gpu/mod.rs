//! The operations on GPUs: CubeCL kernels that run on CUDA, Vulkan, Metal and WGSL from one source.
//!
//! Beside the weights a step holds one chunk's gradient and `X` once or twice. Weights are decoded while they are
//! loaded, in all products that need them, and are updated where they lie; the weight gradient exists in registers
//! alone. The device never waits for the host nor the host for the device: what the host knows (positives, scalars)
//! travels with the launches.
//!
//! Three paths compute the same: [`portable`] in F32 on every device, [`mma`] with 16-bit operands where there
//! are instructions for them, and `wgmma` with that device's own instructions. In all of them every sum runs in one
//! order, and nothing is added up by floating-point atomics. So weights, input gradient and loss repeat bit for bit on
//! one device, for every chunk size. They agree with the CPU up to the rounding of sums (Hopper's of E4M3 products have
//! fewer bits than F32), of
//! `exp` and, with tensor cores, of the gradient to 16 bits; equal values before rounding give equal codes everywhere.
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
    problem::{Positives, Search, Segment, Step},
};
use crate::{
    gpu::memory::{empty, exclusive, upload},
    timing::{Grain, timed},
};
use common::{StepInput, search::Best};

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
        let held = if segment.head_rows() > 0 {
            compensation = exclusive(compensation);
            compensation.clone()
        } else {
            // What came in may be empty.
            empty(&words, 0, DType::U32)
        };
        let input = StepInput {
            words: words.clone(),
            held,
            x: into_contiguous(x),
            input_gradient: input_gradient.clone(),
            positives: &positives,
            segment: &segment,
            step: &step,
        };
        let report = timed(Grain::Operations, "classifier_step", &words.client, || {
            #[cfg(feature = "cuda")]
            if let Some(plan) = wgmma::Plan::of_step(&input) {
                return wgmma::step(&input, &plan);
            }
            match mma::Plan::of_step(&input) {
                Some(plan) => mma::step(&input, &plan),
                None => portable::step(&input),
            }
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
        let words = into_contiguous(words);
        let x = into_contiguous(x);
        let client = words.client.clone();
        timed(Grain::Operations, "classifier_search", &client, || {
            let best = Best::new(into_contiguous(scores), into_contiguous(labels), batch, search.k);
            #[cfg(feature = "cuda")]
            if let Some(plan) = wgmma::SearchPlan::new(&words, &segment, &search, batch) {
                return wgmma::search(&words, &x, &segment, &search, &plan, best);
            }
            match mma::Plan::of_search(&words, &segment, &search, batch) {
                Some(plan) => mma::search(&words, &x, &segment, &search, &plan, best),
                None => portable::search(&words, &x, &segment, &search, best),
            }
        })
    }
}
