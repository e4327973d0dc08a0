//! How a classifier is cut into buffers and chunks, and what it will occupy.

use elmo_kernels::{Head, Precision, Segment, padded_batch};

/// Bytes of logits and decoded weights that a chunk may take on a CPU: what its caches hold.
const CHUNK_BYTES: usize = 4 << 20;

/// Bytes of a chunk's scores in a search on a GPU.
const GPU_SCORES_BYTES: usize = 32 << 20;
/// Bytes of a chunk's gradient on a GPU: so many and a 24th of the weights, but not more than the last number.
const GPU_GRADIENT_BYTES: usize = 20 << 20;
const MOST_GPU_GRADIENT_BYTES: usize = 128 << 20;

/// The segments of a classifier: as few as `segment_bytes` allows, all but the last of equal size.
pub(super) fn segments(
    labels: usize,
    dim: usize,
    precision: Precision,
    head: Option<Head>,
    segment_bytes: usize,
) -> Vec<Segment> {
    let row_bytes = 4 * precision.row_words(dim);
    let most = (segment_bytes / row_bytes).max(1);
    let size = labels.div_ceil(labels.div_ceil(most));
    (0..labels)
        .step_by(size)
        .map(|first| Segment {
            first_label: first as u64,
            labels: size.min(labels - first),
            dim,
            precision,
            head,
        })
        .collect()
}

/// Labels whose logits exist at one time, for a batch of `batch` rows.
///
/// On a CPU what its caches hold; on a GPU so many that launching their kernels takes little time beside running them:
/// the more weights, the more labels. There a step keeps them in 16 bits, a search in 32.
pub(super) fn default_chunk(on_cpu: bool, search: bool, dim: usize, batch: usize, weight_bytes: u64) -> usize {
    if on_cpu {
        (CHUNK_BYTES / (4 * (dim + batch))).clamp(64, 8192)
    } else {
        let of_weights = usize::try_from(weight_bytes / 24).unwrap_or(usize::MAX);
        let (bytes, most) = match search {
            true => (4, GPU_SCORES_BYTES),
            false => (
                2,
                (GPU_GRADIENT_BYTES.saturating_add(of_weights)).min(MOST_GPU_GRADIENT_BYTES),
            ),
        };
        // A chunk takes the same memory for every batch size.
        (most / (bytes * padded_batch(batch))).max(256)
    }
}

/// Bytes that a chunk takes on a CPU: its decoded weights and logits in F32, and positives aside nothing else.
pub(super) fn chunk_bytes(chunk: usize, dim: usize, batch: usize) -> u64 {
    4 * chunk as u64 * (dim + batch) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_of_a_large_classifier_takes_the_same_memory_for_every_batch() {
        const MIB: usize = 1 << 20;
        for batch in [1, 64, 65, 128, 129, 192, 256, 257, 300, 512, 700] {
            let chunk = default_chunk(false, false, 768, batch, 500 << 20);
            let bytes = 2 * chunk * padded_batch(batch);
            let most = 20 * MIB + 500 * MIB / 24;
            assert!((most - MIB..=most).contains(&bytes), "{batch}: {bytes}");
        }
    }

    #[test]
    fn segments_cover_every_label_once_within_the_limit() {
        for (labels, limit) in [(1, 1), (10, 1 << 30), (1000, 40_000), (1001, 33 * 64)] {
            let segments = segments(labels, 50, Precision::E4m3, None, limit);
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
