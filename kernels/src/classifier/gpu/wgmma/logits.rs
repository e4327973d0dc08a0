//! Logits of a chunk, turned into the gradient of the binary cross-entropy before they leave the registers; or, for a
//! search, into the best score of every 16 labels.

use cubecl::prelude::*;

use super::stream::{Places, ROWS, Share, Stream, copy, multiplies, places, share, sums, wait_for_block};
use crate::{
    classifier::gpu::common::loss::{scaled_sigmoid, softplus},
    gpu::{
        ptx::{Words4, pack},
        wgmma::{WARPGROUP, Word, load_shared_f32, store_16, store_shared_f32, sync_warpgroup},
    },
    numbers::Format,
};

/// Labels whose best score a search keeps: the rows of a plane.
pub const GROUP: usize = 16;

/// What becomes of the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// `sigmoid(Z)` in 16 bits, for training.
    Gradient {
        half: Format,
        /// Less 1 at the positives.
        positives: bool,
        /// Also the sum of `log(1 + exp(Z))` over each 64 labels.
        loss: bool,
    },
    /// The largest `Z` of every [`GROUP`] labels.
    Maxima,
}

/// How the logits are computed, and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogitsProduct {
    pub stream: Stream,
    pub epilogue: Epilogue,
}

impl Epilogue {
    /// The format of the gradient.
    fn half(self) -> Format {
        match self {
            Self::Gradient { half, .. } => half,
            Self::Maxima => Format::F16,
        }
    }

    fn with_loss(self) -> bool {
        matches!(self, Self::Gradient { loss: true, .. })
    }

    fn has_positives(self) -> bool {
        matches!(self, Self::Gradient { positives: true, .. })
    }
}

/// Sizes of [`logits()`].
#[derive(CubeType, CubeLaunch)]
pub struct LogitsArgs {
    /// The rows of the segment that are multiplied.
    pub first: u32,
    pub labels: u32,
    /// Rows of `X`.
    pub batch: u32,
    /// The width of the result: rows of `X` with padding.
    pub columns: u32,
}

/// `Z = W X^T` for some rows of the segment; see [`stream`](super::stream). `R` is half the stream's columns.
///
/// # Shapes
/// - `words`: the segment's weights
/// - `x`: `[columns, depth]`, see [`rows`](super::operands::rows())
/// - `out`: the gradient, `[labels, columns]` of 16 bits; or the maxima, `[groups, columns]` of 32
/// - `losses`: `[64 labels of the segment, gridDim.x]`
/// - `pairs`, `values`, `starts`: see [`positives`](super::positives)
#[cube(launch_unchecked)]
pub fn logits<R: Size>(
    words: &TensorMap<Word, Tiled>,
    x: &TensorMap<Word, Tiled>,
    out: &mut [Words4],
    losses: &mut [f32],
    pairs: &[u32],
    values: &[u32],
    starts: &[u32],
    args: &LogitsArgs,
    #[comptime] product: LogitsProduct,
) {
    let stream = comptime!(product.stream);
    let epilogue = comptime!(product.epilogue);
    let share = share(args.labels, stream);
    let places = places(share.warpgroup, stream);
    if multiplies() {
        wait_for_block(&places);
        let mut tile = share.first_tile;
        let mut count = 0u32.runtime();
        while tile < share.tiles {
            let tile_of_segment = (args.first / comptime!(ROWS as u32) + tile) as usize;
            // Asked for early, so that they are there when the sums are.
            let mut positives_from = 0u32.runtime();
            let mut positives_to = 0u32.runtime();
            if comptime!(epilogue.has_positives()) {
                positives_from = starts[tile_of_segment];
                positives_to = starts[tile_of_segment + 1];
            }
            let sums = sums::<R>(&places, count, stream);
            count += comptime!(stream.rounds());
            let place = TilePlace { first_row: tile * comptime!(ROWS as u32), number: tile_of_segment };
            match comptime!(epilogue) {
                Epilogue::Maxima => {
                    store_maxima::<R>(sums, out, &share, &place, args, stream);
                }
                Epilogue::Gradient { .. } => {
                    store_gradient::<R>(sums, out, losses, &places, &share, &place, args, product);
                }
            }
            if positives_from < positives_to {
                // What this warpgroup has just stored is replaced.
                sync_warpgroup(share.warpgroup);
                let mut at = positives_from + UNIT_POS % WARPGROUP;
                while at < positives_to {
                    let label = pairs[(2u32 * at) as usize] - args.first;
                    let column = pairs[(2u32 * at + 1u32) as usize];
                    if column >= share.block && column < share.block + comptime!(stream.columns) {
                        let to = u64::cast_from(label) * u64::cast_from(args.columns) + u64::cast_from(column);
                        store_16(out, to * 2u64, values[at as usize]);
                    }
                    at += WARPGROUP;
                }
                // All lanes begin the next products together.
                sync_plane();
            }
            tile += share.step;
        }
    } else {
        copy(&places, &share, words, x, args.first, stream);
    }
}

/// One tile of 64 labels.
#[derive(CubeType, Clone, Copy)]
struct TilePlace {
    /// Its first label in the chunk.
    first_row: u32,
    /// Its number in the segment.
    number: usize,
}

/// A unit's first row in a tile of its warpgroup, and its first column of every 32.
#[cube]
fn unit_place() -> (u32, u32) {
    let lane = UNIT_POS % 32u32;
    (UNIT_POS % WARPGROUP / 32u32 * 16u32 + lane / 4u32, lane % 4u32 * 8u32)
}

#[cube]
fn store_gradient<R: Size>(
    sums: Vector<f32, R>,
    out: &mut [Words4],
    losses: &mut [f32],
    places: &Places,
    share: &Share,
    tile: &TilePlace,
    args: &LogitsArgs,
    #[comptime] product: LogitsProduct,
) {
    let stream = comptime!(product.stream);
    let half_type = comptime!(product.epilogue.half());
    let with_loss = comptime!(product.epilogue.with_loss());
    let columns = args.columns;
    let labels = args.labels;
    let (row, column) = unit_place();
    let row = tile.first_row + row;
    let column = share.block + column;
    let mut loss = 0.0f32.runtime();
    #[unroll]
    for half in 0..2usize {
        let row = row + comptime!(8 * half as u32);
        if row < labels {
            let at = row as usize * (columns / 8u32) as usize + (column / 8u32) as usize;
            #[unroll]
            for part in 0..comptime!((stream.columns / 32) as usize) {
                let mut pairs = Words4::empty();
                #[unroll]
                for i in 0..4usize {
                    let sum = comptime!(16 * part + 4 * i + 2 * half);
                    let low = sums.extract(sum);
                    let high = sums.extract(comptime!(sum + 1));
                    pairs.insert(i, pack(scaled_sigmoid(low, half_type), scaled_sigmoid(high, half_type), half_type));
                    if comptime!(with_loss) {
                        let column = column + comptime!(32 * part as u32 + 2 * i as u32);
                        loss += select(column < args.batch, softplus(low), 0.0f32);
                        loss += select(column + 1u32 < args.batch, softplus(high), 0.0f32);
                    }
                }
                out[at + comptime!(4 * part)] = pairs;
            }
        }
    }
    if comptime!(with_loss) {
        let plane_loss = plane_sum(loss);
        let plane = UNIT_POS % WARPGROUP / 32u32;
        if UNIT_POS_PLANE == 0u32 {
            store_shared_f32(places.scratch + plane * 4u32, plane_loss);
        }
        sync_warpgroup(share.warpgroup);
        if plane == 0u32 && UNIT_POS_PLANE == 0u32 {
            let mut loss = 0.0f32.runtime();
            #[unroll]
            for plane in 0..4u32 {
                loss += load_shared_f32(places.scratch + comptime!(plane * 4));
            }
            losses[tile.number * CUBE_COUNT_X as usize + CUBE_POS_X as usize] = loss;
        }
        // The next tile's sums may not come before.
        sync_warpgroup(share.warpgroup);
    }
}

/// Each lane ends with the maxima of four neighbouring columns over the rows of its plane. NaN is passed over.
#[cube]
fn store_maxima<R: Size>(
    sums: Vector<f32, R>,
    out: &mut [Words4],
    share: &Share,
    tile: &TilePlace,
    args: &LogitsArgs,
    #[comptime] stream: Stream,
) {
    let labels = args.labels;
    let columns = args.columns;
    let lane = UNIT_POS % 32u32;
    let (row, column) = unit_place();
    let row = tile.first_row + row;
    let nothing = f32::reinterpret(0xff80_0000u32.runtime());
    let count = comptime!((stream.columns / 4) as usize);
    let mut best = Array::<f32>::new(count);
    #[unroll]
    for at in 0..count {
        let sum = comptime!(at / 2 * 4 + at % 2);
        let upper = select(row < labels, sums.extract(sum), nothing);
        let lower = select(row + 8u32 < labels, sums.extract(comptime!(sum + 2)), nothing);
        best[at] = f32::max(f32::max(upper, nothing), lower);
    }
    // Rows lie in the upper three bits of the lane. As long as a lane has more than four columns it gives half of them
    // away.
    let mut column = share.block + column;
    #[unroll]
    for level in 0..3u32 {
        let mask = comptime!(16u32 >> level);
        let upper = lane & mask != 0u32;
        let half = comptime!((count >> level) / 2);
        if comptime!(half >= 4) {
            #[unroll]
            for at in 0..half {
                let keep = select(upper, best[comptime!(at + half)], best[at]);
                let give = select(upper, best[at], best[comptime!(at + half)]);
                best[at] = f32::max(keep, plane_shuffle_xor(give, mask));
            }
            // A half of at least eight sums is whole blocks of 32 columns.
            let distance = comptime!(if half >= 8 { 4 * half as u32 } else { 4 });
            column += select(upper, distance.runtime(), 0u32.runtime());
        } else {
            #[unroll]
            for at in 0..4usize {
                best[at] = f32::max(best[at], plane_shuffle_xor(best[at], mask));
            }
        }
    }
    let group = tile.first_row / comptime!(GROUP as u32) + UNIT_POS % WARPGROUP / 32u32;
    let stores = comptime!(stream.columns == 128) || lane & 4u32 == 0u32;
    if stores && group * comptime!(GROUP as u32) < labels {
        let mut words = Words4::empty();
        #[unroll]
        for at in 0..4usize {
            words.insert(at, u32::reinterpret(best[at]));
        }
        out[(group as usize * columns as usize + column as usize) / 4] = words;
    }
}
