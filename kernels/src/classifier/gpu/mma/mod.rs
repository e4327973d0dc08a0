//! The path for devices with matrix instructions: operands of 16 bits, sums in F32.
//!
//! E4M3 weights are decoded to F16, which holds them exactly, on their way into the registers; BF16 weights meet BF16.
//! The gradient `G` is kept in the same 16-bit type. Batch and features are padded to whole tiles in what a step
//! allocates, never in the weights: loads past the end of a row or of the labels bring zeros.
//!
//! A step's three products are three kernels a chunk. Beside them there is only what happens once a step (`X` in the
//! two layouts that the products want, the sum of the input gradient's parts) and the positives, of which there are
//! few.

mod input_gradient;
mod logits;
mod operands;
mod product;
mod update;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{
    calculate_cube_count_elemwise,
    features::MmaConfig,
    ir::{ElemType, FloatKind},
    prelude::*,
};

use super::common::{
    Chunk, ChunkGradient, Path, SearchInput, StepInput, chunks,
    loss::{gradient_scale, report},
    operands::{Stored, XSize},
    parts::Parts,
    row_parts,
    run::UpdateRule,
    search::Best,
};
use crate::{
    classifier::problem::Segment,
    gpu::{
        LINEAR,
        memory::{empty, reused, upload},
    },
    numbers::Format,
    timing::{Grain, timed},
};
use logits::Epilogue;
use product::{DEPTH, Multiply, Tile};

/// Chunks are whole multiples of this many labels, so that tiles and blocks of labels lie the same in every chunk size.
const CHUNK_LABELS: usize = 256;
/// Bytes of a chunk's logits at most, whatever the caller asks for: kernels count its numbers in 32 bits.
const MAX_CHUNK_BYTES: usize = 1 << 30;
/// Planes of a cube that corrects the gradient at positives; one plane a positive.
const POSITIVES: usize = 8;
/// Shared memory that a kernel needs beside its stages.
const SHARED_REST: usize = 256;

/// Makes another product for the logits of a step, given the width of the gradient; `None` if it has none for the step.
pub type MakeGradient = fn(&StepInput, usize) -> Option<Box<dyn ChunkGradient>>;

/// See the [module](self).
#[derive(Default)]
pub struct Mma {
    /// Tried before this path's own logits.
    pub gradient: Option<MakeGradient>,
}

impl Path for Mma {
    fn step(&self, input: &StepInput) -> Option<CubeTensor> {
        let StepInput { words, segment, step, .. } = input;
        let plan = Plan::new(words, segment, step.operands, input.batch())?;
        let client = &words.client;
        let time = |name, work: &dyn Fn()| timed(Grain::Kernels, name, client, work);
        let dim = segment.dim;
        let rows = plan.rows(&input.x, step.operands, dim);
        let columns = columns(&input.x, dim, plan.columns, plan.batch, plan.half);

        let positives = input.positives();
        let pairs = upload(words, &input.pairs(), DType::U32);
        let positive_logits = empty(words, positives.len(), DType::F32);

        let chunk_labels = plan.chunk(step.chunk_on_gpu(input.batch()), 2, segment.labels);
        let gradient = reused(words, chunk_labels * plan.batch / 2, DType::U32);
        let parts = Parts {
            workspace: empty(words, plan.parts * plan.batch * plan.columns, DType::F32),
            parts: plan.parts,
            rows: plan.batch,
            columns: plan.columns,
        };
        let own = || -> Box<dyn ChunkGradient> {
            Box::new(Logits {
                plan: plan.clone(),
                segment: **segment,
                words: words.clone(),
                x: rows.clone(),
                batch: input.batch(),
                epilogue: match step.loss {
                    true => Epilogue::GradientAndLoss,
                    false => Epilogue::Gradient,
                },
            })
        };
        let logits = self.gradient.and_then(|make| make(input, plan.batch)).unwrap_or_else(own);
        let loss_count = if step.loss { logits.losses() } else { 0 };
        let losses = empty(words, loss_count, DType::F32);
        let non_finite = upload(words, &[0u32], DType::U32);
        let scale = gradient_scale(plan.half);
        let gradient_dtype = match plan.half {
            Format::F16 => DType::F16,
            _ => DType::BF16,
        };

        let mut to = 0;
        for chunk in chunks(segment.labels, chunk_labels) {
            logits.launch(&gradient, &losses, chunk);
            let from = to;
            let end = segment.first_label + (chunk.first + chunk.labels) as u64;
            to = positives.partition_point(|(label, _)| u64::from(*label) < end);
            if from < to {
                time("positives", &|| {
                    logits::positives::launch(
                        client,
                        CubeCount::new_1d((to - from).div_ceil(POSITIVES) as u32),
                        CubeDim::new_1d(POSITIVES as u32 * 32),
                        words.clone().into_buffer_arg(),
                        rows.clone().into_buffer_arg(),
                        pairs.clone().into_buffer_arg(),
                        gradient.clone().into_buffer_arg(),
                        positive_logits.clone().into_buffer_arg(),
                        logits::PositivesArgsLaunch {
                            first: chunk.first,
                            from,
                            to,
                            row_parts: row_parts(segment),
                            depth_parts: plan.depth / 8,
                            columns: plan.batch,
                        },
                        segment.precision,
                        plan.half,
                        dtype_to_storage_type(gradient_dtype),
                    )
                });
            }
            time("input_gradient", &|| {
                // SAFETY: rows and columns past the end are not loaded; the workspace has whole tiles.
                unsafe {
                    input_gradient::add_input_gradient::launch_unchecked(
                        client,
                        CubeCount::Static(
                            (plan.columns / plan.input_gradient.columns()) as u32,
                            (plan.batch / plan.input_gradient.rows()) as u32,
                            plan.parts as u32,
                        ),
                        CubeDim::new_1d(plan.input_gradient.units()),
                        words.clone().into_buffer_arg(),
                        gradient.clone().into_buffer_arg(),
                        parts.workspace.clone().into_buffer_arg(),
                        input_gradient::GradientArgsLaunch {
                            first: chunk.first,
                            labels: chunk.labels,
                            row_parts: row_parts(segment),
                            batch: plan.batch,
                            dim: plan.columns,
                        },
                        input_gradient::Multiply { tile: plan.input_gradient, weights: plan.weights, half: plan.half },
                    );
                }
            });
            time("update", &|| {
                // SAFETY: rows and columns past the end are neither loaded nor stored.
                unsafe {
                    update::update::launch_unchecked(
                        client,
                        CubeCount::Static(
                            dim.div_ceil(plan.update.columns()) as u32,
                            chunk.labels.div_ceil(plan.update.rows()) as u32,
                            1,
                        ),
                        CubeDim::new_1d(plan.update.units()),
                        words.clone().into_buffer_arg(),
                        input.compensation.clone().into_buffer_arg(),
                        gradient.clone().into_buffer_arg(),
                        columns.clone().into_buffer_arg(),
                        non_finite.clone().into_buffer_arg(),
                        update::RowsLaunch {
                            first: chunk.first,
                            labels: chunk.labels,
                            row_parts: row_parts(segment),
                            depth_parts: plan.batch / 8,
                        },
                        input.update_args(scale, 4),
                        Multiply { tile: plan.update, left: Stored::Half, half: plan.half },
                        UpdateRule {
                            format: segment.precision,
                            weights: plan.weights,
                            decays: step.weight_decay != 0.0,
                            compensation: input.compensation_format(),
                        },
                    );
                }
            });
        }
        parts.add_to(&input.input_gradient, 1.0 / scale);
        let positive_count = if step.loss { positives.len() } else { 0 };
        Some(report(&losses, &positive_logits, &non_finite, loss_count, positive_count))
    }

    fn search(&self, input: &SearchInput) -> Option<Best> {
        let SearchInput { words, segment, search, .. } = input;
        let mut best = input.best.clone();
        let plan = Plan::new(words, segment, search.operands, best.batch)?;
        let chunk_labels = plan.chunk(search.chunk_on_gpu(best.batch), 4, segment.labels);
        let columns = plan.batch;
        let scores = empty(words, chunk_labels * columns, DType::F32);
        let losses = empty(words, 0, DType::F32);
        let logits = Logits {
            segment: **segment,
            words: words.clone(),
            x: plan.rows(&input.x, search.operands, segment.dim),
            batch: best.batch,
            epilogue: Epilogue::Scores,
            plan,
        };
        for chunk in chunks(segment.labels, chunk_labels) {
            logits.launch(&scores, &losses, chunk);
            best.merge(&scores, segment.first_label + chunk.first as u64, chunk.labels, columns);
        }
        Some(best)
    }
}

/// How a device does a segment.
#[derive(Clone)]
struct Plan {
    /// The format in which operands are multiplied.
    half: Format,
    weights: Stored,
    logits: Tile,
    update: Tile,
    input_gradient: input_gradient::Tile,
    /// Rows of the batch in whole tiles.
    batch: usize,
    /// Features in whole stages of the logits' product.
    depth: usize,
    /// Features in whole tiles of the two others.
    columns: usize,
    /// Cubes that share the labels of each tile of the input gradient.
    parts: usize,
}

impl Plan {
    /// The plan for a batch of `batch` rows, if this path has kernels for it.
    fn new(words: &CubeTensor, segment: &Segment, operands: Format, batch: usize) -> Option<Self> {
        let properties = words.client.properties();
        // E4M3 is a type of every CUDA device; only those that multiply it have instructions that convert it.
        let native = (properties.features.matmul.mma.iter())
            .any(|instruction| instruction.a_type == ElemType::Float(FloatKind::E4M3));
        let (half, weights, kind) = match (segment.precision, operands) {
            (Format::E4m3, Format::E4m3 | Format::Bf16) => (Format::F16, Stored::Codes { native }, FloatKind::F16),
            (Format::Bf16, Format::E4m3 | Format::Bf16) => (Format::Bf16, Stored::Half, FloatKind::BF16),
            _ => return None,
        };
        let hardware = &properties.hardware;
        let instruction = MmaConfig {
            a_type: ElemType::Float(kind),
            b_type: ElemType::Float(kind),
            cd_type: ElemType::Float(FloatKind::F32),
            m: 16,
            n: 8,
            k: 16,
        };
        // The instructions are written in PTX.
        let cuda = words.client.name().contains("cuda");
        if !(cuda && properties.features.matmul.mma.contains(&instruction)) {
            return None;
        }

        let narrow = batch <= 64;
        let shared = hardware.max_shared_memory_size - SHARED_REST;
        let stages = |bytes_of_stage: usize| Some((shared / bytes_of_stage).min(4)).filter(|stages| *stages >= 2);
        let tile = |row_planes, column_planes, fragments, left: Stored, most| {
            let tile = Tile { row_planes, column_planes, fragments, stages: 1 };
            let stages = stages(tile.stage_bytes(left))?.min(most);
            Some(Tile { stages, ..tile })
        };
        let logits = match narrow {
            true => tile(8, 1, 2, weights, 4),
            false => tile(4, 2, 2, weights, 4),
        }?;
        let update = tile(4, 2, 2, Stored::Half, 3)?;
        let gradient_tile =
            input_gradient::Tile { row_planes: if narrow { 1 } else { 2 }, column_planes: 4, stages: 1 };
        let input_gradient =
            input_gradient::Tile { stages: stages(gradient_tile.stage_bytes(weights))?, ..gradient_tile };

        let batch = batch.next_multiple_of(logits.columns());
        let columns = segment.dim.next_multiple_of(input_gradient.columns());
        let tiles = batch / input_gradient.rows() * (columns / input_gradient.columns());
        let processors = hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
        Some(Self {
            half,
            weights,
            logits,
            update,
            input_gradient,
            batch,
            depth: segment.dim.next_multiple_of(DEPTH),
            columns,
            parts: (processors / tiles).clamp(1, segment.labels.div_ceil(input_gradient::BLOCK)),
        })
    }

    /// Labels of a chunk, near `wanted`, where a logit takes `bytes` bytes.
    fn chunk(&self, wanted: usize, bytes: usize, labels: usize) -> usize {
        let most = (MAX_CHUNK_BYTES / (bytes * self.batch)).min(labels);
        wanted.min(most).next_multiple_of(CHUNK_LABELS)
    }

    /// `X` as the logits' product wants it.
    fn rows(&self, x: &CubeTensor, operands: Format, dim: usize) -> CubeTensor {
        let out = empty(x, self.batch * self.depth / 2, DType::U32);
        operands::rows::launch(
            &x.client,
            calculate_cube_count_elemwise(&x.client, self.batch * self.depth / 2, LINEAR),
            LINEAR,
            x.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            XSize::launch(x.meta.shape()[0], dim),
            self.depth / 2,
            operands,
            self.weights,
            self.half,
            dtype_to_storage_type(x.dtype),
        );
        out
    }
}

/// `X` as the weight gradient's product wants it, padded to `columns` columns of `batch` rows, see
/// [`operands::columns`].
fn columns(x: &CubeTensor, dim: usize, columns: usize, batch: usize, half: Format) -> CubeTensor {
    let out = empty(x, columns * batch / 2, DType::U32);
    operands::columns::launch(
        &x.client,
        calculate_cube_count_elemwise(&x.client, columns * batch / 2, LINEAR),
        LINEAR,
        x.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        XSize::launch(x.meta.shape()[0], dim),
        batch / 2,
        half,
        dtype_to_storage_type(x.dtype),
    );
    out
}

/// The product that gives the logits, chunk by chunk.
struct Logits {
    plan: Plan,
    segment: Segment,
    words: CubeTensor,
    /// See [`Plan::rows`].
    x: CubeTensor,
    /// Rows of the batch.
    batch: usize,
    epilogue: Epilogue,
}

impl ChunkGradient for Logits {
    fn losses(&self) -> usize {
        let tile = self.plan.logits;
        self.segment.labels.div_ceil(tile.rows()) * self.plan.batch / tile.columns()
    }

    fn launch(&self, out: &CubeTensor, losses: &CubeTensor, chunk: Chunk) {
        let (plan, client) = (&self.plan, &self.words.client);
        timed(Grain::Kernels, "logits", client, || {
            // SAFETY: rows and columns past the end are neither loaded nor stored.
            unsafe {
                logits::logits::launch_unchecked(
                    client,
                    CubeCount::Static(
                        (plan.batch / plan.logits.columns()) as u32,
                        chunk.labels.div_ceil(plan.logits.rows()) as u32,
                        1,
                    ),
                    CubeDim::new_1d(plan.logits.units()),
                    self.words.clone().into_buffer_arg(),
                    self.x.clone().into_buffer_arg(),
                    out.clone().into_buffer_arg(),
                    losses.clone().into_buffer_arg(),
                    logits::LogitsArgsLaunch {
                        first: chunk.first,
                        labels: chunk.labels,
                        row_parts: row_parts(&self.segment),
                        depth_parts: plan.depth / 8,
                        batch: self.batch,
                        columns: plan.batch,
                    },
                    Multiply { tile: plan.logits, left: plan.weights, half: plan.half },
                    self.epilogue,
                );
            }
        });
    }
}
