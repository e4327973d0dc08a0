//! The best labels of every row: many units look through slabs of a chunk, then one cube a row merges what they found.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::{
    gpu::memory::{empty, upload},
    numbers::device::is_nan,
    timing::{Grain, timed},
};

/// Units of a merging cube. One holds the list so far, each other the list of one slab.
pub const MERGERS: u32 = 256;
/// Lists up to this long stay in registers while a slab is searched.
const IN_REGISTERS: usize = 8;
/// Fewer labels are not worth a slab of their own.
const SMALLEST_SLAB: usize = 32;
/// Scores that a searching unit asks for at a time: their loads wait for memory together.
const AT_A_TIME: usize = 8;

/// Units of a searching cube: rows of the batch.
const SEARCHERS: u32 = 64;

/// The best labels so far.
pub struct Best {
    pub batch: usize,
    pub k: usize,
    pub scores: CubeTensor,
    pub labels: CubeTensor,
}

impl Best {
    /// # Shapes
    /// - `scores`, `labels`: `[batch, k]`, contiguous
    pub fn new(scores: CubeTensor, labels: CubeTensor, batch: usize, k: usize) -> Self {
        Self {
            batch,
            k,
            scores,
            labels,
        }
    }

    /// Merges the scores of a chunk.
    ///
    /// # Shapes
    /// - `logits`: `[labels, columns]`
    pub fn merge(&mut self, logits: &CubeTensor, first_label: u64, labels: usize, columns: usize) {
        let (slab, slabs) = slabs(labels);
        let (batch, k) = (self.batch, self.k);
        let client = logits.client.clone();
        let scores = empty(logits, slabs * k * batch, DType::F32);
        let found = empty(logits, slabs * k * batch, DType::I32);
        timed(Grain::Kernels, "search_slabs", &client, || {
            search_slabs::launch(
                &client,
                CubeCount::Static(batch.div_ceil(SEARCHERS as usize) as u32, slabs as u32, 1),
                CubeDim::new_1d(SEARCHERS),
                logits.clone().into_buffer_arg(),
                self.scores.clone().into_buffer_arg(),
                scores.clone().into_buffer_arg(),
                found.clone().into_buffer_arg(),
                first_label as u32,
                labels,
                slab,
                batch,
                columns,
                k,
                Some(k).filter(|k| *k <= IN_REGISTERS),
            )
        });
        let new_scores = empty(logits, batch * k, DType::F32);
        let new_labels = empty(logits, batch * k, DType::I32);
        timed(Grain::Kernels, "merge", &client, || {
            merge::launch(
                &client,
                CubeCount::new_1d(batch as u32),
                CubeDim::new_1d(MERGERS),
                self.scores.clone().into_buffer_arg(),
                self.labels.clone().into_buffer_arg(),
                scores.into_buffer_arg(),
                found.into_buffer_arg(),
                new_scores.clone().into_buffer_arg(),
                new_labels.clone().into_buffer_arg(),
                slabs,
                batch,
                k,
            )
        });
        self.scores = new_scores;
        self.labels = new_labels;
    }

    /// Of nothing yet.
    pub fn none(like: &CubeTensor, batch: usize, k: usize) -> Self {
        Self::new(
            upload(like, &vec![f32::NEG_INFINITY; batch * k], DType::F32),
            upload(like, &vec![-1i32; batch * k], DType::I32),
            batch,
            k,
        )
    }

    /// Scores and labels, `[batch, k]`.
    pub fn into_tensors(self) -> (CubeTensor, CubeTensor) {
        let shape = |tensor: CubeTensor| {
            CubeTensor::new_contiguous(
                tensor.client,
                tensor.device,
                Shape::from([self.batch, self.k]),
                tensor.handle,
                tensor.dtype,
            )
        };
        (shape(self.scores), shape(self.labels))
    }
}

/// Labels of each slab of a chunk, and how many slabs there are.
fn slabs(labels: usize) -> (usize, usize) {
    let most = MERGERS as usize - 1;
    let size = labels.div_ceil(most).max(SMALLEST_SLAB);
    (size, labels.div_ceil(size))
}

/// The `k` best labels of every row in one slab, best first; labels that cannot become one of the best so far are
/// passed over.
///
/// Labels come in ascending order, so an equal score goes behind those that are there. NaN is never kept.
///
/// # Shapes
/// - `logits`: `[labels, columns]`
/// - `best_scores`: `[batch, k]`, of earlier chunks
/// - `scores`, `found`: `[slabs, k, batch]`; the slab is `CUBE_POS_Y`
#[cube(launch)]
pub fn search_slabs(
    logits: &[f32],
    best_scores: &[f32],
    scores: &mut [f32],
    found: &mut [i32],
    first_label: u32,
    labels: usize,
    slab: usize,
    batch: usize,
    columns: usize,
    k: usize,
    #[comptime] in_registers: Option<usize>,
) {
    let row = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X) as usize;
    if row < batch {
        let begin = CUBE_POS_Y as usize * slab;
        let end = usize::min(begin + slab, labels);
        let mut worst = best_scores[row * k + k - 1];
        let list = CUBE_POS_Y as usize * k * batch + row;
        if comptime!(in_registers.is_some()) {
            let k = comptime!(in_registers.unwrap());
            let mut best = Array::<f32>::new(k);
            let mut names = Array::<u32>::new(k);
            #[unroll]
            for i in 0..k {
                best[i] = f32::reinterpret(0xff80_0000u32.runtime());
                names[i] = 0xffff_ffffu32.runtime();
            }
            for first in range_stepped(begin, end, AT_A_TIME) {
                let some = load_scores(logits, first, end, columns, row);
                #[unroll]
                for at in 0..AT_A_TIME {
                    let score = some[at];
                    if score > worst && !is_nan(score) {
                        let new_name = (first + at) as u32 + first_label;
                        let mut moving = score;
                        let mut name = new_name;
                        #[unroll]
                        for i in 0..k {
                            // Once something has been pushed out it goes before whatever equals it.
                            let displaced = name != new_name;
                            if moving > best[i] || (displaced && moving == best[i]) {
                                let (old, old_name) = (best[i], names[i]);
                                best[i] = moving;
                                names[i] = name;
                                moving = old;
                                name = old_name;
                            }
                        }
                        worst = f32::max(worst, best[comptime!(k - 1)]);
                    }
                }
            }
            #[unroll]
            for i in 0..k {
                scores[list + i * batch] = best[i];
                found[list + i * batch] = i32::cast_from(names[i]);
            }
        } else {
            for i in 0..k {
                scores[list + i * batch] = f32::reinterpret(0xff80_0000u32.runtime());
                found[list + i * batch] = -1i32;
            }
            let mut kept = 0usize.runtime();
            for first in range_stepped(begin, end, AT_A_TIME) {
                let some = load_scores(logits, first, end, columns, row);
                #[unroll]
                for at in 0..AT_A_TIME {
                    let score = some[at];
                    if score > worst && !is_nan(score) {
                        let mut to = usize::min(kept, k - 1);
                        let mut searching = to > 0;
                        while searching {
                            let before = list + (to - 1) * batch;
                            if scores[before] < score {
                                scores[before + batch] = scores[before];
                                found[before + batch] = found[before];
                                to -= 1;
                                searching = to > 0;
                            } else {
                                searching = false;
                            }
                        }
                        scores[list + to * batch] = score;
                        found[list + to * batch] = i32::cast_from((first + at) as u32 + first_label);
                        kept = usize::min(kept + 1, k);
                        worst = f32::max(worst, scores[list + (k - 1) * batch]);
                    }
                }
            }
        }
    }
}

/// The scores of neighbouring labels for one row; past `end` negative infinity.
#[cube]
fn load_scores(logits: &[f32], first: usize, end: usize, columns: usize, row: usize) -> Array<f32> {
    let mut some = Array::<f32>::new(AT_A_TIME);
    #[unroll]
    for at in 0..AT_A_TIME {
        some[at] = f32::reinterpret(0xff80_0000u32.runtime());
        if first + at < end {
            some[at] = logits[(first + at) * columns + row];
        }
    }
    some
}

/// Merges the lists of a chunk's slabs into the best so far; one cube a row.
///
/// # Shapes
/// - `best_scores`, `best_labels`, and the new ones: `[batch, k]`
/// - `scores`, `found`: `[slabs, k, batch]`
#[cube(launch)]
pub fn merge(
    best_scores: &[f32],
    best_labels: &[i32],
    scores: &[f32],
    found: &[i32],
    new_scores: &mut [f32],
    new_labels: &mut [i32],
    slabs: usize,
    batch: usize,
    k: usize,
) {
    let mut heads = Shared::<[f32]>::new_slice(MERGERS as usize);
    let mut names = Shared::<[i32]>::new_slice(MERGERS as usize);
    let mut owners = Shared::<[u32]>::new_slice(MERGERS as usize);
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_X as usize;
    let mut next = 0usize.runtime();
    let mut head = f32::reinterpret(0xff80_0000u32.runtime());
    let mut name = -1i32.runtime();
    let mut advance = true.runtime();
    for place in 0..k {
        if advance {
            head = f32::reinterpret(0xff80_0000u32.runtime());
            name = -1i32.runtime();
            if next < k {
                if unit == 0 {
                    head = best_scores[row * k + next];
                    name = best_labels[row * k + next];
                } else if unit <= slabs {
                    let at = ((unit - 1) * k + next) * batch + row;
                    head = scores[at];
                    name = found[at];
                }
            }
            next += 1;
        }
        let owner = best_of_cube(head, name, &mut heads, &mut names, &mut owners);
        advance = owner == UNIT_POS;
        if unit == 0 {
            new_scores[row * k + place] = heads[0];
            new_labels[row * k + place] = names[0];
        }
        sync_cube();
    }
}

/// The best of one label a unit, ties to the lower one: the unit that has it; score and label then lie at place 0. All
/// units synchronise before the next call.
#[cube]
pub fn best_of_cube(
    score: f32,
    label: i32,
    heads: &mut Shared<[f32]>,
    names: &mut Shared<[i32]>,
    owners: &mut Shared<[u32]>,
) -> u32 {
    let unit = UNIT_POS as usize;
    heads[unit] = score;
    names[unit] = label;
    owners[unit] = UNIT_POS;
    #[unroll]
    for level in 0..comptime!(MERGERS.ilog2()) {
        let half = comptime!(MERGERS as usize >> (level + 1));
        sync_cube();
        if unit < half {
            let other = unit + half;
            if heads[other] > heads[unit]
                || (heads[other] == heads[unit]
                    && names[other] >= 0i32
                    && (names[other] < names[unit] || names[unit] < 0i32))
            {
                heads[unit] = heads[other];
                names[unit] = names[other];
                owners[unit] = owners[other];
            }
        }
    }
    sync_cube();
    owners[0]
}
