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
    Chunk, StepInput, chunks, loss::report, operands::Left, parts::add_parts, row_parts, run::UpdateRule, search::Best,
};
use crate::{
    classifier::{
        layout::Precision,
        problem::{Operands, Search, Segment},
    },
    gpu::{
        LINEAR,
        memory::{empty, kept, upload},
        ptx::Half,
    },
    path::{KernelPath, is_allowed},
    timing::{Grain, timed},
};
use logits::Epilogue;
use product::{DEPTH, Tile};

/// Chunks are whole multiples of this many labels, so that tiles and blocks of labels lie the same in every chunk size.
const CHUNK_LABELS: usize = 256;
/// Bytes of a chunk's gradient at most, whatever the caller asks for: kernels count its numbers in 32 bits.
const MAX_CHUNK_BYTES: usize = 1 << 30;
/// Planes of a cube that looks after positives; one a positive.
const POSITIVES: usize = 8;
/// Shared memory that a kernel needs beside its stages.
const SHARED_REST: usize = 256;

/// How a device does a segment.
pub struct Plan {
    half: Half,
    left: Left,
    logits: Tile,
    update: Tile,
    input_gradient: input_gradient::Tile,
    /// Rows of the batch in whole tiles.
    batch: usize,
    /// Features in whole stages of the logits' product.
    depth: usize,
    /// Features in whole tiles of the two others.
    columns: usize,
    chunk: usize,
    /// Cubes that share the labels of each tile of the input gradient.
    parts: usize,
}

impl Plan {
    /// The plan of a step, if this path can do it.
    pub fn of_step(input: &StepInput) -> Option<Self> {
        Self::new(
            &input.words,
            input.segment,
            input.step.operands,
            input.batch(),
            input.step.chunk,
            2,
        )
    }

    /// The plan of a search, if this path can do it.
    pub fn of_search(words: &CubeTensor, segment: &Segment, search: &Search, batch: usize) -> Option<Self> {
        Self::new(words, segment, search.operands, batch, search.chunk, 4)
    }

    fn new(
        words: &CubeTensor,
        segment: &Segment,
        operands: Operands,
        batch: usize,
        chunk: usize,
        bytes: usize,
    ) -> Option<Self> {
        let properties = words.client.properties();
        // E4M3 is a type of every CUDA device; only those that multiply it have instructions that convert it.
        let native = (properties.features.matmul.mma.iter())
            .any(|instruction| instruction.a_type == ElemType::Float(FloatKind::E4M3));
        let (half, left) = match (segment.precision, operands) {
            (Precision::E4m3, Operands::E4m3 | Operands::Bf16) => (Half::F16, Left::E4m3 { native }),
            (Precision::Bf16, Operands::E4m3 | Operands::Bf16) => (Half::Bf16, Left::Half),
            _ => return None,
        };
        let hardware = &properties.hardware;
        let kind = match half {
            Half::F16 => FloatKind::F16,
            Half::Bf16 => FloatKind::BF16,
        };
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
        if !(cuda && is_allowed(KernelPath::TensorCores) && properties.features.matmul.mma.contains(&instruction)) {
            return None;
        }

        let narrow = batch <= 64;
        let shared = hardware.max_shared_memory_size - SHARED_REST;
        let stages = |bytes_of_stage: usize| Some((shared / bytes_of_stage).min(4)).filter(|stages| *stages >= 2);
        let tile = |row_planes, column_planes, fragments, left: Left, most| {
            let tile = Tile {
                row_planes,
                column_planes,
                fragments,
                stages: 1,
            };
            let stages = stages(tile.stage_bytes(left))?.min(most);
            Some(Tile { stages, ..tile })
        };
        let logits = match narrow {
            true => tile(8, 1, 2, left, 4),
            false => tile(4, 2, 2, left, 4),
        }?;
        let update = tile(4, 2, 2, Left::Half, 3)?;
        let gradient_tile = input_gradient::Tile {
            row_planes: if narrow { 1 } else { 2 },
            column_planes: 4,
            stages: 1,
        };
        let input_gradient = input_gradient::Tile {
            stages: stages(gradient_tile.stage_bytes(left))?,
            ..gradient_tile
        };

        let batch = batch.next_multiple_of(logits.columns());
        let columns = segment.dim.next_multiple_of(input_gradient.columns());
        let tiles = batch / input_gradient.rows() * (columns / input_gradient.columns());
        let processors = hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
        let most = (MAX_CHUNK_BYTES / (bytes * batch)).min(segment.labels);
        assert!(chunk > 0, "a chunk has labels");
        Some(Self {
            half,
            left,
            logits,
            update,
            input_gradient,
            batch,
            depth: segment.dim.next_multiple_of(DEPTH),
            columns,
            chunk: chunk.min(most).next_multiple_of(CHUNK_LABELS),
            parts: (processors / tiles).clamp(1, segment.labels.div_ceil(input_gradient::BLOCK)),
        })
    }

    /// `X` as the logits' product wants it.
    fn rows(&self, x: &CubeTensor, operands: Operands, dim: usize) -> CubeTensor {
        let out = empty(x, self.batch * self.depth / 2, DType::U32);
        operands::rows::launch(
            &x.client,
            calculate_cube_count_elemwise(&x.client, self.batch * self.depth / 2, LINEAR),
            LINEAR,
            x.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            x.meta.shape()[0],
            dim,
            self.depth / 2,
            operands.into(),
            self.left,
            self.half,
            dtype_to_storage_type(x.dtype),
        );
        out
    }

    /// Tiles of the segment's logits.
    fn logits_tiles(&self, segment: &Segment) -> usize {
        segment.labels.div_ceil(self.logits.rows()) * self.batch / self.logits.columns()
    }
}

/// `X` as the weight gradient's product wants it: so many columns of so many rows, see [`operands::columns`].
fn columns(x: &CubeTensor, dim: usize, columns: usize, batch: usize, half: Half) -> CubeTensor {
    let out = empty(x, columns * batch / 2, DType::U32);
    operands::columns::launch(
        &x.client,
        calculate_cube_count_elemwise(&x.client, columns * batch / 2, LINEAR),
        LINEAR,
        x.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        x.meta.shape()[0],
        dim,
        batch / 2,
        half,
        dtype_to_storage_type(x.dtype),
    );
    out
}

/// The product that gives the logits, chunk by chunk.
struct Logits<'a> {
    plan: &'a Plan,
    segment: &'a Segment,
    words: &'a CubeTensor,
    /// See [`Plan::rows`].
    x: &'a CubeTensor,
    /// Rows of the batch.
    batch: usize,
    epilogue: Epilogue,
}

impl Logits<'_> {
    fn launch(&self, out: &CubeTensor, losses: &CubeTensor, chunk: Chunk) {
        let (plan, client) = (self.plan, &self.words.client);
        timed(Grain::Kernels, "logits", client, || {
            // SAFETY: rows and columns past the end are neither loaded nor stored.
            unsafe {
                self::logits::logits::launch_unchecked(
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
                    chunk.first,
                    chunk.labels,
                    row_parts(self.segment),
                    plan.depth / 8,
                    self.batch,
                    plan.batch,
                    plan.logits,
                    plan.left,
                    plan.half,
                    self.epilogue,
                );
            }
        });
    }
}

/// One step over a segment; returns the report.
pub fn step(input: &StepInput, plan: &Plan) -> CubeTensor {
    let StepInput {
        words, segment, step, ..
    } = input;
    let client = &words.client;
    let time = |name, work: &dyn Fn()| timed(Grain::Kernels, name, client, work);
    let dim = segment.dim;
    let rows = plan.rows(&input.x, step.operands, dim);
    let columns = columns(&input.x, dim, plan.columns, plan.batch, plan.half);

    let in_segment = input.positives.of_labels(segment.first_label, segment.labels);
    let positive_rows = upload(words, &input.pairs(), DType::U32);
    let positive_logits = empty(words, in_segment.len(), DType::F32);

    let gradient = kept(words, plan.chunk * plan.batch / 2, DType::U32);
    let workspace = empty(words, plan.parts * plan.batch * plan.columns, DType::F32);
    #[cfg(feature = "cuda")]
    let hopper = super::wgmma::HalfLogits::new(input, plan.batch);
    #[cfg(feature = "cuda")]
    let of_hopper = hopper.as_ref().map(|hopper| hopper.losses());
    #[cfg(not(feature = "cuda"))]
    let of_hopper = None;
    let loss_count = match step.loss {
        true => of_hopper.unwrap_or_else(|| plan.logits_tiles(segment)),
        false => 0,
    };
    let losses = empty(words, loss_count, DType::F32);
    let non_finite = upload(words, &[0u32], DType::U32);
    let epilogue = if step.loss {
        Epilogue::GradientAndLoss
    } else {
        Epilogue::Gradient
    };
    let scale = plan.half.gradient_scale();
    let gradient_dtype = match plan.half {
        Half::F16 => DType::F16,
        Half::Bf16 => DType::BF16,
    };

    let logits = Logits {
        plan,
        segment,
        words,
        x: &rows,
        batch: input.batch(),
        epilogue,
    };
    let mut to = 0;
    for chunk in chunks(segment.labels, plan.chunk) {
        #[cfg(feature = "cuda")]
        match &hopper {
            Some(hopper) => hopper.launch(&gradient, &losses, chunk),
            None => logits.launch(&gradient, &losses, chunk),
        }
        #[cfg(not(feature = "cuda"))]
        logits.launch(&gradient, &losses, chunk);
        let from = to;
        let end = segment.first_label + (chunk.first + chunk.labels) as u64;
        to = in_segment.partition_point(|(label, _)| u64::from(*label) < end);
        if from < to {
            time("positives", &|| {
                self::logits::positives::launch(
                    client,
                    CubeCount::new_1d((to - from).div_ceil(POSITIVES) as u32),
                    CubeDim::new_1d(POSITIVES as u32 * 32),
                    words.clone().into_buffer_arg(),
                    rows.clone().into_buffer_arg(),
                    positive_rows.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    positive_logits.clone().into_buffer_arg(),
                    chunk.first,
                    from,
                    to,
                    row_parts(segment),
                    plan.depth / 8,
                    plan.batch,
                    segment.precision.into(),
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
                    workspace.clone().into_buffer_arg(),
                    chunk.first,
                    chunk.labels,
                    row_parts(segment),
                    plan.batch,
                    plan.columns,
                    plan.input_gradient,
                    plan.left,
                    plan.half,
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
                    input.held.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    columns.clone().into_buffer_arg(),
                    non_finite.clone().into_buffer_arg(),
                    chunk.first,
                    chunk.labels,
                    row_parts(segment),
                    segment.head_rows(),
                    input.compensation_row_words() / 4,
                    plan.batch / 8,
                    dim,
                    segment.first_label as u32,
                    (segment.first_label >> 32) as u32,
                    step.rounding_key,
                    step.learning_rate / scale,
                    step.weight_decay * scale,
                    plan.update,
                    plan.half,
                    UpdateRule {
                        format: segment.precision.into(),
                        weights: plan.left,
                        decays: step.weight_decay != 0.0,
                        compensation: input.compensation_format(),
                    },
                );
            }
        });
    }
    time("sum_of_parts", &|| {
        add_parts::launch(
            client,
            calculate_cube_count_elemwise(client, input.batch() * dim, LINEAR),
            LINEAR,
            workspace.clone().into_buffer_arg(),
            input.input_gradient.clone().into_buffer_arg(),
            plan.parts,
            plan.batch * plan.columns,
            dim,
            plan.columns,
            1.0 / scale,
        )
    });
    report(
        &losses,
        &positive_logits,
        &non_finite,
        loss_count,
        if step.loss { in_segment.len() } else { 0 },
    )
}

/// The best labels of a segment, merged into those so far.
pub fn search(
    words: &CubeTensor,
    x: &CubeTensor,
    segment: &Segment,
    search: &Search,
    plan: &Plan,
    mut best: Best,
) -> (CubeTensor, CubeTensor) {
    let rows = plan.rows(x, search.operands, segment.dim);
    let scores = empty(words, plan.chunk * plan.batch, DType::F32);
    let losses = empty(words, 0, DType::F32);
    let logits = Logits {
        plan,
        segment,
        words,
        x: &rows,
        batch: best.batch,
        epilogue: Epilogue::Scores,
    };
    for chunk in chunks(segment.labels, plan.chunk) {
        logits.launch(&scores, &losses, chunk);
        best.merge(
            &scores,
            segment.first_label + chunk.first as u64,
            chunk.labels,
            plan.batch,
        );
    }
    best.into_tensors()
}
