//! From scored candidates to the ranking that metrics and predictions are made of.

use std::cmp::Ordering;

/// Ranks the `(label, score)` candidates of one row in place and keeps the best `k`.
///
/// Labels in `filter` (sorted, ascending) are dropped first: in label-feature data sets those are the pairs that
/// must not count, such as a product as its own neighbour. So a caller who wants `k` labels back offers
/// `k + filter.len()` candidates. Fewer than `k` remain when there are not enough.
///
/// Order: higher score first, equal scores (and `0.0` and `-0.0` are equal) lower label first, NaN after every
/// number. An exact score of 0 is a score like any other; pyxclib drops those when, and only when, a filter is given.
pub fn rank<S: PartialOrd + Copy>(candidates: &mut Vec<(u32, S)>, filter: &[u32], k: usize) {
    debug_assert!(filter.is_sorted(), "filter labels must be sorted");
    if !filter.is_empty() {
        candidates.retain(|(label, _)| filter.binary_search(label).is_err());
    }
    candidates.sort_unstable_by(best_first);
    candidates.truncate(k);
}

fn best_first<S: PartialOrd + Copy>(a: &(u32, S), b: &(u32, S)) -> Ordering {
    let is_nan = |score: S| score.partial_cmp(&score).is_none();
    // `total_cmp` would put -0.0 below 0.0, and so decide a tie by a sign that means nothing.
    let by_score = b.1.partial_cmp(&a.1);
    by_score.unwrap_or_else(|| is_nan(a.1).cmp(&is_nan(b.1))).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(mut candidates: Vec<(u32, f32)>, filter: &[u32], k: usize) -> Vec<u32> {
        rank(&mut candidates, filter, k);
        candidates.into_iter().map(|(label, _)| label).collect()
    }

    #[test]
    fn ties_go_to_the_lower_label() {
        let candidates = vec![(7, 0.5), (3, -0.0), (1, 0.0), (9, 0.5), (2, 0.0)];
        assert_eq!(ranked(candidates, &[], 4), [7, 9, 1, 2]);
    }

    #[test]
    fn nan_is_last_and_infinities_are_numbers() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let candidates = vec![(4, nan), (0, -nan), (5, -inf), (1, 0.0), (2, inf)];
        assert_eq!(ranked(candidates, &[], 5), [2, 1, 5, 0, 4]);
    }

    #[test]
    fn filtered_labels_leave_room_for_others() {
        let candidates = vec![(4, 4.0), (3, 3.0), (2, 2.0), (1, 1.0)];
        assert_eq!(ranked(candidates.clone(), &[3, 4, 8], 2), [2, 1]);
        assert_eq!(ranked(candidates, &[1, 2, 3, 4], 2), [0_u32; 0]);
        assert_eq!(ranked(vec![], &[1], 2), [0_u32; 0]);
    }
}
