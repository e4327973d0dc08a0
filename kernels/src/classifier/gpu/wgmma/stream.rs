//! Rows that stream past an operand that stays: `C = A B^T` for an `A` with very many rows and a `B` with few.
//!
//! A cube keeps one block of `B` in shared memory for as long as it lives. Its two warpgroups each take 64 rows of `A`
//! at a time, a slab of 128 bytes of each row after the other, from a ring of slabs of their own that the copy engine
//! fills. So they wait for nothing but their own copies, and one multiplies while the other is busy with what it does
//! with its sums.
//!
//! A sum runs over the depth in an order that no other row or column takes part in: the same bits wherever chunks are
//! cut.

use cubecl::prelude::*;

use crate::gpu::{
    ptx::{Words4, decode_e4m3, load_matrices, shared_address},
    wgmma::{
        Product, ROW_BYTES, ROW_WORDS, WARPGROUP, Walk, Word, barrier_arrive, barrier_expect, barrier_init,
        barrier_wait, copy_tile, descriptor, multiply, multiply_add, multiply_add_registers, publish_barriers,
    },
};
use crate::numbers::Format;

/// Rows of `A` that a warpgroup takes at a time.
pub const ROWS: usize = 64;
/// Warpgroups of a cube that multiply.
pub const WARPGROUPS: usize = 2;
/// Units of a cube: those, and one plane each that asks for its copies.
pub const UNITS: u32 = WARPGROUPS as u32 * (WARPGROUP + 32);
/// Bytes of shared memory that a warpgroup has for its epilogue.
const SCRATCH: u32 = 16;
/// Bytes of a slab of `A`.
const SLAB: u32 = ROWS as u32 * ROW_BYTES;

/// How the operands lie in memory and are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Multiplied {
    /// E4M3 codes by E4M3 codes. Few slabs are summed by the instruction, which keeps fewer bits than F32 has; their
    /// sums in F32.
    Codes,
    /// E4M3 codes, decoded to F16 on their way into the registers, by F16.
    Decoded,
    /// 16-bit numbers by 16-bit numbers.
    Half(Format),
}

impl Multiplied {
    /// Tiles of `B` that a slab of `A` meets.
    const fn tiles(self) -> u32 {
        match self {
            Self::Codes | Self::Half(_) => 1,
            Self::Decoded => 2,
        }
    }

    /// Numbers of a row of a slab of `A`.
    pub const fn depth(self) -> usize {
        match self {
            Self::Codes | Self::Decoded => 128,
            Self::Half(_) => 64,
        }
    }
}

/// What a cube holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    pub operands: Multiplied,
    /// Rows of the block of `B`, columns of `C`.
    pub columns: u32,
    /// Slabs of a row of `A`.
    pub slabs: u32,
    /// Slabs that are copied and multiplied at a time.
    pub width: u32,
    /// Stages in each warpgroup's ring.
    pub stages: u32,
}

impl Stream {
    /// With rings as long as shared memory allows; `None` if they would be too short.
    pub fn new(operands: Multiplied, columns: usize, slabs: usize, shared_bytes: usize) -> Option<Self> {
        let with_width = |width| {
            let stream = Self { operands, columns: columns as u32, slabs: slabs as u32, width, stages: 0 };
            // 16 bytes of barriers a stage, the block's barrier, and what an epilogue needs.
            let rest = (shared_bytes as u32).checked_sub(stream.block_bytes() + 64)?;
            let stages = (rest / (WARPGROUPS as u32 * (stream.stage_bytes() + 16))).min(8);
            (stages >= 2).then_some(Self { stages, ..stream })
        };
        let wide = operands != Multiplied::Decoded && slabs.is_multiple_of(2);
        (if wide { with_width(2) } else { None }).or_else(|| with_width(1))
    }

    /// Words of a row of `B`.
    pub const fn row_words(self) -> usize {
        (self.slabs * self.operands.tiles() * ROW_BYTES / 4) as usize
    }

    const fn tile_bytes(self) -> u32 {
        self.columns * ROW_BYTES
    }

    const fn stage_bytes(self) -> u32 {
        self.width * SLAB
    }

    /// Copies of a row of `A`.
    pub const fn rounds(self) -> u32 {
        self.slabs / self.width
    }

    const fn block_bytes(self) -> u32 {
        self.slabs * self.operands.tiles() * self.tile_bytes()
    }

    /// Parts of 16 bytes of shared memory.
    const fn shared_parts(self) -> usize {
        let barriers = 1 + WARPGROUPS as u32 * 2 * self.stages;
        let rings = WARPGROUPS as u32 * self.stages * self.stage_bytes();
        let bytes = self.block_bytes() + rings + barriers * 8;
        (bytes + SCRATCH * WARPGROUPS as u32).div_ceil(16) as usize
    }

    /// The instructions for one tile of `B`, from shared memory or registers.
    const fn product(self) -> Product {
        Product {
            operand: match self.operands {
                Multiplied::Codes => Format::E4m3,
                Multiplied::Decoded => Format::F16,
                Multiplied::Half(format) => format,
            },
            columns: self.columns,
            steps: 4 * self.width,
            left: Walk::along_rows(SLAB),
            right: Walk::along_rows(self.tile_bytes()),
            left_across: None,
            right_across: None,
        }
    }
}

/// Addresses in shared memory.
#[derive(CubeType)]
pub struct Places {
    block: u32,
    block_full: u32,
    ring: u32,
    full: u32,
    empty: u32,
    /// 16 bytes for the epilogue.
    pub scratch: u32,
}

/// Shared memory and barriers; for all units of the cube. `warpgroup` is that whose ring the unit fills or empties.
#[cube]
pub fn places(warpgroup: u32, #[comptime] stream: Stream) -> Places {
    let memory = Shared::<[Words4]>::new_aligned_slice(comptime!(stream.shared_parts()), 1024usize);
    let block = shared_address(&memory);
    let rings = block + comptime!(stream.block_bytes());
    let block_full = rings + comptime!(WARPGROUPS as u32 * stream.stages * stream.stage_bytes());
    let barriers = block_full + 8u32;
    let full = barriers + warpgroup * comptime!(stream.stages * 16);
    if UNIT_POS == 0u32 {
        barrier_init(block_full, 1u32);
        for ring in 0..comptime!(WARPGROUPS as u32) {
            for stage in 0..comptime!(stream.stages) {
                let full = barriers + (ring * comptime!(2 * stream.stages) + stage) * 8u32;
                barrier_init(full, 1u32);
                barrier_init(full + comptime!(stream.stages * 8), 4u32);
            }
        }
        publish_barriers();
    }
    sync_cube();
    Places {
        block,
        block_full,
        ring: rings + warpgroup * comptime!(stream.stages * stream.stage_bytes()),
        full,
        empty: full + comptime!(stream.stages * 8),
        scratch: barriers + comptime!(WARPGROUPS as u32 * 2 * stream.stages * 8) + warpgroup * SCRATCH,
    }
}

/// What a unit's warpgroup computes.
#[derive(CubeType, Clone, Copy)]
pub struct Share {
    pub warpgroup: u32,
    /// The first row of the cube's block of `B`.
    pub block: u32,
    /// Tiles of 64 rows of `A`; this warpgroup computes those from `first_tile` on, each `step` further.
    pub tiles: u32,
    pub first_tile: u32,
    pub step: u32,
}

/// The share of this unit's warpgroup of the product of `rows` rows of `A`.
#[cube]
pub fn share(rows: u32, #[comptime] stream: Stream) -> Share {
    let warpgroup = warpgroup_of_unit();
    Share {
        warpgroup,
        block: CUBE_POS_X * comptime!(stream.columns),
        tiles: (rows + comptime!(ROWS as u32 - 1)) / comptime!(ROWS as u32),
        first_tile: CUBE_POS_Y * comptime!(WARPGROUPS as u32) + warpgroup,
        step: CUBE_COUNT_Y * comptime!(WARPGROUPS as u32),
    }
}

/// The warpgroup that this unit belongs to or copies for.
#[cube]
fn warpgroup_of_unit() -> u32 {
    let mut warpgroup = UNIT_POS / WARPGROUP;
    if !multiplies() {
        warpgroup = UNIT_POS / 32u32 % comptime!(WARPGROUPS as u32 * 4);
    }
    warpgroup
}

/// Whether this unit multiplies. The others [`copy`].
#[cube]
pub fn multiplies() -> bool {
    UNIT_POS < comptime!(WARPGROUPS as u32 * WARPGROUP)
}

/// Copies what the unit's warpgroup will multiply: the block of `B`, and its tiles of `A`, counted from row `first`.
#[cube]
pub fn copy(
    places: &Places,
    share: &Share,
    a: &TensorMap<Word, Tiled>,
    b: &TensorMap<Word, Tiled>,
    first: u32,
    #[comptime] stream: Stream,
) {
    if UNIT_POS_PLANE == 0u32 {
        if share.warpgroup == 0u32 {
            barrier_expect(places.block_full, comptime!(stream.block_bytes()));
            for tile in 0..comptime!(stream.slabs * stream.operands.tiles()) {
                copy_tile(
                    places.block + tile * comptime!(stream.tile_bytes()),
                    b,
                    tile * comptime!(ROW_WORDS as u32),
                    share.block,
                    places.block_full,
                );
            }
        }
        let mut tile = share.first_tile;
        let mut count = 0u32.runtime();
        while tile < share.tiles {
            for round in 0..comptime!(stream.rounds()) {
                let stage = count % comptime!(stream.stages);
                let parity = (count / comptime!(stream.stages) + 1u32) % 2u32;
                let full = places.full + stage * 8u32;
                barrier_wait(places.empty + stage * 8u32, parity);
                barrier_expect(full, comptime!(stream.stage_bytes()));
                #[unroll]
                for slab in 0..comptime!(stream.width) {
                    copy_tile(
                        places.ring + stage * comptime!(stream.stage_bytes()) + comptime!(slab * SLAB),
                        a,
                        (round * comptime!(stream.width) + slab) * comptime!(ROW_WORDS as u32),
                        first + tile * comptime!(ROWS as u32),
                        full,
                    );
                }
                count += 1u32;
            }
            tile += share.step;
        }
    }
}

/// Waits for the block of `B`.
#[cube]
pub fn wait_for_block(places: &Places) {
    barrier_wait(places.block_full, 0u32);
}

/// The sums of the next 64 rows, see [`multiply`] for their order. `count` stages have been used before.
#[cube]
pub fn sums<R: Size>(places: &Places, count: u32, #[comptime] stream: Stream) -> Vector<f32, R> {
    let left = descriptor(places.ring);
    let right = descriptor(places.block);
    let mut sums = Vector::<f32, R>::new(0.0f32);
    for round in 0..comptime!(stream.rounds()) {
        let stage = (count + round) % comptime!(stream.stages);
        let parity = (count + round) / comptime!(stream.stages) % 2u32;
        barrier_wait(places.full + stage * 8u32, parity);
        let left = left + stage * comptime!(stream.stage_bytes() / 16);
        let right = right + round * comptime!(stream.width * stream.operands.tiles() * stream.tile_bytes() / 16);
        match comptime!(stream.operands) {
            Multiplied::Codes => {
                let partial = multiply::<R>(left, right, comptime!(stream.product()));
                release(places, stage);
                sums += partial;
            }
            Multiplied::Half(_) => {
                sums = multiply_add::<R>(sums, left, right, comptime!(stream.product()));
                release(places, stage);
            }
            Multiplied::Decoded => {
                #[unroll]
                for tile in 0..2u32 {
                    let codes = decoded_rows(places.ring + stage * comptime!(stream.stage_bytes()), tile);
                    sums = multiply_add_registers::<R, Const<16>>(
                        sums,
                        codes,
                        right + comptime!(tile * stream.tile_bytes() / 16),
                        comptime!(stream.product()),
                    );
                }
                release(places, stage);
            }
        }
    }
    sums
}

/// This plane has read the stage.
#[cube]
fn release(places: &Places, stage: u32) {
    if UNIT_POS_PLANE == 0u32 {
        barrier_arrive(places.empty + stage * 8u32);
    }
}

/// A unit's fragments of one half of a slab of codes, for four steps of 16 of the depth.
///
/// A word of codes holds the depths `4t .. 4t + 4`, where the instruction wants `2t`, `2t + 1` and those 8 further. The
/// right operand lies in the same order, see
/// [`depth_stored_at`](crate::classifier::gpu::common::operands::depth_stored_at).
#[cube]
fn decoded_rows(slab: u32, #[comptime] half: u32) -> Vector<u32, Const<16>> {
    let lane = UNIT_POS % 32u32;
    let (matrix, row) = (lane / 8u32, lane % 8u32);
    let plane = UNIT_POS % WARPGROUP / 32u32;
    let at = slab + (plane * 16u32 + matrix % 2u32 * 8u32 + row) * ROW_BYTES;
    let mut fragments = Vector::<u32, Const<16>>::empty();
    #[unroll]
    for pair in 0..2usize {
        let part = comptime!(4 * half + 2 * pair as u32) + matrix / 2u32;
        let codes = load_matrices(at + (part ^ row) * 16u32, false);
        #[unroll]
        for k in 0..2usize {
            let upper = decode_e4m3(codes.extract(comptime!(2 * k)), true);
            let lower = decode_e4m3(codes.extract(comptime!(2 * k + 1)), true);
            let first = comptime!((2 * pair + k) * 4);
            fragments.insert(first, upper.extract(0usize));
            fragments.insert(comptime!(first + 1), lower.extract(0usize));
            fragments.insert(comptime!(first + 2), upper.extract(1usize));
            fragments.insert(comptime!(first + 3), lower.extract(1usize));
        }
    }
    fragments
}

/// Where column `column` of `C` has to be stored as a row of `B`, so that a unit's sums of one row are eight
/// neighbouring columns, and the four units of that row hold 32: `8 t + 2 i + e` is sum `e` of tile `4 block + i`.
///
/// It is its own inverse.
#[cube]
pub fn stored_column(column: usize) -> usize {
    column / 32 * 32 + column % 8 / 2 * 8 + column % 32 / 8 * 2 + column % 2
}
