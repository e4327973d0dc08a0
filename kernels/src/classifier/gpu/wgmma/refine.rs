//! The second half of a search: from the groups of labels with the best scores to the best labels.
//!
//! The `k` best labels of a row lie in the `k` groups whose best scores are the largest, ties going to the earlier
//! group: a label of another group has `k` labels before it, one in each of these. So scores need not be kept, but for
//! the largest of each group, and those of `k` groups are computed again.

use cubecl::prelude::*;

use super::logits::GROUP;
use crate::{
    classifier::gpu::common::search::{Lists, MERGERS, best_of_cube, new_tournament},
    gpu::ptx::Words4,
    numbers::{
        Format,
        device::{Quad, decode_quad, is_nan, round},
    },
};

/// The length of a row of weights in parts of 16 bytes, and the format to which `X` is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowFormat {
    pub row_parts: usize,
    pub operands: Format,
}

/// Sizes of [`refine()`].
#[derive(CubeType, CubeLaunch)]
pub struct RefineArgs {
    /// The segment's first label.
    pub first_label: u32,
    /// Labels of the segment.
    pub labels: usize,
    pub dim: usize,
    pub k: usize,
}

/// Merges the best labels of the best groups into the best so far; one cube a row.
///
/// # Shapes
/// - `words`: the segment's weights, E4M3, rows of `row_parts` parts of 16 bytes
/// - `x`: `[batch, dim]`, rounded to `operands` here
/// - `groups`: `[batch, k]`, group `i` being the labels of the segment from `16 i`; -1 where there is none
/// - `best`, `new`: `[batch, k]`
/// - `scores`: room for `[batch, 17 k]`
#[cube(launch)]
pub fn refine<F: Float>(
    words: &[Words4],
    x: &[F],
    groups: &[i32],
    best: &Lists,
    scores: &mut [f32],
    new: &mut Lists,
    args: &RefineArgs,
    #[comptime] rows: RowFormat,
    #[define(F)] _dtype: ElemType,
) {
    let row_parts = comptime!(rows.row_parts);
    let operands = comptime!(rows.operands);
    let dim = args.dim;
    let k = args.k;
    let row = CUBE_POS_X as usize;
    let unit = UNIT_POS as usize;
    let mut features = Shared::<[f32]>::new_slice(comptime!(16 * row_parts));
    for column in range_stepped(unit, comptime!(16 * row_parts), comptime!(MERGERS as usize)) {
        let mut feature = 0.0f32.runtime();
        if column < dim {
            feature = round(f32::cast_from(x[row * dim + column]), operands);
        }
        features[column] = feature;
    }
    sync_cube();

    // Scores of the groups' labels, a plane each, then the best so far.
    let nothing = f32::reinterpret(0xff80_0000u32.runtime());
    let candidates = (GROUP + 1) * k;
    let place = row * candidates;
    for candidate in range_stepped(unit / 32, GROUP * k, comptime!(MERGERS as usize / 32)) {
        let group = groups[row * k + candidate / GROUP];
        let mut score = nothing;
        let label = group as usize * GROUP + candidate % GROUP;
        if group >= 0i32 && label < args.labels {
            let mut z = 0.0f32.runtime();
            for part in range_stepped(unit % 32, row_parts, 32) {
                let codes = words[label * row_parts + part];
                #[unroll]
                for q in 0..4usize {
                    let w: Quad = decode_quad(codes, q, Format::E4m3);
                    #[unroll]
                    for i in 0..4usize {
                        z = fma(w.extract(i), features[part * 16 + comptime!(4 * q + i)], z);
                    }
                }
            }
            let z = plane_sum(z);
            score = select(is_nan(z), nothing, z);
        }
        if UNIT_POS_PLANE == 0u32 {
            scores[place + candidate] = score;
        }
    }
    for i in range_stepped(unit, k, comptime!(MERGERS as usize)) {
        scores[place + GROUP * k + i] = best.scores[row * k + i];
    }
    sync_cube();

    let mut tournament = new_tournament();
    let mut best_score = nothing;
    let mut best_label = -1i32.runtime();
    let mut best_at = 0usize.runtime();
    let mut advance = true.runtime();
    for place_of_list in 0..k {
        if advance {
            best_score = nothing;
            best_label = -1i32.runtime();
            for candidate in range_stepped(unit, candidates, comptime!(MERGERS as usize)) {
                let score = scores[place + candidate];
                if score > nothing {
                    let label = if candidate < GROUP * k {
                        let group = groups[row * k + candidate / GROUP] as u32;
                        let row_of_segment = group * comptime!(GROUP as u32) + (candidate % GROUP) as u32;
                        i32::cast_from(args.first_label + row_of_segment)
                    } else {
                        best.labels[row * k + candidate - GROUP * k]
                    };
                    if score > best_score || (score == best_score && label < best_label) {
                        best_score = score;
                        best_label = label;
                        best_at = candidate;
                    }
                }
            }
        }
        let owner = best_of_cube(best_score, best_label, &mut tournament);
        advance = owner == UNIT_POS;
        if unit == 0 {
            new.scores[row * k + place_of_list] = tournament.scores[0];
            new.labels[row * k + place_of_list] = tournament.labels[0];
        }
        if advance {
            scores[place + best_at] = nothing;
        }
        sync_cube();
    }
}
