//! A training step over one segment.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::{
    CHUNK_LABELS, Device, Logits,
    backward::{self, BackwardTile},
    is_known,
    logits::Epilogue,
    logits_stream, operands,
    stream::{self, ROWS, Stream},
    tiles, update, workers,
};
use crate::{
    classifier::{
        gpu::common::{
            Chunk, StepInput, chunks, loss::report, operands::Left, parts::add_parts, row_parts, run::UpdateRule,
        },
        layout::Precision,
        problem::{Operands, Segment, padded_batch},
    },
    gpu::{
        LINEAR,
        memory::{empty, kept, upload},
        ptx::Half,
        wgmma::ROW_WORDS,
    },
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
    of_run: UpdateRule,
    /// Rows of the batch in whole blocks.
    batch: usize,
    /// Features in whole blocks.
    features: usize,
    chunk: usize,
    /// Cubes that share the labels of each block of features.
    parts: usize,
    processors: usize,
}

impl Plan {
    /// The plan of a step, if this path can do it.
    pub fn of_step(input: &StepInput) -> Option<Self> {
        let (segment, step) = (input.segment, input.step);
        let device = Device::new(&input.words).filter(|_| is_known(segment, step.operands))?;
        let batch = padded_batch(input.batch());
        let logits = logits_stream(
            match step.operands {
                Operands::E4m3 => stream::Operands::Codes,
                _ => stream::Operands::Decoded,
            },
            batch,
            segment,
            device.shared_bytes,
        )?;
        let of_run = UpdateRule {
            format: segment.precision.into(),
            weights: Left::E4m3 { native: true },
            decays: step.weight_decay != 0.0,
            compensation: input.compensation_format(),
        };
        let fused = batch <= backward::MAX_BATCH;
        let backward = BackwardTile::new(
            batch.min(backward::MAX_BATCH),
            fused.then_some(of_run),
            device.shared_bytes,
        )?;
        let update = match fused {
            true => None,
            false => Some(Stream::new(
                stream::Operands::Half(Half::F16),
                update::FEATURES,
                batch / ROW_WORDS,
                device.shared_bytes,
            )?),
        };
        let features = segment.dim.next_multiple_of(backward::FEATURES);
        let blocks = features / backward::FEATURES * batch.div_ceil(backward::MAX_BATCH);
        let most = (MAX_CHUNK_BYTES / (2 * batch)).min(segment.labels);
        assert!(step.chunk > 0, "a chunk has labels");
        Some(Self {
            logits,
            backward,
            update,
            of_run,
            batch,
            features,
            chunk: step.chunk.min(most).next_multiple_of(CHUNK_LABELS),
            parts: (device.processors / blocks).clamp(1, segment.labels.div_ceil(backward::LABELS)),
            processors: device.processors,
        })
    }
}

/// What a step has on the device before its first chunk.
pub struct Prepared {
    logits: Logits,
    /// `X` as the weight gradient's product wants it.
    columns: CubeTensor,
    /// Positives, see [`positives`]; how many.
    pub pairs: CubeTensor,
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
            logits: Logits::empty(plan.logits, x, plan.batch, plan.processors),
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
        let columns = cubes(plan.batch * row_words);
        let starts = columns + cubes(plan.features * plan.batch / 2);
        let of_positives = starts + cubes(tiles);
        timed(Grain::Kernels, "prepare", &words.client, || {
            operands::prepare::launch(
                &words.client,
                CubeCount::new_1d((of_positives + cubes(32 * positives)) as u32),
                CubeDim::new_1d(operands::PREPARERS),
                x.clone().into_buffer_arg(),
                words.clone().into_buffer_arg(),
                prepared.pairs.clone().into_buffer_arg(),
                prepared.logits.rows.clone().into_buffer_arg(),
                prepared.columns.clone().into_buffer_arg(),
                prepared.gradients.clone().into_buffer_arg(),
                prepared.positive_logits.clone().into_buffer_arg(),
                prepared.starts.clone().into_buffer_arg(),
                prepared.non_finite.clone().into_buffer_arg(),
                operands::SharesLaunch::new(columns, starts, of_positives),
                input.batch(),
                segment.dim,
                row_words,
                plan.batch / 2,
                row_parts(segment),
                positives,
                input.step.operands.into(),
                plan.logits.operands,
                dtype_to_storage_type(x.dtype),
            )
        });
        prepared
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
    let prepared = Prepared::new(input, plan);
    let gradient = kept(words, plan.chunk * plan.batch / 2, DType::U32);
    let workspace = empty(words, plan.parts * plan.batch * plan.features, DType::F32);
    let losses = if step.loss {
        segment.labels.div_ceil(ROWS) * prepared.logits.blocks()
    } else {
        0
    };
    let loss_of_tiles = empty(words, losses, DType::F32);
    let non_finite = &prepared.non_finite;
    let scale = Half::F16.gradient_scale();
    let weights = |tile_rows| tiles(words, segment.labels, row_parts(segment), tile_rows);

    for chunk in chunks(segment.labels, plan.chunk) {
        let gradient_tiles = |rows| tiles(&gradient, chunk.labels, plan.batch / 8, rows);
        let x_tiles = || tiles(&prepared.columns, plan.features, plan.batch / 8, backward::FEATURES);
        prepared.logits.launch(
            weights(ROWS),
            &gradient,
            &loss_of_tiles,
            Some(&prepared),
            chunk,
            Epilogue::Gradient {
                half: Half::F16,
                positives: true,
                loss: step.loss,
            },
        );
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
                    weights(backward::LABELS),
                    gradient_tiles(backward::LABELS),
                    x_tiles(),
                    words.clone().into_buffer_arg(),
                    input.held.clone().into_buffer_arg(),
                    workspace.clone().into_buffer_arg(),
                    non_finite.clone().into_buffer_arg(),
                    chunk.first as u32,
                    chunk.labels as u32,
                    row_parts(segment),
                    plan.batch,
                    plan.features,
                    segment.head_rows(),
                    input.compensation_row_words() / 4,
                    dim,
                    segment.first_label as u32,
                    (segment.first_label >> 32) as u32,
                    step.rounding_key,
                    step.learning_rate / scale,
                    step.weight_decay * scale,
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
                        CubeCount::Static(blocks as u32, workers(plan.processors, blocks, chunk.labels) as u32, 1),
                        CubeDim::new_1d(stream::UNITS),
                        gradient_tiles(ROWS),
                        x_tiles(),
                        words.clone().into_buffer_arg(),
                        input.held.clone().into_buffer_arg(),
                        non_finite.clone().into_buffer_arg(),
                        chunk.first as u32,
                        chunk.labels as u32,
                        row_parts(segment),
                        segment.head_rows(),
                        input.compensation_row_words() / 4,
                        dim,
                        segment.first_label as u32,
                        (segment.first_label >> 32) as u32,
                        step.rounding_key,
                        step.learning_rate / scale,
                        step.weight_decay * scale,
                        stream,
                        plan.of_run,
                    );
                }
            });
        }
    }
    time("sum_of_parts", &|| {
        add_parts::launch(
            client,
            calculate_cube_count_elemwise(client, input.batch() * dim, LINEAR),
            LINEAR,
            workspace.clone().into_buffer_arg(),
            input.input_gradient.clone().into_buffer_arg(),
            plan.parts,
            plan.batch * plan.features,
            dim,
            plan.features,
            1.0 / scale,
        )
    });
    report(
        &loss_of_tiles,
        &prepared.positive_logits,
        non_finite,
        losses,
        if step.loss { prepared.positives } else { 0 },
    )
}

/// The product that gives the logits of BF16 weights, for the step of [`mma`](crate::classifier::gpu::mma).
pub struct HalfLogits<'a> {
    words: &'a CubeTensor,
    segment: &'a Segment,
    logits: Logits,
    epilogue: Epilogue,
}

impl<'a> HalfLogits<'a> {
    /// With `X` in so many rows; if this path can do it.
    pub fn new(input: &'a StepInput, rows: usize) -> Option<Self> {
        let segment = input.segment;
        let device = Device::new(&input.words).filter(|_| segment.precision == Precision::Bf16)?;
        let half = stream::Operands::Half(Half::Bf16);
        let stream = logits_stream(half, rows, segment, device.shared_bytes)?;
        Some(Self {
            words: &input.words,
            segment,
            logits: Logits::new(stream, &input.x, input.step.operands, rows, device.processors),
            epilogue: Epilogue::Gradient {
                half: Half::Bf16,
                positives: false,
                loss: input.step.loss,
            },
        })
    }

    /// How many losses there are.
    pub fn losses(&self) -> usize {
        self.segment.labels.div_ceil(ROWS) * self.logits.blocks()
    }

    pub fn launch(&self, gradient: &CubeTensor, losses: &CubeTensor, chunk: Chunk) {
        let parts = row_parts(self.segment);
        let weights = tiles(self.words, self.segment.labels, parts, ROWS);
        self.logits
            .launch(weights, gradient, losses, None, chunk, self.epilogue);
    }
}
