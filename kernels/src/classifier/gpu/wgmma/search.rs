//! A search of one segment.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use cubecl::prelude::*;

use super::{
    CHUNK_LABELS, Logits, is_known,
    logits::{Epilogue, GROUP},
    logits_stream, refine,
    stream::{Multiplied, Stream},
};
use crate::{
    classifier::{
        chunk::padded_batch,
        gpu::common::{
            SearchInput, chunks, row_parts,
            search::{Best, MERGERS},
        },
    },
    gpu::{memory::empty, wgmma::Hopper},
    timing::{Grain, timed},
};

/// Bytes of a search's best scores of groups at most.
const MAXIMA_BYTES: usize = 16 << 20;
/// Labels a row that a search finds at most: it computes the scores of 16 times as many again.
const MAX_K: usize = 1024;

/// How a device searches a segment.
pub struct Plan {
    logits: Stream,
    /// Rows of the batch in whole blocks.
    batch: usize,
    chunk: usize,
    device: Hopper,
}

impl Plan {
    /// The plan of a search, if this path can do it.
    pub fn new(input: &SearchInput) -> Option<Self> {
        let SearchInput { segment, search, .. } = input;
        let device = Hopper::of(&input.words).filter(|_| is_known(segment, search.operands) && search.k <= MAX_K)?;
        let batch = padded_batch(input.best.batch);
        let groups = (MAXIMA_BYTES / (4 * batch)).max(1);
        Some(Self {
            // The sums must be as exact as those of `refine`, which ranks the labels in the end.
            logits: logits_stream(Multiplied::Decoded, batch, segment, device.shared_bytes)?,
            batch,
            chunk: (groups * GROUP).min(segment.labels).next_multiple_of(CHUNK_LABELS),
            device,
        })
    }
}

/// The best labels of a segment, merged into those so far. No score is stored but the largest of every 16 labels.
pub fn search(input: &SearchInput, plan: &Plan) -> Best {
    let SearchInput { words, x, best, segment, search } = input;
    let client = &words.client;
    let (batch, k) = (best.batch, best.k);
    let logits = Logits::new(plan.logits, (words, segment), x, search.operands, plan.batch, &plan.device);
    let maxima = empty(words, plan.chunk / GROUP * plan.batch, DType::F32);
    let losses = empty(words, 0, DType::F32);
    let mut groups = Best::none(words, batch, k);
    for chunk in chunks(segment.labels, plan.chunk) {
        logits.launch(&maxima, &losses, None, chunk, Epilogue::Maxima);
        groups.merge(&maxima, (chunk.first / GROUP) as u64, chunk.labels.div_ceil(GROUP), plan.batch);
    }
    let scores = empty(words, batch * k * (GROUP + 1), DType::F32);
    let new = Best::empty(words, batch, k);
    timed(Grain::Kernels, "refine", client, || {
        refine::refine::launch(
            client,
            CubeCount::new_1d(batch as u32),
            CubeDim::new_1d(MERGERS),
            words.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            groups.labels.clone().into_buffer_arg(),
            best.launch(),
            scores.into_buffer_arg(),
            new.launch(),
            refine::RefineArgsLaunch {
                first_label: segment.first_label as u32,
                labels: segment.labels,
                dim: segment.dim,
                k,
            },
            refine::RowFormat { row_parts: row_parts(segment), operands: search.operands },
            dtype_to_storage_type(x.dtype),
        )
    });
    new
}
