//! How a classifier is cut into buffers.

use elmo_kernels::{Format, Head, Segment};

/// The segments of a classifier: as few as `segment_bytes` allows, all but the last of equal size.
pub(super) fn segments(
    labels: usize,
    dim: usize,
    precision: Format,
    head: Option<Head>,
    segment_bytes: usize,
) -> Vec<Segment> {
    let row_bytes = 4 * precision.row_words(dim);
    let most = (segment_bytes / row_bytes).max(1);
    let size = labels.div_ceil(labels.div_ceil(most));
    (0..labels)
        .step_by(size)
        .map(|first| Segment { first_label: first as u64, labels: size.min(labels - first), dim, precision, head })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_label_once_within_the_limit() {
        for (labels, limit) in [(1, 1), (10, 1 << 30), (1000, 40_000), (1001, 33 * 64)] {
            let segments = segments(labels, 50, Format::E4m3, None, limit);
            let mut next = 0;
            for segment in &segments {
                assert_eq!(segment.first_label, next);
                assert!(segment.words() * 4 <= limit.max(64));
                next += segment.labels as u64;
            }
            assert_eq!(next, labels as u64);
        }
    }
}
