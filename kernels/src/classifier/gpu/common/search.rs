//! The best labels of every row: many units look through slabs of a chunk, then one cube a row merges their lists.

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
#[derive(Clone)]
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
        Self { batch, k, scores, labels }
    }

    /// Uninitialised.
    pub fn empty(like: &CubeTensor, batch: usize, k: usize) -> Self {
        let (scores, labels) = (empty(like, batch * k, DType::F32), empty(like, batch * k, DType::I32));
        Self::new(scores, labels, batch, k)
    }

    /// No labels yet.
    pub fn none(like: &CubeTensor, batch: usize, k: usize) -> Self {
        Self::new(
            upload(like, &vec![f32::NEG_INFINITY; batch * k], DType::F32),
            upload(like, &vec![-1i32; batch * k], DType::I32),
            batch,
            k,
        )
    }

    /// Merges the scores of a chunk.
    ///
    /// # Shapes
    /// - `logits`: `[labels, columns]`
    pub fn merge(&mut self, logits: &CubeTensor, first_label: u64, labels: usize, columns: usize) {
        let Slabs { size, count, list } = Slabs::new(labels, self.k);
        let (batch, k) = (self.batch, self.k);
        let client = logits.client.clone();
        let lists = Self::empty(logits, count * batch, list);
        timed(Grain::Kernels, "search_slabs", &client, || {
            search_slabs::launch(
                &client,
                CubeCount::Static(batch.div_ceil(SEARCHERS as usize) as u32, count as u32, 1),
                CubeDim::new_1d(SEARCHERS),
                logits.clone().into_buffer_arg(),
                self.scores.clone().into_buffer_arg(),
                lists.launch(),
                SlabArgsLaunch { first_label: first_label as u32, labels, size, batch, columns, k, list },
                Some(list).filter(|list| *list <= IN_REGISTERS),
            )
        });
        let new = Self::empty(logits, batch, k);
        timed(Grain::Kernels, "merge", &client, || {
            merge::launch(
                &client,
                CubeCount::new_1d(batch as u32),
                CubeDim::new_1d(MERGERS),
                self.launch(),
                lists.launch(),
                new.launch(),
                MergeArgsLaunch { slabs: count, batch, k, list },
            )
        });
        *self = new;
    }

    /// For a launch.
    pub fn launch(&self) -> ListsLaunch {
        ListsLaunch { scores: self.scores.clone().into_buffer_arg(), labels: self.labels.clone().into_buffer_arg() }
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

/// How a chunk is cut for the search.
struct Slabs {
    /// Labels of a slab.
    size: usize,
    /// Slabs.
    count: usize,
    /// Labels that each slab's list has room for: no more than the slab has.
    list: usize,
}

impl Slabs {
    fn new(labels: usize, k: usize) -> Self {
        let size = labels.div_ceil(MERGERS as usize - 1).max(SMALLEST_SLAB);
        Self { size, count: labels.div_ceil(size), list: k.min(size) }
    }
}

/// Scores with their labels, best first.
#[derive(CubeType, CubeLaunch)]
pub struct Lists {
    pub scores: Box<[f32]>,
    pub labels: Box<[i32]>,
}

/// Sizes of [`search_slabs()`].
#[derive(CubeType, CubeLaunch)]
pub struct SlabArgs {
    /// The label of the first logit.
    pub first_label: u32,
    pub labels: usize,
    /// Labels of a slab.
    pub size: usize,
    pub batch: usize,
    /// The width of the logits.
    pub columns: usize,
    pub k: usize,
    /// The length of a slab's list.
    pub list: usize,
}

/// The best labels of every row in one slab, best first; labels that cannot become one of the best so far are passed
/// over.
///
/// Labels come in ascending order, so an equal score goes behind those that are there. NaN is never kept.
///
/// # Shapes
/// - `logits`: `[labels, columns]`
/// - `best_scores`: `[batch, k]`, of earlier chunks
/// - `lists`: `[slabs, list, batch]`; the slab is `CUBE_POS_Y`
#[cube(launch)]
pub fn search_slabs(
    logits: &[f32],
    best_scores: &[f32],
    lists: &mut Lists,
    args: &SlabArgs,
    #[comptime] in_registers: Option<usize>,
) {
    let row = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X) as usize;
    let batch = args.batch;
    if row < batch {
        let begin = CUBE_POS_Y as usize * args.size;
        let end = usize::min(begin + args.size, args.labels);
        let mut worst = best_scores[row * args.k + args.k - 1];
        let list = CUBE_POS_Y as usize * args.list * batch + row;
        if comptime!(in_registers.is_some()) {
            let length = comptime!(in_registers.unwrap());
            let mut best = Array::<f32>::new(length);
            let mut labels = Array::<u32>::new(length);
            #[unroll]
            for i in 0..length {
                best[i] = f32::reinterpret(0xff80_0000u32.runtime());
                labels[i] = 0xffff_ffffu32.runtime();
            }
            for first in range_stepped(begin, end, AT_A_TIME) {
                let scores = load_scores(logits, first, end, args.columns, row);
                #[unroll]
                for at in 0..AT_A_TIME {
                    let score = scores[at];
                    if score > worst && !is_nan(score) {
                        let new_label = (first + at) as u32 + args.first_label;
                        let mut moving = score;
                        let mut label = new_label;
                        #[unroll]
                        for i in 0..length {
                            // An entry that was pushed out goes before entries with an equal score: its label is lower.
                            let displaced = label != new_label;
                            if moving > best[i] || (displaced && moving == best[i]) {
                                let (old, old_label) = (best[i], labels[i]);
                                best[i] = moving;
                                labels[i] = label;
                                moving = old;
                                label = old_label;
                            }
                        }
                        worst = f32::max(worst, best[comptime!(length - 1)]);
                    }
                }
            }
            #[unroll]
            for i in 0..length {
                lists.scores[list + i * batch] = best[i];
                lists.labels[list + i * batch] = i32::cast_from(labels[i]);
            }
        } else {
            let length = args.list;
            for i in 0..length {
                lists.scores[list + i * batch] = f32::reinterpret(0xff80_0000u32.runtime());
                lists.labels[list + i * batch] = -1i32;
            }
            let mut count = 0usize.runtime();
            for first in range_stepped(begin, end, AT_A_TIME) {
                let scores = load_scores(logits, first, end, args.columns, row);
                #[unroll]
                for at in 0..AT_A_TIME {
                    let score = scores[at];
                    if score > worst && !is_nan(score) {
                        let mut to = usize::min(count, length - 1);
                        let mut searching = to > 0;
                        while searching {
                            let before = list + (to - 1) * batch;
                            if lists.scores[before] < score {
                                lists.scores[before + batch] = lists.scores[before];
                                lists.labels[before + batch] = lists.labels[before];
                                to -= 1;
                                searching = to > 0;
                            } else {
                                searching = false;
                            }
                        }
                        lists.scores[list + to * batch] = score;
                        lists.labels[list + to * batch] = i32::cast_from((first + at) as u32 + args.first_label);
                        count = usize::min(count + 1, length);
                        worst = f32::max(worst, lists.scores[list + (length - 1) * batch]);
                    }
                }
            }
        }
    }
}

/// The scores of neighbouring labels for one row; past `end` negative infinity.
#[cube]
fn load_scores(logits: &[f32], first: usize, end: usize, columns: usize, row: usize) -> Array<f32> {
    let mut scores = Array::<f32>::new(AT_A_TIME);
    #[unroll]
    for at in 0..AT_A_TIME {
        scores[at] = f32::reinterpret(0xff80_0000u32.runtime());
        if first + at < end {
            scores[at] = logits[(first + at) * columns + row];
        }
    }
    scores
}

/// Sizes of [`merge()`].
#[derive(CubeType, CubeLaunch)]
pub struct MergeArgs {
    pub slabs: usize,
    pub batch: usize,
    pub k: usize,
    /// The length of a slab's list.
    pub list: usize,
}

/// Merges the lists of a chunk's slabs into the best so far; one cube a row.
///
/// # Shapes
/// - `best`, `new`: `[batch, k]`
/// - `lists`: `[slabs, list, batch]`
#[cube(launch)]
pub fn merge(best: &Lists, lists: &Lists, new: &mut Lists, args: &MergeArgs) {
    let mut tournament = new_tournament();
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_X as usize;
    let k = args.k;
    let mut next = 0usize.runtime();
    let mut score = f32::reinterpret(0xff80_0000u32.runtime());
    let mut label = -1i32.runtime();
    let mut advance = true.runtime();
    for place in 0..k {
        if advance {
            score = f32::reinterpret(0xff80_0000u32.runtime());
            label = -1i32.runtime();
            if unit == 0 {
                if next < k {
                    score = best.scores[row * k + next];
                    label = best.labels[row * k + next];
                }
            } else if unit <= args.slabs && next < args.list {
                let at = ((unit - 1) * args.list + next) * args.batch + row;
                score = lists.scores[at];
                label = lists.labels[at];
            }
            next += 1;
        }
        let owner = best_of_cube(score, label, &mut tournament);
        advance = owner == UNIT_POS;
        if unit == 0 {
            new.scores[row * k + place] = tournament.scores[0];
            new.labels[row * k + place] = tournament.labels[0];
        }
        sync_cube();
    }
}

/// One candidate a unit of a merging cube, in shared memory.
#[derive(CubeType)]
pub struct Tournament {
    pub scores: Shared<[f32]>,
    pub labels: Shared<[i32]>,
    owners: Shared<[u32]>,
}

#[cube]
pub fn new_tournament() -> Tournament {
    Tournament {
        scores: Shared::<[f32]>::new_slice(MERGERS as usize),
        labels: Shared::<[i32]>::new_slice(MERGERS as usize),
        owners: Shared::<[u32]>::new_slice(MERGERS as usize),
    }
}

/// The best of one label a unit, ties to the lower one: returns the unit that has it; score and label then lie at place
/// 0. All units synchronise before the next call.
#[cube]
pub fn best_of_cube(score: f32, label: i32, tournament: &mut Tournament) -> u32 {
    let unit = UNIT_POS as usize;
    tournament.scores[unit] = score;
    tournament.labels[unit] = label;
    tournament.owners[unit] = UNIT_POS;
    #[unroll]
    for level in 0..comptime!(MERGERS.ilog2()) {
        let half = comptime!(MERGERS as usize >> (level + 1));
        sync_cube();
        if unit < half {
            let other = unit + half;
            if tournament.scores[other] > tournament.scores[unit]
                || (tournament.scores[other] == tournament.scores[unit]
                    && tournament.labels[other] >= 0i32
                    && (tournament.labels[other] < tournament.labels[unit] || tournament.labels[unit] < 0i32))
            {
                tournament.scores[unit] = tournament.scores[other];
                tournament.labels[unit] = tournament.labels[other];
                tournament.owners[unit] = tournament.owners[other];
            }
        }
    }
    sync_cube();
    tournament.owners[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slab has no more best labels than labels: with a `k` near the number of labels the lists together take about
    /// as much as the logits that they come from.
    #[test]
    fn lists_are_no_longer_than_their_slabs() {
        for labels in [1, 31, 32, 33, 5000, 131_073, 8_623_847] {
            for k in [1, 5, 100, 65_535] {
                let slabs = Slabs::new(labels, k);
                assert!(slabs.count < MERGERS as usize && slabs.count * slabs.size >= labels);
                assert!(slabs.list <= k && slabs.list >= k.min(labels.min(slabs.size)));
                assert!(slabs.count * slabs.list < labels + slabs.size, "{labels} labels, k {k}");
            }
        }
        assert_eq!(Slabs::new(131_073, 5).list, 5);
    }
}
