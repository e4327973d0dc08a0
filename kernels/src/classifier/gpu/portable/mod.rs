//! The path for every device: F32 arithmetic in register tiles, see [`tile`].
//!
//! Every sum runs in one order and nothing is added up by floating-point atomics.

mod logits;
mod tile;
mod update;

use burn::{backend::cubecl::dtype_to_storage_type, tensor::DType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::common::{
    Chunk, Path, SearchInput, StepInput, chunks,
    loss::{LINE, report},
    parts::Parts,
    search::Best,
};
use crate::{
    classifier::problem::Segment,
    gpu::{
        LINEAR,
        memory::{empty, upload},
    },
    numbers::Format,
    timing::{Grain, timed},
};
use update::StoredFormats;

/// Labels of a chunk at most: the cubes that every device can launch along one axis.
const MAX_CHUNK: usize = 65_535;
/// Cubes that share the labels of the input gradient, for devices that do not say how much they run at a time.
const CUBES: usize = 64;

/// See the [module](self).
pub struct Portable;

impl Path for Portable {
    fn step(&self, input: &StepInput) -> Option<CubeTensor> {
        let StepInput { words, segment, step, .. } = input;
        let problem = Problem::new(segment, input.batch(), step.chunk_on_gpu(input.batch()));
        let client = &words.client;
        let exact = problem.convert(&input.x, Format::F32);
        let operand = match step.operands {
            Format::F32 => exact.clone(),
            format => problem.convert(&input.x, format),
        };
        let positives = ChunkedPositives::new(&problem, input);
        let positions = upload(words, &positives.positions, DType::U32);
        let gradient = problem.logits_buffer(words);
        let parts = problem.parts(words);
        let loss_of = |values: usize| if step.loss { values } else { 0 };
        let losses = empty(words, loss_of(segment.labels), DType::F32);
        let positive_logits = empty(words, loss_of(positives.len()), DType::F32);
        let non_finite = upload(words, &[0u32], DType::U32);
        let time = |name, work: &dyn Fn()| timed(Grain::Kernels, name, client, work);

        for (chunk, from, to) in positives.chunks() {
            let pairs = calculate_cube_count_elemwise(client, to - from, LINEAR);
            problem.logits(words, &operand, &gradient, chunk);
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
            time("sigmoid", &|| {
                logits::sigmoid_and_loss::launch(
                    client,
                    CubeCount::new_1d(chunk.labels as u32),
                    CubeDim::new_1d(LINE),
                    gradient.clone().into_buffer_arg(),
                    losses.clone().into_buffer_arg(),
                    chunk.first,
                    problem.batch,
                    4 * problem.batch_quads,
                    step.loss,
                )
            });
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
            time("input_gradient", &|| {
                update::add_input_gradient::launch(
                    client,
                    problem.gradient_cubes(parts.parts),
                    tile::cube_dim(),
                    words.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    parts.workspace.clone().into_buffer_arg(),
                    problem.rows(chunk),
                    problem.size(),
                    segment.precision,
                )
            });
            time("update", &|| {
                update::update::launch(
                    client,
                    tile::cube_count(chunk.labels, segment.dim),
                    tile::cube_dim(),
                    words.clone().into_buffer_arg(),
                    input.compensation.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    exact.clone().into_buffer_arg(),
                    non_finite.clone().into_buffer_arg(),
                    problem.rows(chunk),
                    problem.size(),
                    input.update_args(1.0, 1),
                    StoredFormats { weights: segment.precision, compensation: input.compensation_format() },
                )
            });
        }
        parts.add_to(&input.input_gradient, 1.0);
        Some(report(&losses, &positive_logits, &non_finite, loss_of(segment.labels), loss_of(positives.len())))
    }

    fn search(&self, input: &SearchInput) -> Option<Best> {
        let SearchInput { words, segment, search, .. } = input;
        let mut best = input.best.clone();
        let problem = Problem::new(segment, best.batch, search.chunk_on_gpu(best.batch));
        let operand = problem.convert(&input.x, search.operands);
        let logits = problem.logits_buffer(words);
        for chunk in problem.chunks() {
            problem.logits(words, &operand, &logits, chunk);
            let first_label = segment.first_label + chunk.first as u64;
            best.merge(&logits, first_label, chunk.labels, 4 * problem.batch_quads);
        }
        Some(best)
    }
}

/// The rows of a segment that a launch works on.
#[derive(CubeType, CubeLaunch)]
pub struct Rows {
    pub first: usize,
    pub labels: usize,
    /// Words of a row.
    pub row_words: usize,
}

/// Sizes of the batch.
#[derive(CubeType, CubeLaunch)]
pub struct BatchSize {
    /// Rows of `X`.
    pub batch: usize,
    /// Quads of a row of logits.
    pub batch_quads: usize,
    /// Quads of a row of `X`.
    pub quads: usize,
}

/// The sizes of a step or a search.
struct Problem<'a> {
    segment: &'a Segment,
    batch: usize,
    /// Quads of a row of `X`.
    quads: usize,
    /// Quads of a row of logits.
    batch_quads: usize,
    chunk: usize,
}

impl<'a> Problem<'a> {
    fn new(segment: &'a Segment, batch: usize, chunk: usize) -> Self {
        // Kernels index weights and words by 32 bits.
        assert!(
            u32::try_from(segment.words() * 32 / segment.precision.bits()).is_ok(),
            "a segment on a GPU has less than 2^32 weights"
        );
        Self {
            segment,
            batch,
            quads: segment.dim.div_ceil(4),
            batch_quads: batch.div_ceil(4),
            chunk: chunk.min(MAX_CHUNK).min(segment.labels),
        }
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        chunks(self.segment.labels, self.chunk)
    }

    fn rows(&self, chunk: Chunk) -> RowsLaunch {
        RowsLaunch {
            first: chunk.first,
            labels: chunk.labels,
            row_words: self.segment.precision.row_words(self.segment.dim),
        }
    }

    fn size(&self) -> BatchSizeLaunch {
        BatchSizeLaunch { batch: self.batch, batch_quads: self.batch_quads, quads: self.quads }
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
        timed(Grain::Kernels, "logits", &words.client, || {
            logits::logits::launch(
                &words.client,
                tile::cube_count(chunk.labels, self.batch),
                tile::cube_dim(),
                words.clone().into_buffer_arg(),
                operand.clone().into_buffer_arg(),
                out.clone().into_buffer_arg(),
                self.rows(chunk),
                self.size(),
                self.segment.precision,
            )
        });
    }

    /// The input gradient's workspace: as many parts as there are cubes to share the labels of each tile.
    fn parts(&self, like: &CubeTensor) -> Parts {
        let tiles = self.batch.div_ceil(tile::TILE) * self.segment.dim.div_ceil(tile::TILE);
        let cubes = like.client.properties().hardware.num_streaming_multiprocessors;
        let cubes = cubes.map_or(CUBES, |processors| 2 * processors as usize);
        let parts = (cubes / tiles).clamp(1, self.segment.labels.div_ceil(tile::DEPTH));
        let (rows, columns) = (self.batch, 4 * self.quads);
        Parts { workspace: empty(like, parts * rows * columns, DType::F32), parts, rows, columns }
    }

    fn gradient_cubes(&self, parts: usize) -> CubeCount {
        CubeCount::Static(
            self.segment.dim.div_ceil(tile::TILE) as u32,
            self.batch.div_ceil(tile::TILE) as u32,
            parts as u32,
        )
    }
}

/// Where the positives lie in the logits of their chunks.
struct ChunkedPositives {
    positions: Vec<u32>,
    /// Every chunk with the range of its positions.
    chunks: Vec<(Chunk, usize, usize)>,
}

impl ChunkedPositives {
    fn new(problem: &Problem, input: &StepInput) -> Self {
        let columns = 4 * problem.batch_quads;
        let mut positions = Vec::new();
        let mut chunks = Vec::new();
        for chunk in problem.chunks() {
            let first = problem.segment.first_label + chunk.first as u64;
            let from = positions.len();
            for (label, row) in input.positives.in_labels(first, chunk.labels) {
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
