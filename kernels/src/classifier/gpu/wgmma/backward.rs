//! The two products with the gradient of a chunk in one pass over its weights: the input gradient `G^T W`, and the
//! weight gradient `G X` with the update in place.
//!
//! A cube has 128 features and some of the labels, 128 at a time. The copy engine brings their gradients and weights;
//! `X` of its features stays in shared memory. Of the input gradient each of two warpgroups sums 64 features over all
//! its labels, in registers, from chunk to chunk; of the weight gradient it computes 64 labels, and updates them while
//! the other multiplies.
//!
//! It is the transposed input gradient, `W^T G`, so that the codes of the weights are the left operand, which may come
//! from registers: they are transposed and decoded on their way there. `G` serves both products as it lies.
//!
//! Which cube takes a label depends on the label's place in the segment alone, and each goes through its labels in
//! ascending order. So the input gradient is the same, bit for bit, wherever chunks are cut.

use cubecl::prelude::*;

use super::update::{Quarter, RowPlace, update_place};
use crate::{
    classifier::gpu::common::run::{UpdateArgs, UpdateRule, key_of_row},
    gpu::{
        ptx::{Words4, decode_e4m3, load_16, load_matrices, permute_bytes, shared_address},
        wgmma::{
            Product, ROW_BYTES, ROW_WORDS, WARPGROUP, Walk, Word, barrier_arrive, barrier_expect, barrier_init,
            barrier_wait, begin_multiply_add_registers, copy_tile, descriptor, finish, give_back_registers, multiply,
            multiply_add_registers, publish_barriers, take_registers,
        },
    },
    numbers::Format,
};

/// Labels that a cube takes at a time.
pub const LABELS: usize = 128;
/// Features of a cube.
pub const FEATURES: usize = 128;
/// Rows of the batch at most.
pub const MAX_BATCH: usize = 256;
/// Units of a cube: two warpgroups that multiply, and one of which a single unit asks for the copies.
pub const UNITS: u32 = 3 * WARPGROUP;
/// Bytes of a tile of 128 rows.
const TILE: u32 = 128 * ROW_BYTES;

/// Two numbers of neighbouring features.
pub type Pair = Vector<f32, Const<2>>;

/// What a cube holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackwardTile {
    /// Rows of the batch: 64, 128 or 256.
    pub batch: u32,
    /// Blocks of labels in shared memory.
    pub stages: u32,
    /// How weights are updated; `None` to compute the input gradient alone.
    pub update: Option<UpdateRule>,
}

impl BackwardTile {
    /// With as many stages as shared memory allows.
    pub fn new(batch: usize, update: Option<UpdateRule>, shared_bytes: usize) -> Option<Self> {
        let backward = Self { batch: batch as u32, stages: 0, update };
        let rest = (shared_bytes as u32).checked_sub(backward.x_bytes() + 16)?;
        let stages = (rest / (backward.stage_bytes() + 16)).min(4);
        (stages >= 2).then_some(Self { stages, ..backward })
    }

    /// Tiles of 64 rows of the batch.
    const fn tiles(self) -> u32 {
        self.batch / ROW_WORDS as u32
    }

    const fn x_bytes(self) -> u32 {
        if self.update.is_some() { self.tiles() * TILE } else { 0 }
    }

    /// Gradients, then weights.
    const fn stage_bytes(self) -> u32 {
        (self.tiles() + 1) * TILE
    }

    const fn shared_parts(self) -> usize {
        (self.x_bytes() + self.stages * (self.stage_bytes() + 16) + 8).div_ceil(16) as usize
    }

    /// 64 labels by 128 features, over the batch.
    const fn weight_gradient(self) -> Product {
        Product {
            operand: Format::F16,
            columns: FEATURES as u32,
            steps: self.batch / 16,
            left: Walk::along_rows(TILE),
            right: Walk::along_rows(TILE),
            left_across: None,
            right_across: None,
        }
    }

    /// 64 features by the batch, over all labels of a block.
    const fn input_gradient(self) -> Product {
        Product {
            operand: Format::F16,
            columns: self.batch,
            steps: LABELS as u32 / 16,
            left: Walk::along_rows(0),
            right: Walk::across_rows(),
            left_across: None,
            right_across: Some(TILE),
        }
    }

    /// Whether the input gradient is computed while weights are updated, as far as there are registers enough.
    const fn overlaps(self) -> bool {
        self.update.is_some() && self.batch <= 128
    }

    /// Registers of a unit that multiplies and of one that copies, where the even share of 168 is too little.
    const fn registers(self) -> Option<(u32, u32)> {
        if self.update.is_some() || self.batch > 128 { Some((240, 24)) } else { None }
    }
}

/// Sizes of [`backward()`].
#[derive(CubeType, CubeLaunch)]
pub struct BackwardArgs {
    /// The rows of the segment that are multiplied.
    pub first: u32,
    pub labels: u32,
    /// 16-byte parts of a row of weights.
    pub row_parts: usize,
    /// Rows of the batch and features, in whole blocks.
    pub batch: usize,
    pub features: usize,
    /// Not used where weights are not updated.
    pub update: UpdateArgs,
}

/// Adds `G^T W` of some rows of the segment to the workspace, and updates these weights if asked to. `R` is half the
/// batch.
///
/// # Shapes
/// - `words_map`, `words`: the segment's weights
/// - `gradient`: `[labels, batch]`, 16 bits, multiplied by its scale, see [`UpdateArgs`]; of this the block
///   `CUBE_POS_Z` of `backward.batch` rows of the batch
/// - `x`: `[features, batch]`, see [`columns_word`](crate::classifier::gpu::common::operands::columns_word)
/// - `compensation`: any length where no row keeps one
/// - `workspace`: `[gridDim.y, batch, features]`, in pairs
/// - `non_finite`: `[1]`
#[cube(launch_unchecked)]
pub fn backward<R: Size>(
    words_map: &TensorMap<Word, Tiled>,
    gradient: &TensorMap<Word, Tiled>,
    x: &TensorMap<Word, Tiled>,
    words: &mut [Words4],
    compensation: &mut [Words4],
    workspace: &mut [Pair],
    non_finite: &[Atomic<u32>],
    args: &BackwardArgs,
    #[comptime] backward: BackwardTile,
) {
    let first = args.first;
    let labels = args.labels;
    let batch = args.batch;
    let features = args.features;
    let memory = Shared::<[Words4]>::new_aligned_slice(comptime!(backward.shared_parts()), 1024usize);
    let x_at = shared_address(&memory);
    let stages_at = x_at + comptime!(backward.x_bytes());
    let x_full = stages_at + comptime!(backward.stages * backward.stage_bytes());
    let full = x_full + 8u32;
    let empty = full + comptime!(backward.stages * 8);
    if UNIT_POS == 0u32 {
        barrier_init(x_full, 1u32);
        for stage in 0..comptime!(backward.stages) {
            barrier_init(full + stage * 8u32, 1u32);
            barrier_init(empty + stage * 8u32, 8u32);
        }
        publish_barriers();
    }
    sync_cube();

    // The blocks of this chunk that are dealt to this cube.
    let cubes = CUBE_COUNT_Y;
    let first_block = first / comptime!(LABELS as u32);
    let blocks = (labels + comptime!(LABELS as u32 - 1)) / comptime!(LABELS as u32);
    let mut block = (CUBE_POS_Y + cubes - first_block % cubes) % cubes;
    let batch_block = CUBE_POS_Z * comptime!(backward.batch);
    let mut stage = 0u32.runtime();
    let mut parity = 0u32.runtime();

    if UNIT_POS < comptime!(2 * WARPGROUP) {
        if comptime!(backward.registers().is_some()) {
            take_registers(comptime!(backward.registers().unwrap().0));
        }
        let warpgroup = UNIT_POS / WARPGROUP;
        let plane = UNIT_POS % WARPGROUP / 32u32;
        let lane = UNIT_POS % 32u32;
        let (g, t) = (lane / 4u32, lane % 4u32);

        // Sums of the features `2 g` and `2 g + 1` of the plane's 16, of the rows `8 j + 2 t` and one further.
        let feature = CUBE_POS_X * comptime!(FEATURES as u32) + warpgroup * 64u32 + plane * 16u32 + 2u32 * g;
        let place = (CUBE_POS_Y as usize * batch + (batch_block + 2u32 * t) as usize) * features + feature as usize;
        let mut sums = Vector::<f32, R>::new(0.0f32);
        if first > 0u32 {
            #[unroll]
            for j in 0..comptime!((backward.batch / 8) as usize) {
                #[unroll]
                for e in 0..2usize {
                    let pair = workspace[(place + comptime!(8 * j + e) * features) / 2];
                    sums.insert(comptime!(4 * j + e), pair.extract(0usize));
                    sums.insert(comptime!(4 * j + 2 + e), pair.extract(1usize));
                }
            }
        }
        if comptime!(backward.update.is_some()) {
            barrier_wait(x_full, 0u32);
        }
        let mut refused = 0u32.runtime();

        while block < blocks {
            barrier_wait(full + stage * 8u32, parity);
            let gradient_at = stages_at + stage * comptime!(backward.stage_bytes());
            let words_at = gradient_at + comptime!(backward.tiles() * TILE);
            let weights = transposed_weights(words_at, warpgroup * 4u32 + plane);
            if comptime!(!backward.overlaps()) {
                sums = multiply_add_registers::<R, Const<32>>(
                    sums,
                    weights,
                    descriptor(gradient_at),
                    comptime!(backward.input_gradient()),
                );
            }
            if comptime!(backward.update.is_some()) {
                let update = comptime!(backward.update.unwrap());
                let weight_gradient = multiply::<Const<64>>(
                    descriptor(gradient_at + warpgroup * comptime!(64 * ROW_BYTES)),
                    descriptor(x_at),
                    comptime!(backward.weight_gradient()),
                );
                if comptime!(backward.overlaps()) {
                    sums = begin_multiply_add_registers::<R, Const<32>>(
                        sums,
                        weights,
                        descriptor(gradient_at),
                        comptime!(backward.input_gradient()),
                    );
                }
                let row_of_block = warpgroup * 64u32 + plane * 16u32 + g;
                #[unroll]
                for half in 0..2usize {
                    let row_of_block = row_of_block + comptime!(8 * half as u32);
                    let row = block * comptime!(LABELS as u32) + row_of_block;
                    if row < labels {
                        let row = first + row;
                        let place = RowPlace {
                            row: row as usize,
                            row_parts: args.row_parts,
                            key: key_of_row(&args.update, row),
                        };
                        #[unroll]
                        for i in 0..2usize {
                            let part = (comptime!(4 * i as u32) + t) ^ g;
                            let old = load_16(words_at + row_of_block * ROW_BYTES + part * 16u32);
                            refused += update_place(
                                weight_gradient,
                                old,
                                words,
                                compensation,
                                &place,
                                &args.update,
                                comptime!(Quarter { half, i }),
                                update,
                            );
                        }
                    }
                }
                // Lanes come from different branches of the update. They must issue the wait for `wgmma` together, and
                // none may still read the weights when their memory is given back.
                sync_plane();
                if comptime!(backward.overlaps()) {
                    sums = finish::<R, Const<32>>(sums, weights, comptime!(backward.input_gradient()));
                }
            }
            if lane == 0u32 {
                barrier_arrive(empty + stage * 8u32);
            }
            block += cubes;
            stage += 1u32;
            if stage == comptime!(backward.stages) {
                stage = 0u32.runtime();
                parity ^= 1u32;
            }
        }

        #[unroll]
        for j in 0..comptime!((backward.batch / 8) as usize) {
            #[unroll]
            for e in 0..2usize {
                let mut pair = Pair::empty();
                pair.insert(0usize, sums.extract(comptime!(4 * j + e)));
                pair.insert(1usize, sums.extract(comptime!(4 * j + 2 + e)));
                workspace[(place + comptime!(8 * j + e) * features) / 2] = pair;
            }
        }
        if refused > 0u32 {
            non_finite[0].fetch_add(refused);
        }
    } else {
        if comptime!(backward.registers().is_some()) {
            give_back_registers(comptime!(backward.registers().unwrap().1));
        }
        if UNIT_POS == comptime!(2 * WARPGROUP) {
            if comptime!(backward.update.is_some()) {
                barrier_expect(x_full, comptime!(backward.x_bytes()));
                for tile in 0..comptime!(backward.tiles()) {
                    copy_tile(
                        x_at + tile * TILE,
                        x,
                        tile * comptime!(ROW_WORDS as u32),
                        CUBE_POS_X * comptime!(FEATURES as u32),
                        x_full,
                    );
                }
            }
            while block < blocks {
                let barrier = full + stage * 8u32;
                barrier_wait(empty + stage * 8u32, parity ^ 1u32);
                barrier_expect(barrier, comptime!(backward.stage_bytes()));
                let to = stages_at + stage * comptime!(backward.stage_bytes());
                let row = block * comptime!(LABELS as u32);
                copy_tile(
                    to + comptime!(backward.tiles() * TILE),
                    words_map,
                    CUBE_POS_X * comptime!(ROW_WORDS as u32),
                    first + row,
                    barrier,
                );
                for tile in 0..comptime!(backward.tiles()) {
                    copy_tile(
                        to + tile * TILE,
                        gradient,
                        batch_block + tile * comptime!(ROW_WORDS as u32),
                        row,
                        barrier,
                    );
                }
                block += cubes;
                stage += 1u32;
                if stage == comptime!(backward.stages) {
                    stage = 0u32.runtime();
                    parity ^= 1u32;
                }
            }
        }
    }
}

/// A unit's fragments of the transposed weights of a block, for eight steps of 16 labels: the 16 features of part
/// `part` are the rows, row `g` feature `2 g` and row `g + 8` feature `2 g + 1`.
#[cube]
fn transposed_weights(labels_at: u32, part: u32) -> Vector<u32, Const<32>> {
    let lane = UNIT_POS % 32u32;
    // Matrices of 8 labels by 8 pairs of features; transposed, a lane has the pair `g` of the labels `2 t` and `2 t +
    // 1`.
    let at = labels_at + lane * ROW_BYTES + (part ^ (lane % 8u32)) * 16u32;
    let mut fragments = Vector::<u32, Const<32>>::empty();
    #[unroll]
    for step in 0..4usize {
        let codes = load_matrices(at + comptime!(32 * step as u32 * ROW_BYTES), true);
        #[unroll]
        for m in 0..4usize {
            // Both labels of the one feature, then of the other.
            let word = codes.extract(m);
            let pairs = decode_e4m3(permute_bytes(word, word, 0x3120u32), true);
            fragments.insert(comptime!(8 * step + 2 * m), pairs.extract(0usize));
            fragments.insert(comptime!(8 * step + 2 * m + 1), pairs.extract(1usize));
        }
    }
    fragments
}
