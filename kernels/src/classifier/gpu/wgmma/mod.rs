//! The path for Hopper: products of whole warpgroups, operands brought by the copy engine.
//!
//! A chunk takes two kernels: one turns its logits into the gradient, positives included; one reads gradient and
//! weights once for the input gradient and for the update. Batches beyond 256 take a third, since the sums of both
//! products do not fit into the registers together. What happens once a step is as in
//! [`mma`](super::mma).
//!
//! The instructions take operands that the copy engine has laid out, so shapes are padded by it: loads past the end of
//! a row, of the labels or of the batch bring zeros.

mod backward;
mod logits;
mod operands;
mod positives;
mod refine;
mod search;
mod step;
mod stream;
mod update;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::common::{Chunk, ChunkGradient, Path, SearchInput, StepInput, operands::XSize, row_parts, search::Best};
use crate::{
    classifier::problem::Segment,
    gpu::{
        LINEAR,
        memory::empty,
        wgmma::{Hopper, tiles},
    },
    numbers::Format,
    timing::{Grain, timed},
};
use logits::{Epilogue, LogitsArgsLaunch, LogitsProduct};
use step::Prepared;
use stream::{Multiplied, ROWS, Stream, WARPGROUPS};

/// Chunks are whole multiples of this many labels: the labels of every kernel's tiles.
const CHUNK_LABELS: usize = 256;

/// See the [module](self).
pub struct Wgmma;

impl Path for Wgmma {
    fn step(&self, input: &StepInput) -> Option<CubeTensor> {
        Some(step::step(input, &step::Plan::new(input)?))
    }

    fn search(&self, input: &SearchInput) -> Option<Best> {
        Some(search::search(input, &search::Plan::new(input)?))
    }
}

/// Whether this path has all kernels for such weights.
fn is_known(segment: &Segment, operands: Format) -> bool {
    segment.precision == Format::E4m3 && operands != Format::F32
}

/// Cubes along the labels, where `blocks` of them lie side by side.
fn workers(processors: usize, blocks: usize, labels: usize) -> usize {
    (processors / blocks).max(1).min(labels.div_ceil(ROWS * WARPGROUPS))
}

/// The product that gives the logits.
fn logits_stream(operands: Multiplied, batch: usize, segment: &Segment, shared_bytes: usize) -> Option<Stream> {
    let slabs = segment.dim.div_ceil(operands.depth());
    let stream = |columns| Stream::new(operands, columns, slabs, shared_bytes);
    stream(batch.min(128)).or_else(|| stream(64))
}

/// The product that gives the logits: `X` as it wants it, and how it is launched.
struct Logits {
    words: CubeTensor,
    segment: Segment,
    stream: Stream,
    /// Rows of the batch, in whole blocks, and as many as there are.
    batch: usize,
    batch_rows: usize,
    rows: CubeTensor,
    processors: usize,
}

impl Logits {
    /// With room for `X`.
    fn empty(
        stream: Stream,
        (words, segment): (&CubeTensor, &Segment),
        x: &CubeTensor,
        batch: usize,
        device: &Hopper,
    ) -> Self {
        Self {
            words: words.clone(),
            segment: *segment,
            stream,
            batch,
            batch_rows: x.meta.shape()[0],
            rows: empty(x, batch * stream.row_words(), DType::U32),
            processors: device.processors,
        }
    }

    /// With `X` in its place.
    fn new(
        stream: Stream,
        weights: (&CubeTensor, &Segment),
        x: &CubeTensor,
        operands: Format,
        batch: usize,
        device: &Hopper,
    ) -> Self {
        let logits = Self::empty(stream, weights, x, batch, device);
        let row_words = stream.row_words();
        operands::rows::launch(
            &x.client,
            calculate_cube_count_elemwise(&x.client, batch * row_words, LINEAR),
            LINEAR,
            x.clone().into_buffer_arg(),
            logits.rows.clone().into_buffer_arg(),
            XSize::launch(x.meta.shape()[0], x.meta.shape()[1]),
            row_words,
            operands,
            stream.operands,
            dtype_to_storage_type(x.dtype),
        );
        logits
    }

    /// The number of partial sums of the loss over all chunks.
    fn losses(&self) -> usize {
        self.segment.labels.div_ceil(ROWS) * self.blocks()
    }

    fn blocks(&self) -> usize {
        self.batch / self.stream.columns as usize
    }

    /// The logits of a chunk.
    fn launch(
        &self,
        out: &CubeTensor,
        losses: &CubeTensor,
        positives: Option<&Prepared>,
        chunk: Chunk,
        epilogue: Epilogue,
    ) {
        let (blocks, columns) = (self.blocks(), self.stream.columns as usize);
        // Without positives any live buffer is bound.
        let [pairs, gradients, starts] = match positives {
            Some(positives) => [&positives.pairs, &positives.gradients, &positives.starts],
            None => [&self.rows; 3],
        }
        .map(|tensor| tensor.clone().into_buffer_arg());
        timed(Grain::Kernels, "logits", &out.client, || {
            // SAFETY: what lies past the end is neither loaded nor stored.
            unsafe {
                logits::logits::launch_unchecked(
                    &out.client,
                    CubeCount::Static(blocks as u32, workers(self.processors, blocks, chunk.labels) as u32, 1),
                    CubeDim::new_1d(stream::UNITS),
                    columns / 2,
                    tiles(&self.words, self.segment.labels, row_parts(&self.segment), ROWS),
                    tiles(&self.rows, self.batch, self.stream.row_words() / 4, columns),
                    out.clone().into_buffer_arg(),
                    losses.clone().into_buffer_arg(),
                    pairs,
                    gradients,
                    starts,
                    LogitsArgsLaunch {
                        first: chunk.first as u32,
                        labels: chunk.labels as u32,
                        batch: self.batch_rows as u32,
                        columns: self.batch as u32,
                    },
                    LogitsProduct { stream: self.stream, epilogue },
                );
            }
        });
    }
}

/// The gradient of a chunk of BF16 weights, for a step whose other products are another path's; with `rows` columns.
pub fn bf16_gradient(input: &StepInput, rows: usize) -> Option<Box<dyn ChunkGradient>> {
    let StepInput { words, segment, step, .. } = input;
    let device = Hopper::of(words).filter(|_| segment.precision == Format::Bf16)?;
    let stream = logits_stream(Multiplied::Half(Format::Bf16), rows, segment, device.shared_bytes)?;
    Some(Box::new(Bf16Gradient {
        logits: Logits::new(stream, (words, segment), &input.x, step.operands, rows, &device),
        loss: step.loss,
    }))
}

struct Bf16Gradient {
    logits: Logits,
    loss: bool,
}

impl ChunkGradient for Bf16Gradient {
    fn losses(&self) -> usize {
        self.logits.losses()
    }

    fn launch(&self, gradient: &CubeTensor, losses: &CubeTensor, chunk: Chunk) {
        let epilogue = Epilogue::Gradient { half: Format::Bf16, positives: false, loss: self.loss };
        self.logits.launch(gradient, losses, None, chunk, epilogue);
    }
}
