//! The second half of a search: from the groups of labels with the best scores to the best labels.
//!
//! The `k` best labels of a row lie in the `k` groups whose best scores are the largest, ties going to the earlier
//! group: a label of another group has `k` labels before it, one in each of these. So scores need not be kept, but for
//! the largest of each group, and those of `k` groups are computed again.

use cubecl::prelude::*;

use super::logits::GROUP;
use crate::{
    classifier::gpu::common::search::{MERGERS, best_of_cube},
    gpu::ptx::Words4,
    numbers::device::{Format, Quad, decode_quad, is_nan, round},
};

/// Merges the best labels of the groups that were found into the best so far; one cube a row.
///
/// # Shapes
/// - `words`: the segment's weights, E4M3, rows of `row_parts` parts of 16 bytes
/// - `x`: `[batch, dim]`, rounded to `operands` here
/// - `groups`: `[batch, k]`, group `i` being the labels of the segment from `16 i`; -1 where there is none
/// - `best_scores`, `best_labels`, and the new ones: `[batch, k]`
/// - `scores`: room for `[batch, 17 k]`
#[cube(launch)]
pub fn refine<F: Float>(
    words: &[Words4],
    x: &[F],
    groups: &[i32],
    best_scores: &[f32],
    best_labels: &[i32],
    scores: &mut [f32],
    new_scores: &mut [f32],
    new_labels: &mut [i32],
    first_label: u32,
    labels: usize,
    dim: usize,
    k: usize,
    #[comptime] row_parts: usize,
    #[comptime] operands: Format,
    #[define(F)] _dtype: ElemType,
) {
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
        if group >= 0i32 && label < labels {
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
        scores[place + GROUP * k + i] = best_scores[row * k + i];
    }
    sync_cube();

    let mut heads = Shared::<[f32]>::new_slice(MERGERS as usize);
    let mut names = Shared::<[i32]>::new_slice(MERGERS as usize);
    let mut owners = Shared::<[u32]>::new_slice(MERGERS as usize);
    let mut head = nothing;
    let mut name = -1i32.runtime();
    let mut head_at = 0usize.runtime();
    let mut advance = true.runtime();
    for place_of_list in 0..k {
        if advance {
            head = nothing;
            name = -1i32.runtime();
            for candidate in range_stepped(unit, candidates, comptime!(MERGERS as usize)) {
                let score = scores[place + candidate];
                if score > nothing {
                    let label = if candidate < GROUP * k {
                        let group = groups[row * k + candidate / GROUP] as u32;
                        let of_segment = group * comptime!(GROUP as u32) + (candidate % GROUP) as u32;
                        i32::cast_from(first_label + of_segment)
                    } else {
                        best_labels[row * k + candidate - GROUP * k]
                    };
                    if score > head || (score == head && label < name) {
                        head = score;
                        name = label;
                        head_at = candidate;
                    }
                }
            }
        }
        let owner = best_of_cube(head, name, &mut heads, &mut names, &mut owners);
        advance = owner == UNIT_POS;
        if unit == 0 {
            new_scores[row * k + place_of_list] = heads[0];
            new_labels[row * k + place_of_list] = names[0];
        }
        if advance {
            scores[place + head_at] = nothing;
        }
        sync_cube();
    }
}
