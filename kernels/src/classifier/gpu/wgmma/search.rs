//! A search of one segment.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    CHUNK_LABELS, Device, Logits, is_known,
    logits::{Epilogue, GROUP},
    logits_stream, refine,
    stream::{self, ROWS, Stream},
    tiles,
};
use crate::{
    classifier::{
        gpu::common::{
            chunks, row_parts,
            search::{Best, MERGERS},
        },
        problem::{Search, Segment, padded_batch},
    },
    gpu::memory::empty,
    timing::{Grain, timed},
};

/// Bytes of a search's best scores of groups at most.
const MAXIMA_BYTES: usize = 16 << 20;
/// Labels a row that a search keeps at most: it computes the scores of 16 times as many again.
const MAX_KEPT: usize = 1024;

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
    pub fn new(words: &CubeTensor, segment: &Segment, search: &Search, batch: usize) -> Option<Self> {
        let device = Device::new(words).filter(|_| is_known(segment, search.operands) && search.k <= MAX_KEPT)?;
        let batch = padded_batch(batch);
        let groups = (MAXIMA_BYTES / (4 * batch)).max(1);
        Some(Self {
            // Sums as exact as those by which labels are told apart in the end.
            logits: logits_stream(stream::Operands::Decoded, batch, segment, device.shared_bytes)?,
            batch,
            chunk: (groups * GROUP).min(segment.labels).next_multiple_of(CHUNK_LABELS),
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
            CubeDim::new_1d(MERGERS),
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
