//! `C = A B^T` on tensor cores, for operands whose rows run along the depth of the product.
//!
//! A cube of units computes one tile. Copies from global to shared memory run some stages ahead of the arithmetic. `A` is
//! E4M3 codes, which are decoded on their way into the registers, or 16-bit numbers; `B` is 16-bit numbers, already in the
//! order that suits: see [`stored_row`].
//!
//! A sum runs over the depth in an order that no tile size changes, and no other row or column takes part in it. So it is the
//! same, bit for bit, wherever chunks are cut.

use cubecl::prelude::*;

use super::instructions::{
    Half, Sums, Words2, Words4, copy_async, decode_e4m3, end_copy_group, multiply_add,
    shared_address, wait_for_copies,
};

/// Depth of one stage.
pub const DEPTH: usize = 64;
/// Columns of `C` that one plane computes.
pub const PLANE_COLUMNS: usize = 64;
/// Units of a plane: a fact of every device that has these instructions.
const PLANE: u32 = 32;
/// 16-byte parts of a stage's row of 16-bit numbers.
const PARTS: usize = DEPTH / 8;

/// What a cube computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Planes above one another.
    pub row_planes: usize,
    /// Planes beside one another.
    pub column_planes: usize,
    /// Fragments of 16 rows that one plane computes.
    pub fragments: usize,
    /// Stages of shared memory.
    pub stages: usize,
}

impl Tile {
    pub const fn rows(self) -> usize {
        self.row_planes * self.fragments * 16
    }

    pub const fn columns(self) -> usize {
        self.column_planes * PLANE_COLUMNS
    }

    pub const fn units(self) -> u32 {
        (self.row_planes * self.column_planes) as u32 * PLANE
    }

    pub const fn stage_bytes(self, left: Left) -> usize {
        16 * (self.rows() * left.parts() + self.columns() * PARTS)
    }
}

/// How `A` lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// E4M3 codes, multiplied as F16.
    E4m3,
    /// 16-bit numbers of the product's type.
    Half,
}

impl Left {
    /// 16-byte parts of a stage's row.
    pub const fn parts(self) -> usize {
        match self {
            Self::E4m3 => PARTS / 2,
            Self::Half => PARTS,
        }
    }
}

/// Where row `row` of `B` is stored: within its group of 64 in another place.
///
/// With this order a unit's sums of one row of `C` are 16 neighbouring columns: `16 t + 2 j + e` for tile `j` of 8, element `e`.
#[cube]
pub fn stored_row(row: usize) -> usize {
    row / 64 * 64 + row % 16 / 2 * 8 + row % 64 / 16 * 2 + row % 2
}

/// The row of `B` that is stored at `stored`.
#[cube]
pub fn row_stored_at(stored: usize) -> usize {
    stored / 64 * 64 + stored % 8 / 2 * 16 + stored % 64 / 8 * 2 + stored % 2
}

/// Where this unit's sums lie in the tile: its first row (others follow at distances of 8), its first of 16 columns.
#[cube]
pub fn unit_place(#[comptime] tile: Tile) -> (usize, usize) {
    let plane = UNIT_POS / PLANE;
    let lane = UNIT_POS % PLANE;
    let planes = comptime!(tile.column_planes as u32);
    let row = (plane / planes) * comptime!(tile.fragments as u32 * 16) + lane / 4u32;
    let column = (plane % planes) * comptime!(PLANE_COLUMNS as u32) + lane % 4u32 * 16u32;
    (row as usize, column as usize)
}

/// A unit's sums over the whole depth, `[fragments, 8]`.
///
/// # Shapes
/// - `left`: rows of `left_stride` parts of 16 bytes, of which the first `left_parts` count; rows from `left_row`, of which
///   `left_rows` exist; the rest counts as zero
/// - `right`: rows of `right_stride` parts, padded to whole stages and tiles; from `right_row`
/// - `stages_deep`: the depth in stages
#[cube]
pub fn product(
    left: &[Words4],
    left_row: usize,
    left_rows: usize,
    left_stride: usize,
    left_parts: usize,
    right: &[Words4],
    right_row: usize,
    right_stride: usize,
    stages_deep: usize,
    #[comptime] tile: Tile,
    #[comptime] left_type: Left,
    #[comptime] half: Half,
) -> Array<Sums> {
    let left_size = comptime!(tile.rows() * left_type.parts());
    let stage_size = comptime!(tile.rows() * left_type.parts() + tile.columns() * PARTS);
    let memory =
        Shared::<[Words4]>::new_aligned_slice(comptime!(tile.stages * stage_size), 128usize);
    let address = shared_address(&memory);

    let mut sums = Array::<Sums>::new(comptime!(tile.fragments * 8));
    #[unroll]
    for i in 0..comptime!(tile.fragments * 8) {
        sums[i] = Sums::new(0.0f32);
    }

    #[unroll]
    for stage in 0..comptime!(tile.stages - 1) {
        if stage < stages_deep {
            copy_stage(
                address + comptime!((stage * stage_size * 16) as u32),
                stage,
                left,
                left_row,
                left_rows,
                left_stride,
                left_parts,
                right,
                right_row,
                right_stride,
                tile,
                left_type,
            );
        }
        end_copy_group();
    }

    let mut slot = 0usize.runtime();
    let mut free_slot = comptime!(tile.stages - 1).runtime();
    for stage in 0..stages_deep {
        wait_for_copies(comptime!(tile.stages as u32 - 2));
        sync_cube();
        let ahead = stage + comptime!(tile.stages - 1);
        if ahead < stages_deep {
            copy_stage(
                address + (free_slot * comptime!(stage_size * 16)) as u32,
                ahead,
                left,
                left_row,
                left_rows,
                left_stride,
                left_parts,
                right,
                right_row,
                right_stride,
                tile,
                left_type,
            );
        }
        end_copy_group();
        let left_at = slot * stage_size;
        multiply_stage(
            &memory,
            left_at,
            left_at + left_size,
            &mut sums,
            tile,
            left_type,
            half,
        );
        free_slot = slot;
        slot += 1;
        if slot == comptime!(tile.stages) {
            slot = 0usize.runtime();
        }
    }
    wait_for_copies(0u32);
    sums
}

/// Begins to copy one stage of both operands.
///
/// Parts of 16-bit rows change places with their neighbours in odd rows, so that reading them meets no bank twice.
#[cube]
fn copy_stage(
    to: u32,
    stage: usize,
    left: &[Words4],
    left_row: usize,
    left_rows: usize,
    left_stride: usize,
    left_parts: usize,
    right: &[Words4],
    right_row: usize,
    right_stride: usize,
    #[comptime] tile: Tile,
    #[comptime] left_type: Left,
) {
    let units = comptime!(tile.units() as usize);
    let parts = comptime!(left_type.parts());
    #[unroll]
    for i in 0..comptime!(tile.rows() * left_type.parts() / tile.units() as usize) {
        let at = comptime!(i * units) + UNIT_POS as usize;
        let (row, part) = (at / parts, at % parts);
        let column = stage * parts + part;
        let place = match comptime!(left_type) {
            Left::E4m3 => at,
            Left::Half => row * parts + (part ^ (row % 2)),
        };
        copy_async(
            to + (place * 16) as u32,
            left,
            (left_row + row) * left_stride + column,
            row < left_rows && column < left_parts,
        );
    }
    let to = to + comptime!((tile.rows() * left_type.parts() * 16) as u32);
    #[unroll]
    for i in 0..comptime!(tile.columns() * PARTS / tile.units() as usize) {
        let at = comptime!(i * units) + UNIT_POS as usize;
        let (row, part) = (at / PARTS, at % PARTS);
        let place = row * PARTS + (part ^ (row % 2));
        copy_async(
            to + (place * 16) as u32,
            right,
            (right_row + row) * right_stride + stage * PARTS + part,
            true,
        );
    }
}

/// Adds one stage's products. Lane `4 g + t` takes the depths `16 t .. 16 t + 16`, four of them in each of four instructions.
#[cube]
fn multiply_stage(
    memory: &Shared<[Words4]>,
    left_at: usize,
    right_at: usize,
    sums: &mut Array<Sums>,
    #[comptime] tile: Tile,
    #[comptime] left_type: Left,
    #[comptime] half: Half,
) {
    let plane = (UNIT_POS / PLANE) as usize;
    let lane = (UNIT_POS % PLANE) as usize;
    let (g, t) = (lane / 4, lane % 4);
    let fragments = comptime!(tile.fragments);
    let planes = comptime!(tile.column_planes);
    let left_row = (plane / planes) * comptime!(tile.fragments * 16) + g;
    let right_row = (plane % planes) * PLANE_COLUMNS + g;
    let odd = g % 2;

    let mut codes = Array::<Words4>::new(comptime!(2 * tile.fragments));
    if comptime!(left_type == Left::E4m3) {
        #[unroll]
        for i in 0..comptime!(2 * tile.fragments) {
            codes[i] =
                memory[left_at + (left_row + comptime!(8 * i)) * comptime!(left_type.parts()) + t];
        }
    }
    #[unroll]
    for h in 0..2usize {
        let part = (2 * t + h) ^ odd;
        if comptime!(left_type == Left::Half) {
            #[unroll]
            for i in 0..comptime!(2 * tile.fragments) {
                codes[i] = memory[left_at + (left_row + comptime!(8 * i)) * PARTS + part];
            }
        }
        let mut a = Array::<Words4>::new(comptime!(2 * tile.fragments));
        #[unroll]
        for k in 0..2usize {
            #[unroll]
            for i in 0..fragments {
                let mut fragment = Words4::empty();
                let upper = half_words(codes[comptime!(2 * i)], comptime!(2 * h + k), k, left_type);
                let lower = half_words(
                    codes[comptime!(2 * i + 1)],
                    comptime!(2 * h + k),
                    k,
                    left_type,
                );
                fragment.insert(0usize, upper.extract(0usize));
                fragment.insert(1usize, lower.extract(0usize));
                fragment.insert(2usize, upper.extract(1usize));
                fragment.insert(3usize, lower.extract(1usize));
                a[comptime!(k * tile.fragments + i)] = fragment;
            }
        }
        #[unroll]
        for j in 0..8usize {
            let words = memory[right_at + (right_row + comptime!(8 * j)) * PARTS + part];
            #[unroll]
            for k in 0..2usize {
                let mut b = Words2::empty();
                b.insert(0usize, words.extract(comptime!(2 * k)));
                b.insert(1usize, words.extract(comptime!(2 * k + 1)));
                #[unroll]
                for i in 0..fragments {
                    let at = comptime!(i * 8 + j);
                    sums[at] =
                        multiply_add(a[comptime!(k * tile.fragments + i)], b, sums[at], half);
                }
            }
        }
    }
}

/// Four numbers of the depth as two pairs: word `quarter` of 16 codes, or half `k` of 8 numbers.
#[cube]
fn half_words(
    words: Words4,
    #[comptime] quarter: usize,
    #[comptime] k: usize,
    #[comptime] left_type: Left,
) -> Words2 {
    match comptime!(left_type) {
        Left::E4m3 => decode_e4m3(words.extract(quarter)),
        Left::Half => {
            let mut pairs = Words2::empty();
            pairs.insert(0usize, words.extract(comptime!(2 * k)));
            pairs.insert(1usize, words.extract(comptime!(2 * k + 1)));
            pairs
        }
    }
}
