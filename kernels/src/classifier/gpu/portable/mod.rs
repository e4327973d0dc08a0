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
    Chunk, StepInput, chunks,
    loss::{LINE, report},
    parts::add_parts,
    search::Best,
};
use crate::{
    classifier::problem::{Operands, Positives, Search, Segment},
    gpu::{
        LINEAR,
        memory::{empty, upload},
    },
    numbers::device::Format,
    timing::{Grain, timed},
};

/// Labels of a chunk at most: the cubes that every device can launch along one axis.
const MAX_CHUNK: usize = 65_535;
/// Cubes that share the labels of the input gradient, for devices that do not say how much they run at a time.
const CUBES: usize = 64;

/// One step over a segment; returns the report.
pub fn step(input: &StepInput) -> CubeTensor {
    let StepInput {
        words, segment, step, ..
    } = input;
    let problem = Problem::new(segment, input.batch(), step.chunk);
    let client = &words.client;
    let exact = problem.convert(&input.x, Format::F32);
    let operand = match step.operands {
        Operands::F32 => exact.clone(),
        operands => problem.convert(&input.x, operands.into()),
    };
    let positives = ChunkedPositives::new(&problem, input.positives);
    let positions = upload(words, &positives.positions, DType::U32);
    let gradient = problem.logits_buffer(words);
    let parts = problem.parts(client);
    let workspace = empty(words, parts * problem.part_size(), DType::F32);
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
                problem.gradient_cubes(parts),
                tile::cube_dim(),
                words.clone().into_buffer_arg(),
                gradient.clone().into_buffer_arg(),
                workspace.clone().into_buffer_arg(),
                chunk.first,
                chunk.labels,
                problem.row_words,
                problem.batch,
                problem.batch_quads,
                problem.quads,
                problem.format,
            )
        });
        time("update", &|| {
            update::update::launch(
                client,
                tile::cube_count(chunk.labels, segment.dim),
                tile::cube_dim(),
                words.clone().into_buffer_arg(),
                input.held.clone().into_buffer_arg(),
                gradient.clone().into_buffer_arg(),
                exact.clone().into_buffer_arg(),
                non_finite.clone().into_buffer_arg(),
                chunk.first,
                chunk.labels,
                problem.row_words,
                segment.head_rows(),
                input.compensation_row_words(),
                problem.batch,
                problem.batch_quads,
                segment.dim,
                problem.quads,
                segment.first_label as u32,
                (segment.first_label >> 32) as u32,
                step.rounding_key,
                step.learning_rate,
                step.weight_decay,
                problem.format,
                input.compensation_format(),
            )
        });
    }
    time("sum_of_parts", &|| {
        add_parts::launch(
            client,
            calculate_cube_count_elemwise(client, problem.batch * segment.dim, LINEAR),
            LINEAR,
            workspace.clone().into_buffer_arg(),
            input.input_gradient.clone().into_buffer_arg(),
            parts,
            problem.part_size(),
            segment.dim,
            4 * problem.quads,
            1.0,
        )
    });
    report(
        &losses,
        &positive_logits,
        &non_finite,
        loss_of(segment.labels),
        loss_of(positives.len()),
    )
}

/// The best labels of a segment, merged into those so far.
pub fn search(
    words: &CubeTensor,
    x: &CubeTensor,
    segment: &Segment,
    search: &Search,
    mut best: Best,
) -> (CubeTensor, CubeTensor) {
    let problem = Problem::new(segment, best.batch, search.chunk);
    let operand = problem.convert(x, search.operands.into());
    let logits = problem.logits_buffer(words);
    for chunk in problem.chunks() {
        problem.logits(words, &operand, &logits, chunk);
        best.merge(
            &logits,
            segment.first_label + chunk.first as u64,
            chunk.labels,
            4 * problem.batch_quads,
        );
    }
    best.into_tensors()
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
        chunks(self.segment.labels, self.chunk)
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
                chunk.first,
                chunk.labels,
                self.row_words,
                self.batch,
                self.batch_quads,
                self.quads,
                self.format,
            )
        });
    }

    /// Cubes that share the labels of each tile of the input gradient.
    fn parts(&self, client: &Client) -> usize {
        let tiles = self.batch.div_ceil(tile::TILE) * self.segment.dim.div_ceil(tile::TILE);
        let cubes = client.properties().hardware.num_streaming_multiprocessors;
        let cubes = cubes.map_or(CUBES, |processors| 2 * processors as usize);
        (cubes / tiles).clamp(1, self.segment.labels.div_ceil(tile::DEPTH))
    }

    /// Numbers of one part of the input gradient's workspace.
    fn part_size(&self) -> usize {
        self.batch * 4 * self.quads
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
