//! The path for Hopper: products of whole warpgroups, operands brought by the copy engine.
//!
//! A chunk takes two kernels: one turns its logits into the gradient, positives included; one reads gradient and weights once
//! for the input gradient and for the update. Batches beyond 256 take a third, since the sums of both products do not fit into
//! the registers together. What happens once a step is as in [`tensor_core`](super::tensor_core).
//!
//! The instructions take operands that the copy engine has laid out, so shapes are padded by it: loads past the end of a row, of
//! the labels or of the batch bring zeros.

mod backward;
mod instructions;
mod logits;
mod operands;
mod positives;
mod refine;
mod stream;
mod update;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{
    calculate_cube_count_elemwise,
    features::Tma,
    prelude::*,
    zspace::{shape, strides},
};

use super::{
    Chunk, LINEAR, StepInput, chunks, empty, kept,
    logits::report,
    search::Best,
    tensor_core::{instructions::Half, product::Left, run::UpdateRule},
    update::add_parts,
    upload,
};
use crate::{
    layout::Precision,
    path::{KernelPath, is_allowed},
    problem::{Operands, Search, Segment},
    timing::{Grain, timed},
};
use backward::BackwardTile;
use instructions::{ROW_WORDS, Word};
use logits::{Epilogue, GROUP};
use stream::{ROWS, Stream, WARPGROUPS};

/// Chunks are whole multiples of this many labels: the labels of every kernel's tiles.
const CHUNK_LABELS: usize = 256;
/// Bytes of a chunk's gradient at most, whatever the caller asks for: kernels count its rows in 32 bits.
const MAX_CHUNK_BYTES: usize = 1 << 30;
/// Bytes of a search's best scores of groups at most.
const MAXIMA_BYTES: usize = 16 << 20;

/// Labels a row that a search keeps at most: it computes the scores of 16 times as many again.
const MAX_KEPT: usize = 1024;

/// What every plan knows of the device and the weights.
struct Device {
    shared_bytes: usize,
    processors: usize,
}

impl Device {
    /// The device, if it is one with these instructions.
    fn new(words: &CubeTensor) -> Option<Self> {
        let properties = words.client.properties();
        // Later devices have no `wgmma`. The copy engine is not there where kernels are compiled by LLVM.
        let hopper = properties.identity.fingerprint == "ptx_sm90"
            && properties.features.tma.contains(Tma::Base);
        (hopper && is_allowed(KernelPath::Hopper)).then(|| Self {
            shared_bytes: properties.hardware.max_shared_memory_size,
            processors: properties
                .hardware
                .num_streaming_multiprocessors
                .unwrap_or(1) as usize,
        })
    }
}

/// Whether all kernels of this path know such weights.
fn is_known(segment: &Segment, operands: Operands) -> bool {
    segment.precision == Precision::E4m3 && operands != Operands::F32
}

/// Cubes along the labels, where `blocks` of them lie side by side.
fn workers(processors: usize, blocks: usize, labels: usize) -> usize {
    (processors / blocks)
        .max(1)
        .min(labels.div_ceil(ROWS * WARPGROUPS))
}

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

/// The product that gives the logits.
fn logits_stream(
    operands: stream::Operands,
    batch: usize,
    segment: &Segment,
    shared_bytes: usize,
) -> Option<Stream> {
    let slabs = segment.dim.div_ceil(operands.depth());
    let stream = |columns| Stream::new(operands, columns, slabs, shared_bytes);
    stream(batch.min(128)).or_else(|| stream(64))
}

/// Rows of the batch in whole blocks of every kernel.
fn padded_batch(batch: usize) -> usize {
    match batch {
        0..=64 => 64,
        65..=128 => 128,
        _ => batch.next_multiple_of(backward::MAX_BATCH),
    }
}

/// A matrix of rows of 16-byte parts, from which tiles of `rows` rows of 128 bytes are copied.
fn tiles(
    matrix: &CubeTensor,
    rows: usize,
    row_parts: usize,
    tile_rows: usize,
) -> TensorMapArg<Tiled> {
    let words = row_parts * 8;
    // SAFETY: the callers' matrices have so many rows of so many words.
    let tensor = unsafe {
        TensorArg::from_raw_parts(
            matrix.handle.clone(),
            strides![words, 1],
            shape![rows, words],
        )
    };
    let tile = TiledArgs {
        tile_size: shape![tile_rows, ROW_WORDS],
    };
    TensorMapArg::new(tile, tensor, Word::elem_type_native())
        .with_swizzle(TensorMapSwizzle::B128)
        .with_prefetch(TensorMapPrefetch::B256)
}

/// 16-byte parts of a row of weights.
fn row_parts(segment: &Segment) -> usize {
    segment.precision.row_words(segment.dim) / 4
}

/// The product that gives the logits: `X` as it wants it, and how it is launched.
struct Logits {
    stream: Stream,
    /// Rows of the batch, in whole blocks, and as many as there are.
    batch: usize,
    batch_rows: usize,
    rows: CubeTensor,
    processors: usize,
}

impl Logits {
    /// With room for `X`.
    fn empty(stream: Stream, x: &CubeTensor, batch: usize, processors: usize) -> Self {
        Self {
            stream,
            batch,
            batch_rows: x.meta.shape()[0],
            rows: empty(x, batch * stream.row_words(), DType::U32),
            processors,
        }
    }

    /// With `X` in its place.
    fn new(
        stream: Stream,
        x: &CubeTensor,
        operands: Operands,
        batch: usize,
        processors: usize,
    ) -> Self {
        let logits = Self::empty(stream, x, batch, processors);
        let row_words = stream.row_words();
        operands::rows::launch(
            &x.client,
            calculate_cube_count_elemwise(&x.client, batch * row_words, LINEAR),
            LINEAR,
            x.clone().into_buffer_arg(),
            logits.rows.clone().into_buffer_arg(),
            x.meta.shape()[0],
            x.meta.shape()[1],
            row_words,
            operands.into(),
            stream.operands,
            dtype_to_storage_type(x.dtype),
        );
        logits
    }

    fn blocks(&self) -> usize {
        self.batch / self.stream.columns as usize
    }

    /// The logits of a chunk.
    fn launch(
        &self,
        weights: TensorMapArg<Tiled>,
        out: &CubeTensor,
        losses: &CubeTensor,
        positives: Option<&Prepared>,
        chunk: Chunk,
        epilogue: Epilogue,
    ) {
        let (blocks, columns) = (self.blocks(), self.stream.columns as usize);
        // Who has no positives binds something that is there instead.
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
                    CubeCount::Static(
                        blocks as u32,
                        workers(self.processors, blocks, chunk.labels) as u32,
                        1,
                    ),
                    CubeDim::new_1d(stream::UNITS),
                    columns / 2,
                    weights,
                    tiles(&self.rows, self.batch, self.stream.row_words() / 4, columns),
                    out.clone().into_buffer_arg(),
                    losses.clone().into_buffer_arg(),
                    pairs,
                    gradients,
                    starts,
                    chunk.first as u32,
                    chunk.labels as u32,
                    self.batch_rows as u32,
                    self.batch as u32,
                    self.stream,
                    epilogue,
                );
            }
        });
    }
}

/// What a step has on the device before its first chunk.
struct Prepared {
    logits: Logits,
    /// `X` as the weight gradient's product wants it.
    columns: CubeTensor,
    /// Positives, see [`positives`]; how many.
    pairs: CubeTensor,
    positives: usize,
    gradients: CubeTensor,
    positive_logits: CubeTensor,
    /// The first positive of each tile of labels, and their end.
    starts: CubeTensor,
    non_finite: CubeTensor,
}

impl Prepared {
    fn new(input: &StepInput, plan: &Plan) -> Self {
        let StepInput {
            words, segment, x, ..
        } = input;
        let of_segment = input
            .positives
            .of_labels(segment.first_label, segment.labels);
        assert!(
            of_segment
                .iter()
                .all(|(_, row)| (*row as usize) < input.batch()),
            "a positive's row"
        );
        let pairs: Vec<u32> = (of_segment.iter())
            .flat_map(|(label, row)| [(u64::from(*label) - segment.first_label) as u32, *row])
            .collect();
        let positives = of_segment.len();
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
        words,
        segment,
        step,
        ..
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
        let x_tiles = || {
            tiles(
                &prepared.columns,
                plan.features,
                plan.batch / 8,
                backward::FEATURES,
            )
        };
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
                        CubeCount::Static(
                            blocks as u32,
                            workers(plan.processors, blocks, chunk.labels) as u32,
                            1,
                        ),
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

/// The product that gives the logits of BF16 weights, for the step of [`tensor_core`](super::tensor_core).
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
            logits: Logits::new(
                stream,
                &input.x,
                input.step.operands,
                rows,
                device.processors,
            ),
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

/// How a device searches a segment.
pub struct SearchPlan {
    logits: Stream,
    /// Rows of the batch in whole blocks.
    batch: usize,
    chunk: usize,
    processors: usize,
}

impl SearchPlan {
    /// The plan of a search, if this path can do it.
    pub fn new(
        words: &CubeTensor,
        segment: &Segment,
        search: &Search,
        batch: usize,
    ) -> Option<Self> {
        let device = Device::new(words)
            .filter(|_| is_known(segment, search.operands) && search.k <= MAX_KEPT)?;
        let batch = padded_batch(batch);
        let groups = MAXIMA_BYTES / (4 * batch);
        Some(Self {
            // Sums as exact as those by which labels are told apart in the end.
            logits: logits_stream(
                stream::Operands::Decoded,
                batch,
                segment,
                device.shared_bytes,
            )?,
            batch,
            chunk: (groups * GROUP)
                .min(segment.labels)
                .next_multiple_of(CHUNK_LABELS),
            processors: device.processors,
        })
    }
}

/// The best labels of a segment, merged into those so far. No score is kept but the largest of every 16 labels.
pub fn search(
    words: &CubeTensor,
    x: &CubeTensor,
    segment: &Segment,
    search: &Search,
    plan: &SearchPlan,
    best: Best,
) -> (CubeTensor, CubeTensor) {
    let client = &words.client;
    let logits = Logits::new(plan.logits, x, search.operands, plan.batch, plan.processors);
    let maxima = empty(words, plan.chunk / GROUP * plan.batch, DType::F32);
    let losses = empty(words, 0, DType::F32);
    let mut groups = Best::none(words, best.batch, best.k);
    for chunk in chunks(segment.labels, plan.chunk) {
        let weights = tiles(words, segment.labels, row_parts(segment), ROWS);
        logits.launch(weights, &maxima, &losses, None, chunk, Epilogue::Maxima);
        groups.merge(
            &maxima,
            (chunk.first / GROUP) as u64,
            chunk.labels.div_ceil(GROUP),
            plan.batch,
        );
    }
    let Best {
        batch,
        k,
        scores,
        labels,
    } = best;
    let room = empty(words, batch * k * (GROUP + 1), DType::F32);
    let new = Best::new(
        empty(words, batch * k, DType::F32),
        empty(words, batch * k, DType::I32),
        batch,
        k,
    );
    timed(Grain::Kernels, "refine", client, || {
        refine::refine::launch(
            client,
            CubeCount::new_1d(batch as u32),
            CubeDim::new_1d(super::search::MERGERS),
            words.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            groups.labels.clone().into_buffer_arg(),
            scores.into_buffer_arg(),
            labels.into_buffer_arg(),
            room.into_buffer_arg(),
            new.scores.clone().into_buffer_arg(),
            new.labels.clone().into_buffer_arg(),
            segment.first_label as u32,
            segment.labels,
            segment.dim,
            k,
            row_parts(segment),
            search.operands.into(),
            dtype_to_storage_type(x.dtype),
        )
    });
    new.into_tensors()
}
