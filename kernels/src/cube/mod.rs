//! The operations on GPUs: CubeCL kernels that run on CUDA, Vulkan, Metal and WGSL from one source.
//!
//! Beside the weights a step holds one chunk's gradient, `[chunk, batch]` in F32, and `X` once or twice. Weights are
//! decoded while they are loaded, in both products that need them, and are updated where they lie; the weight gradient
//! exists in registers alone. The device never waits for the host nor the host for the device: what the host knows
//! (positives, scalars) travels with the launches.
//!
//! Every sum runs in one order (see [`tile`]) and nothing is added up by floating-point atomics. So weights, input
//! gradient and loss repeat bit for bit on one device, for every chunk size. They agree with the CPU up to the rounding of
//! F32 sums, since devices compute `exp` differently; equal values before rounding give equal codes everywhere.
//!
//! F32 denormals may be flushed to zero on the way: BF16 and F32 weights below 2^-126.

mod fp8;
mod logits;
mod search;
mod tile;
mod update;

use burn::backend::{
    cubecl::dtype_to_storage_type,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Shape};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use crate::{
    ops::ClassifierOps,
    problem::{Operands, Positives, Search, Segment, Step},
};
use fp8::Format;

/// Labels of a chunk at most, whatever the caller asks for: the cubes that every device can launch along one axis.
const MAX_CHUNK: usize = 65_535;
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
    ) -> (
        IntTensor<Self>,
        IntTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let batch = x.meta.shape()[0];
        if batch == 0 || segment.labels == 0 {
            let report = upload(&x, &[0.0f32, 0.0], DType::F32);
            return (words, compensation, input_gradient, report);
        }
        let words = exclusive(words);
        let input_gradient = exclusive(input_gradient);
        let head_rows = segment.head_rows();
        let held = if head_rows > 0 {
            compensation = exclusive(compensation);
            compensation.clone()
        } else {
            // What came in may be empty.
            empty(&words, 0, DType::U32)
        };

        let problem = Problem::new(&segment, batch, step.chunk);
        let x = into_contiguous(x);
        let exact = problem.convert(&x, Format::F32);
        let operand = match step.operands {
            Operands::F32 => exact.clone(),
            operands => problem.convert(&x, operands.into()),
        };
        let positives = ChunkedPositives::new(&problem, &positives);
        let positions = upload(&words, &positives.positions, DType::U32);
        let gradient = problem.logits_buffer(&words);
        let loss_of = |values: usize| if step.loss { values } else { 0 };
        let losses = empty(&words, loss_of(segment.labels), DType::F32);
        let positive_logits = empty(&words, loss_of(positives.len()), DType::F32);
        let non_finite = upload(&words, &[0u32], DType::U32);
        let client = &words.client;

        for (chunk, from, to) in positives.chunks() {
            let pairs = calculate_cube_count_elemwise(client, to - from, LINEAR);
            problem.logits(&words, &operand, &gradient, chunk);
            if step.loss && from < to {
                logits::gather_positives::launch(
                    client,
                    pairs.clone(),
                    LINEAR,
                    gradient.clone().into_buffer_arg(),
                    positions.clone().into_buffer_arg(),
                    positive_logits.clone().into_buffer_arg(),
                    from,
                    to,
                );
            }
            logits::sigmoid_and_loss::launch(
                client,
                CubeCount::new_1d(chunk.labels as u32),
                CubeDim::new_1d(logits::LINE),
                gradient.clone().into_buffer_arg(),
                losses.clone().into_buffer_arg(),
                chunk.first,
                batch,
                4 * problem.batch_quads,
                step.loss,
            );
            if from < to {
                logits::subtract_positives::launch(
                    client,
                    pairs,
                    LINEAR,
                    gradient.clone().into_buffer_arg(),
                    positions.clone().into_buffer_arg(),
                    from,
                    to,
                );
            }
            update::add_input_gradient::launch(
                client,
                tile::cube_count(batch, segment.dim),
                tile::cube_dim(),
                words.clone().into_buffer_arg(),
                gradient.clone().into_buffer_arg(),
                input_gradient.clone().into_buffer_arg(),
                chunk.first,
                chunk.labels,
                problem.row_words,
                batch,
                problem.batch_quads,
                segment.dim,
                problem.quads,
                problem.format,
            );
            update::update::launch(
                client,
                tile::cube_count(chunk.labels, segment.dim),
                tile::cube_dim(),
                words.clone().into_buffer_arg(),
                held.clone().into_buffer_arg(),
                gradient.clone().into_buffer_arg(),
                exact.clone().into_buffer_arg(),
                non_finite.clone().into_buffer_arg(),
                chunk.first,
                chunk.labels,
                problem.row_words,
                head_rows,
                segment
                    .head
                    .map_or(0, |head| head.compensation.row_words(segment.dim)),
                batch,
                problem.batch_quads,
                segment.dim,
                problem.quads,
                segment.first_label as u32,
                (segment.first_label >> 32) as u32,
                step.rounding_key,
                step.learning_rate,
                step.weight_decay,
                problem.format,
                segment
                    .head
                    .filter(|_| head_rows > 0)
                    .map(|head| head.compensation.into()),
            );
        }

        let report = empty(&words, 2, DType::F32);
        logits::report::launch(
            client,
            CubeCount::new_single(),
            CubeDim::new_1d(logits::LINE),
            losses.into_buffer_arg(),
            positive_logits.into_buffer_arg(),
            non_finite.into_buffer_arg(),
            report.clone().into_buffer_arg(),
            loss_of(segment.labels),
            loss_of(positives.len()),
        );
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
        let scores = exclusive(scores);
        let labels = exclusive(labels);
        let problem = Problem::new(&segment, batch, search.chunk);
        let operand = problem.convert(&into_contiguous(x), search.operands.into());
        let logits = problem.logits_buffer(&words);
        for chunk in problem.chunks() {
            problem.logits(&words, &operand, &logits, chunk);
            search::merge_best::launch(
                &words.client,
                calculate_cube_count_elemwise(&words.client, batch, LINEAR),
                LINEAR,
                logits.clone().into_buffer_arg(),
                scores.clone().into_buffer_arg(),
                labels.clone().into_buffer_arg(),
                (segment.first_label + chunk.first as u64) as u32,
                chunk.labels,
                batch,
                4 * problem.batch_quads,
                search.k,
            );
        }
        (scores, labels)
    }
}

/// The sizes that kernels are told.
struct Problem<'a> {
    segment: &'a Segment,
    format: Format,
    row_words: usize,
    batch: usize,
    /// Quads of a row of `X`.
    quads: usize,
    /// Quads of a row of logits.
    batch_quads: usize,
    chunk: usize,
}

/// A run of the segment's rows.
#[derive(Clone, Copy)]
struct Chunk {
    first: usize,
    labels: usize,
}

impl<'a> Problem<'a> {
    fn new(segment: &'a Segment, batch: usize, chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk has labels");
        // Kernels index weights and words by 32 bits.
        assert!(
            u32::try_from(segment.words() * 32 / segment.precision.bits()).is_ok(),
            "a segment on a GPU has less than 2^32 weights"
        );
        Self {
            segment,
            format: segment.precision.into(),
            row_words: segment.precision.row_words(segment.dim),
            batch,
            quads: segment.dim.div_ceil(4),
            batch_quads: batch.div_ceil(4),
            chunk: chunk.min(MAX_CHUNK).min(segment.labels),
        }
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let labels = self.segment.labels;
        let size = self.chunk;
        (0..labels).step_by(size).map(move |first| Chunk {
            first,
            labels: size.min(labels - first),
        })
    }

    /// `X` in F32, rounded to a format, rows padded to whole quads.
    fn convert(&self, x: &CubeTensor, format: Format) -> CubeTensor {
        let columns = 4 * self.quads;
        let out = empty(x, self.batch * columns, DType::F32);
        logits::convert::launch(
            &x.client,
            calculate_cube_count_elemwise(&x.client, self.batch * columns, LINEAR),
            LINEAR,
            x.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            self.segment.dim,
            columns,
            format,
            dtype_to_storage_type(x.dtype),
        );
        out
    }

    /// Room for the logits of one chunk.
    fn logits_buffer(&self, like: &CubeTensor) -> CubeTensor {
        empty(like, self.chunk * 4 * self.batch_quads, DType::F32)
    }

    fn logits(&self, words: &CubeTensor, operand: &CubeTensor, out: &CubeTensor, chunk: Chunk) {
        logits::logits::launch(
            &words.client,
            tile::cube_count(chunk.labels, self.batch),
            tile::cube_dim(),
            words.clone().into_buffer_arg(),
            operand.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            chunk.first,
            chunk.labels,
            self.row_words,
            self.batch,
            self.batch_quads,
            self.quads,
            self.format,
        );
    }
}

/// Where the positives lie in the logits of their chunks.
struct ChunkedPositives {
    positions: Vec<u32>,
    /// Every chunk with the range of its positions.
    chunks: Vec<(Chunk, usize, usize)>,
}

impl ChunkedPositives {
    fn new(problem: &Problem, positives: &Positives) -> Self {
        let columns = 4 * problem.batch_quads;
        let mut positions = Vec::new();
        let mut chunks = Vec::new();
        for chunk in problem.chunks() {
            let first = problem.segment.first_label + chunk.first as u64;
            let from = positions.len();
            for (label, row) in positives.of_labels(first, chunk.labels) {
                assert!((*row as usize) < problem.batch, "a positive's row");
                let label = (u64::from(*label) - first) as usize;
                positions.push((label * columns + *row as usize) as u32);
            }
            chunks.push((chunk, from, positions.len()));
        }
        Self { positions, chunks }
    }

    fn len(&self) -> usize {
        self.positions.len()
    }

    fn chunks(&self) -> impl Iterator<Item = (Chunk, usize, usize)> {
        self.chunks.iter().copied()
    }
}

/// The tensor itself if nobody else holds it and its rows lie one behind the other, else a copy that is so.
fn exclusive(tensor: CubeTensor) -> CubeTensor {
    let tensor = if tensor.can_mut() {
        tensor
    } else {
        tensor.copy()
    };
    into_contiguous(tensor)
}

/// Uninitialised memory on the device of `like`. Never empty, since no kernel can bind an empty buffer.
fn empty(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let handle = like.client.empty(len.max(1) * dtype.size());
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
