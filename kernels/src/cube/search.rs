//! The best labels of every row, merged chunk by chunk.

use cubecl::prelude::*;

use super::fp8::is_nan;

/// Merges a chunk's logits into the best so far; one unit a row.
///
/// Labels come in ascending order, so an equal score goes behind those that are there. NaN is never kept.
///
/// # Shapes
/// - `logits`: `[labels, columns]`
/// - `scores`, `best`: `[batch, k]`
#[cube(launch)]
pub fn merge_best(
    logits: &[f32],
    scores: &mut [f32],
    best: &mut [i32],
    first_label: u32,
    labels: usize,
    batch: usize,
    columns: usize,
    k: usize,
) {
    let row = ABSOLUTE_POS;
    if row < batch {
        let list = row * k;
        let mut worst = scores[list + k - 1];
        for label in 0..labels {
            let score = logits[label * columns + row];
            if score > worst && !is_nan(score) {
                let mut at = k - 1;
                let mut searching = at > 0;
                while searching {
                    let before = scores[list + at - 1];
                    if before < score {
                        scores[list + at] = before;
                        best[list + at] = best[list + at - 1];
                        at -= 1;
                        searching = at > 0;
                    } else {
                        searching = false;
                    }
                }
                scores[list + at] = score;
                best[list + at] = i32::cast_from(first_label + label as u32);
                worst = scores[list + k - 1];
            }
        }
    }
}
