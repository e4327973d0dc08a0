//! The operations on GPUs: CubeCL kernels that run on CUDA, Vulkan, Metal and WGSL from one source.
//!
//! Beside the weights a step holds one chunk's gradient and `X` once or twice. Weights are decoded while they are
//! loaded, in all products that need them, and are updated where they lie; the weight gradient exists in registers
//! alone. The device never waits for the host nor the host for the device: what the host knows (positives, scalars)
//! travels with the launches.
//!
//! Three paths compute the same: [`portable`] in F32 on every device, [`tensor_core`] with 16-bit operands where there
//! are instructions for them, and `hopper` with that device's own instructions. In all of them every sum runs in one
//! order, and nothing is added up by floating-point atomics. So weights, input gradient and loss repeat bit for bit on
//! one device, for every chunk size. They agree with the CPU up to the rounding of sums (Hopper's of E4M3 products have
//! fewer bits than F32), of
//! `exp` and, with tensor cores, of the gradient to 16 bits; equal values before rounding give equal codes everywhere.
//!
//! F32 denormals may be flushed to zero on the way: BF16 and F32 weights below 2^-126.

mod fp8;
#[cfg(feature = "cuda")]
mod hopper;
mod logits;
mod portable;
mod search;
mod tensor_core;
mod tile;
mod update;

use burn::backend::{
    cubecl::dtype_to_storage_type,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Shape};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use crate::{
    ops::ClassifierOps,
    problem::{Positives, Search, Segment, Step},
    timing::{Grain, timed},
};
use fp8::Format;

/// What [`kept`] memory is rounded up to, for each size stays: chunks of about the same size share one.
const KEPT_BYTES: usize = 4 << 20;

/// Units of a cube where every unit works by itself.
const LINEAR: CubeDim = CubeDim::new_1d(256);

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
            if let Some(plan) = hopper::Plan::of_step(&input) {
                return hopper::step(&input, &plan);
            }
            match tensor_core::Plan::of_step(&input) {
                Some(plan) => tensor_core::step(&input, &plan),
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
            let best = search::Best::new(into_contiguous(scores), into_contiguous(labels), batch, search.k);
            #[cfg(feature = "cuda")]
            if let Some(plan) = hopper::SearchPlan::new(&words, &segment, &search, batch) {
                return hopper::search(&words, &x, &segment, &search, &plan, best);
            }
            match tensor_core::Plan::of_search(&words, &segment, &search, batch) {
                Some(plan) => tensor_core::search(&words, &x, &segment, &search, &plan, best),
                None => portable::search(&words, &x, &segment, &search, best),
            }
        })
    }
}

/// One step over one segment. Tensors are contiguous, and those that change are held by nobody else.
struct StepInput<'a> {
    words: CubeTensor,
    /// The head's compensation; something of any size where there is no head.
    held: CubeTensor,
    x: CubeTensor,
    input_gradient: CubeTensor,
    positives: &'a Positives,
    segment: &'a Segment,
    step: &'a Step,
}

impl StepInput<'_> {
    fn batch(&self) -> usize {
        self.x.meta.shape()[0]
    }

    /// The segment's positives, (row of the segment, row of the batch), one behind the other.
    ///
    /// # Panics
    /// If a positive lies outside of the batch.
    fn pairs(&self) -> Vec<u32> {
        let Segment {
            first_label, labels, ..
        } = *self.segment;
        (self.positives.of_labels(first_label, labels).iter())
            .flat_map(|(label, row)| {
                assert!((*row as usize) < self.batch(), "a positive's row");
                [(u64::from(*label) - first_label) as u32, *row]
            })
            .collect()
    }

    fn compensation_row_words(&self) -> usize {
        self.segment
            .head
            .map_or(0, |head| head.compensation.row_words(self.segment.dim))
    }

    fn compensation_format(&self) -> Option<Format> {
        self.segment
            .head
            .filter(|_| self.segment.head_rows() > 0)
            .map(|head| head.compensation.into())
    }
}

/// 16-byte parts of a row of weights.
fn row_parts(segment: &Segment) -> usize {
    segment.precision.row_words(segment.dim) / 4
}

/// A run of the segment's rows.
#[derive(Clone, Copy)]
struct Chunk {
    first: usize,
    labels: usize,
}

/// The chunks of so many labels.
fn chunks(labels: usize, size: usize) -> impl Iterator<Item = Chunk> {
    (0..labels).step_by(size).map(move |first| Chunk {
        first,
        labels: size.min(labels - first),
    })
}

/// The tensor itself if nobody else holds it and its rows lie one behind the other, else a copy that is so.
fn exclusive(tensor: CubeTensor) -> CubeTensor {
    let tensor = if tensor.can_mut() { tensor } else { tensor.copy() };
    into_contiguous(tensor)
}

/// Uninitialised memory on the device of `like`. Never empty, since no kernel can bind an empty buffer.
fn empty(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let handle = like.client.empty(len.max(1) * dtype.size());
    flat(like, len.max(1), handle, dtype)
}

/// The same, in memory of its own that the next step finds again, rounded up to whole [`KEPT_BYTES`].
///
/// A pool's pages are as large as the largest thing in them, so that something large in one page makes all the others
/// as large.
fn kept(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let client = &like.client;
    let bytes = (len.max(1) * dtype.size()).next_multiple_of(KEPT_BYTES);
    let handle = client.memory_persistent_allocation(bytes, |bytes| client.empty(bytes));
    flat(like, len.max(1), handle, dtype)
}

/// Values of the host on the device of `like`; the copy is queued, not waited for.
fn upload<T: CubeElement>(like: &CubeTensor, values: &[T], dtype: DType) -> CubeTensor {
    if values.is_empty() {
        return empty(like, 0, dtype);
    }
    let handle = like.client.create_from_slice(T::as_bytes(values));
    flat(like, values.len(), handle, dtype)
}

fn flat(like: &CubeTensor, len: usize, handle: cubecl::server::Handle, dtype: DType) -> CubeTensor {
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        Shape::from([len]),
        handle,
        dtype,
    )
}
