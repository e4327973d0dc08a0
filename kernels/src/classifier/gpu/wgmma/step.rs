//! A training step over one segment.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    CHUNK_LABELS, Logits,
    backward::{self, BackwardTile},
    is_known,
    logits::Epilogue,
    logits_stream, operands,
    stream::{self, Multiplied, ROWS, Stream},
    update, workers,
};
use crate::{
    classifier::{
        chunk::padded_batch,
        gpu::common::{
            StepInput, chunks,
            loss::{gradient_scale, report},
            operands::{Stored, XSize},
            parts::Parts,
            row_parts,
            run::UpdateRule,
        },
    },
    gpu::{
        memory::{empty, reused, upload},
        wgmma::{Hopper, ROW_WORDS, tiles},
    },
    numbers::Format,
    timing::{Grain, timed},
};

/// Bytes of a chunk's gradient at most, whatever the caller asks for: kernels count its rows in 32 bits.
const MAX_CHUNK_BYTES: usize = 1 << 30;

/// How a device trains a segment.
pub struct Plan {
    logits: Stream,
    backward: BackwardTile,
    /// Where [`BackwardTile`] does not update.
    update: Option<Stream>,
    rule: UpdateRule,
    /// Rows of the batch in whole blocks.
    batch: usize,
    /// Features in whole blocks.
    features: usize,
    chunk: usize,
    /// Cubes that share the labels of each block of features.
    parts: usize,
    device: Hopper,
}

impl Plan {
    /// The plan of a step, if this path can do it.
    pub fn new(input: &StepInput) -> Option<Self> {
        let (segment, step) = (input.segment, input.step);
        let device = Hopper::of(&input.words).filter(|_| is_known(segment, step.operands))?;
        let batch = padded_batch(input.batch());
        let logits = logits_stream(
            match step.operands {
                Format::E4m3 => Multiplied::Codes,
                _ => Multiplied::Decoded,
            },
            batch,
            segment,
            device.shared_bytes,
        )?;
        let rule = UpdateRule {
            format: segment.precision,
            weights: Stored::Codes { native: true },
            decays: step.weight_decay != 0.0,
            compensation: input.compensation_format(),
        };
        let fused = batch <= backward::MAX_BATCH;
        let backward = BackwardTile::new(batch.min(backward::MAX_BATCH), fused.then_some(rule), device.shared_bytes)?;
        let update = match fused {
            true => None,
            false => Some(Stream::new(
                Multiplied::Half(Format::F16),
                update::FEATURES,
                batch / ROW_WORDS,
                device.shared_bytes,
            )?),
        };
        let features = segment.dim.next_multiple_of(backward::FEATURES);
        let blocks = features / backward::FEATURES * batch.div_ceil(backward::MAX_BATCH);
        let most = (MAX_CHUNK_BYTES / (2 * batch)).min(segment.labels);
        Some(Self {
            logits,
            backward,
            update,
            rule,
            batch,
            features,
            chunk: step.chunk_on_gpu(input.batch()).min(most).next_multiple_of(CHUNK_LABELS),
            parts: (device.processors / blocks).clamp(1, segment.labels.div_ceil(backward::LABELS)),
            device,
        })
    }
}

/// What a step has on the device before its first chunk.
pub struct Prepared {
    logits: Logits,
    /// `X` as the weight gradient's product wants it.
    columns: CubeTensor,
    /// See [`positives`](super::positives).
    pub pairs: CubeTensor,
    /// How many positives there are.
    positives: usize,
    pub gradients: CubeTensor,
    positive_logits: CubeTensor,
    /// The first positive of each tile of labels, and their end.
    pub starts: CubeTensor,
    non_finite: CubeTensor,
}

impl Prepared {
    fn new(input: &StepInput, plan: &Plan) -> Self {
        let StepInput { words, segment, x, .. } = input;
        let pairs = input.pairs();
        let positives = pairs.len() / 2;
        let tiles = segment.labels.div_ceil(ROWS) + 1;
        let prepared = Self {
            logits: Logits::empty(plan.logits, (words, segment), x, plan.batch, &plan.device),
            columns: empty(x, plan.features * plan.batch / 2, DType::U32),
            pairs: upload(words, &pairs, DType::U32),
            positives,
            gradients: empty(words, positives, DType::U32),
            positive_logits: empty(words, positives, DType::F32),
            starts: empty(words, tiles, DType::U32),
            non_finite: empty(words, 1, DType::U32),
        };
        let row_words = plan.logits.row_words();
        let cubes = |work: usize| work.div_ceil(operands::PREPARERS as usize);
        let first_columns = cubes(plan.batch * row_words);
        let first_starts = first_columns + cubes(plan.features * plan.batch / 2);
        let first_positives = first_starts + cubes(tiles);
        timed(Grain::Kernels, "prepare", &words.client, || {
            operands::prepare::launch(
                &words.client,
                CubeCount::new_1d((first_positives + cubes(32 * positives)) as u32),
                CubeDim::new_1d(operands::PREPARERS),
                x.clone().into_buffer_arg(),
                words.clone().into_buffer_arg(),
                prepared.pairs.clone().into_buffer_arg(),
                operands::PreparedBuffersLaunch {
                    rows: prepared.logits.rows.clone().into_buffer_arg(),
                    columns: prepared.columns.clone().into_buffer_arg(),
                    gradients: prepared.gradients.clone().into_buffer_arg(),
                    logits: prepared.positive_logits.clone().into_buffer_arg(),
                    starts: prepared.starts.clone().into_buffer_arg(),
                    non_finite: prepared.non_finite.clone().into_buffer_arg(),
                },
                operands::PrepareArgsLaunch {
                    columns: first_columns,
                    starts: first_starts,
                    positives: first_positives,
                    x: XSize::launch(input.batch(), segment.dim),
                    row_words,
                    batch_pairs: plan.batch / 2,
                    row_parts: row_parts(segment),
                    count: positives,
                },
                operands::Rounding::new(input.step.operands, plan.logits),
                dtype_to_storage_type(x.dtype),
            )
        });
        prepared
    }
}

/// One step over a segment; returns the report.
pub fn step(input: &StepInput, plan: &Plan) -> CubeTensor {
    let StepInput { words, segment, step, .. } = input;
    let client = &words.client;
    let time = |name, work: &dyn Fn()| timed(Grain::Kernels, name, client, work);
    let prepared = Prepared::new(input, plan);
    let gradient = reused(words, plan.chunk * plan.batch / 2, DType::U32);
    let parts = Parts {
        workspace: empty(words, plan.parts * plan.batch * plan.features, DType::F32),
        parts: plan.parts,
        rows: plan.batch,
        columns: plan.features,
    };
    let loss_count = if step.loss { prepared.logits.losses() } else { 0 };
    let losses = empty(words, loss_count, DType::F32);
    let non_finite = &prepared.non_finite;
    let scale = gradient_scale(Format::F16);

    for chunk in chunks(segment.labels, plan.chunk) {
        let gradient_tiles = |rows| tiles(&gradient, chunk.labels, plan.batch / 8, rows);
        let x_tiles = || tiles(&prepared.columns, plan.features, plan.batch / 8, backward::FEATURES);
        let epilogue = Epilogue::Gradient { half: Format::F16, positives: true, loss: step.loss };
        (prepared.logits).launch(&gradient, &losses, Some(&prepared), chunk, epilogue);
        let name = match plan.update {
            None => "backward",
            Some(_) => "input_gradient",
        };
        time(name, &|| {
            // SAFETY: what lies past the end is neither loaded nor stored; the workspace has whole blocks.
            unsafe {
                backward::backward::launch_unchecked(
                    client,
                    CubeCount::Static(
                        (plan.features / backward::FEATURES) as u32,
                        plan.parts as u32,
                        plan.batch.div_ceil(backward::MAX_BATCH) as u32,
                    ),
                    CubeDim::new_1d(backward::UNITS),
                    plan.backward.batch as usize / 2,
                    tiles(words, segment.labels, row_parts(segment), backward::LABELS),
                    gradient_tiles(backward::LABELS),
                    x_tiles(),
                    words.clone().into_buffer_arg(),
                    input.compensation.clone().into_buffer_arg(),
                    parts.workspace.clone().into_buffer_arg(),
                    non_finite.clone().into_buffer_arg(),
                    backward::BackwardArgsLaunch {
                        first: chunk.first as u32,
                        labels: chunk.labels as u32,
                        row_parts: row_parts(segment),
                        batch: plan.batch,
                        features: plan.features,
                        update: input.update_args(scale, 4),
                    },
                    plan.backward,
                );
            }
        });
        if let Some(stream) = plan.update {
            let blocks = plan.features / update::FEATURES;
            time("update", &|| {
                // SAFETY: what lies past the end is neither loaded nor stored.
                unsafe {
                    update::update::launch_unchecked(
                        client,
                        CubeCount::Static(
                            blocks as u32,
                            workers(plan.device.processors, blocks, chunk.labels) as u32,
                            1,
                        ),
                        CubeDim::new_1d(stream::UNITS),
                        gradient_tiles(ROWS),
                        x_tiles(),
                        words.clone().into_buffer_arg(),
                        input.compensation.clone().into_buffer_arg(),
                        non_finite.clone().into_buffer_arg(),
                        update::RowsLaunch {
                            first: chunk.first as u32,
                            labels: chunk.labels as u32,
                            row_parts: row_parts(segment),
                        },
                        input.update_args(scale, 4),
                        stream,
                        plan.rule,
                    );
                }
            });
        }
    }
    parts.add_to(&input.input_gradient, 1.0 / scale);
    let positive_count = if step.loss { prepared.positives } else { 0 };
    report(&losses, &prepared.positive_logits, non_finite, loss_count, positive_count)
}
