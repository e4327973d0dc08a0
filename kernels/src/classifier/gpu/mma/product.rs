//! `C = A B^T` on tensor cores, for operands whose rows run along the depth of the product.
//!
//! A cube of units computes one tile. Copies from global to shared memory run some stages ahead of the arithmetic. `A`
//! is E4M3 codes, which are decoded on their way into the registers, or 16-bit numbers; `B` is 16-bit numbers, already
//! in the order that suits: see [`stored_row`](crate::classifier::gpu::common::operands::stored_row).
//!
//! A sum runs over the depth in an order that no tile size changes, and no other row or column takes part in it. So it
//! is the same, bit for bit, wherever chunks are cut.

use cubecl::prelude::*;

use crate::{
    classifier::gpu::common::operands::{PARTS, Stored},
    gpu::ptx::{
        Sums, Words2, Words4, copy_async, decode_e4m3, end_copy_group, load_matrices, multiply_add, shared_address,
        wait_for_copies,
    },
    numbers::Format,
};

/// Depth of one stage.
pub const DEPTH: usize = 64;
/// Columns of `C` that one plane computes.
pub const PLANE_COLUMNS: usize = 64;
/// Units of a plane: a fact of every device that has these instructions.
const PLANE: u32 = 32;

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

    pub const fn stage_bytes(self, left: Stored) -> usize {
        16 * (self.rows() * left.parts() + self.columns() * PARTS)
    }
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

/// How a cube multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Multiply {
    pub tile: Tile,
    /// How the left operand lies in memory.
    pub left: Stored,
    /// The format in which the operands are multiplied.
    pub half: Format,
}

impl Multiply {
    /// 16-byte parts of a stage.
    const fn stage_size(self) -> usize {
        self.tile.rows() * self.left.parts() + self.tile.columns() * PARTS
    }
}

/// Which rows of the operands are multiplied. Strides are in parts of 16 bytes.
#[derive(CubeType, Clone, Copy)]
pub struct ProductPlace {
    /// The first row of the left operand.
    pub left_row: usize,
    /// How many rows of it there are from there on; the rest counts as zero.
    pub left_rows: usize,
    /// The length of a row of the left operand.
    pub left_stride: usize,
    /// The first row of the right operand.
    pub right_row: usize,
    /// The length of a row of the right operand: whole stages.
    pub right_stride: usize,
}

/// A unit's sums over the whole depth, `[fragments, 8]`.
#[cube]
pub fn product(left: &[Words4], right: &[Words4], place: &ProductPlace, #[comptime] multiply: Multiply) -> Array<Sums> {
    let tile = comptime!(multiply.tile);
    let stages_deep = place.right_stride / 8;
    let stage_size = comptime!(multiply.stage_size());
    let memory = Shared::<[Words4]>::new_aligned_slice(comptime!(tile.stages * stage_size), 128usize);
    let address = shared_address(&memory);

    let mut sums = Array::<Sums>::new(comptime!(tile.fragments * 8));
    #[unroll]
    for i in 0..comptime!(tile.fragments * 8) {
        sums[i] = Sums::new(0.0f32);
    }

    #[unroll]
    for stage in 0..comptime!(tile.stages - 1) {
        if stage < stages_deep {
            copy_stage(address + comptime!((stage * stage_size * 16) as u32), stage, left, right, place, multiply);
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
            copy_stage(address + (free_slot * comptime!(stage_size * 16)) as u32, ahead, left, right, place, multiply);
        }
        end_copy_group();
        let left_at = address + (slot * comptime!(stage_size * 16)) as u32;
        let right_at = left_at + comptime!((multiply.tile.rows() * multiply.left.parts() * 16) as u32);
        multiply_stage(left_at, right_at, &mut sums, multiply);
        free_slot = slot;
        slot += 1;
        if slot == comptime!(tile.stages) {
            slot = 0usize.runtime();
        }
    }
    wait_for_copies(0u32);
    sums
}

/// Where a 16-byte part of a stage's row lies, counted in parts: parts change places by the row, so that the eight rows
/// that a matrix takes its parts from lie in different banks.
#[cube]
fn part_place(row: u32, part: u32, #[comptime] parts: u32) -> u32 {
    let key = if comptime!(parts == 8) { row % 8u32 } else { row / 2u32 % 4u32 };
    row * parts + (part ^ key)
}

/// Begins to copy one stage of both operands.
#[cube]
fn copy_stage(
    to: u32,
    stage: usize,
    left: &[Words4],
    right: &[Words4],
    place: &ProductPlace,
    #[comptime] multiply: Multiply,
) {
    let tile = comptime!(multiply.tile);
    // Every unit copies the same part of rows at a constant distance.
    let parts = comptime!(multiply.left.parts() as u32);
    let rows = comptime!(tile.units() / multiply.left.parts() as u32);
    let (row, part) = (UNIT_POS / parts, UNIT_POS % parts);
    let from = to + part_place(row, part, parts) * 16u32;
    let column = stage * comptime!(multiply.left.parts()) + part as usize;
    let at = (place.left_row + row as usize) * place.left_stride + column;
    let inside = select(column < place.left_stride, place.left_rows, 0usize);
    #[unroll]
    for i in 0..comptime!(multiply.tile.rows() * multiply.left.parts() / tile.units() as usize) {
        let below = comptime!(i * tile.units() as usize / multiply.left.parts());
        copy_async(
            from + comptime!(i as u32 * rows * parts * 16),
            left,
            at + below * place.left_stride,
            row as usize + below < inside,
        );
    }
    let to = to + comptime!((multiply.tile.rows() * multiply.left.parts() * 16) as u32);
    let parts = comptime!(PARTS as u32);
    let (row, part) = (UNIT_POS / parts, UNIT_POS % parts);
    let from = to + part_place(row, part, parts) * 16u32;
    let at = (place.right_row + row as usize) * place.right_stride + stage * PARTS + part as usize;
    #[unroll]
    for i in 0..comptime!(tile.columns() * PARTS / tile.units() as usize) {
        let below = comptime!(i * tile.units() as usize / PARTS);
        copy_async(from + comptime!(i as u32 * tile.units() * 16), right, at + below * place.right_stride, true);
    }
}

/// Adds one stage's products, 16 of its depth at a time.
///
/// A word of codes holds the depths `4t .. 4t + 4`, where the instruction wants `2t`, `2t + 1` and those 8 further. The
/// right operand lies in the same order, see
/// [`depth_stored_at`](crate::classifier::gpu::common::operands::depth_stored_at).
#[cube]
fn multiply_stage(left_at: u32, right_at: u32, sums: &mut Array<Sums>, #[comptime] multiply: Multiply) {
    let tile = comptime!(multiply.tile);
    let half = comptime!(multiply.half);
    let plane = UNIT_POS / PLANE;
    let lane = UNIT_POS % PLANE;
    let planes = comptime!(tile.column_planes as u32);
    let fragments = comptime!(tile.fragments);
    // Which matrix this lane gives addresses for, and its row there.
    let (matrix, row) = (lane / 8u32, lane % 8u32);
    let left_row = (plane / planes) * comptime!(tile.fragments as u32 * 16) + matrix % 2u32 * 8u32 + row;
    let right_row = (plane % planes) * comptime!(PLANE_COLUMNS as u32) + matrix / 2u32 * 8u32 + row;

    #[unroll]
    for pair in 0..comptime!(DEPTH / 32) {
        // Fragments of two steps of 16.
        let mut a = Array::<Words4>::new(comptime!(2 * tile.fragments));
        match comptime!(multiply.left) {
            Stored::Codes { native } => {
                let part = comptime!(2 * pair as u32) + matrix / 2u32;
                let at = left_at + part_place(left_row, part, comptime!(multiply.left.parts() as u32)) * 16u32;
                #[unroll]
                for i in 0..fragments {
                    let codes = load_matrices(at + comptime!((i * 16 * multiply.left.parts() * 16) as u32), false);
                    #[unroll]
                    for k in 0..2usize {
                        let upper = decode_e4m3(codes.extract(comptime!(2 * k)), native);
                        let lower = decode_e4m3(codes.extract(comptime!(2 * k + 1)), native);
                        let mut fragment = Words4::empty();
                        fragment.insert(0usize, upper.extract(0usize));
                        fragment.insert(1usize, lower.extract(0usize));
                        fragment.insert(2usize, upper.extract(1usize));
                        fragment.insert(3usize, lower.extract(1usize));
                        a[comptime!(k * tile.fragments + i)] = fragment;
                    }
                }
            }
            Stored::Half =>
            {
                #[unroll]
                for k in 0..2usize {
                    let part = comptime!(4 * pair as u32 + 2 * k as u32) + matrix / 2u32;
                    let at = left_at + part_place(left_row, part, comptime!(PARTS as u32)) * 16u32;
                    #[unroll]
                    for i in 0..fragments {
                        a[comptime!(k * tile.fragments + i)] =
                            load_matrices(at + comptime!((i * 16 * PARTS * 16) as u32), false);
                    }
                }
            }
        }
        #[unroll]
        for k in 0..2usize {
            let part = comptime!(4 * pair as u32 + 2 * k as u32) + matrix % 2u32;
            let at = right_at + part_place(right_row, part, comptime!(PARTS as u32)) * 16u32;
            #[unroll]
            for two in 0..4usize {
                let words = load_matrices(at + comptime!((two * 16 * PARTS * 16) as u32), false);
                #[unroll]
                for j in 0..2usize {
                    let mut b = Words2::empty();
                    b.insert(0usize, words.extract(comptime!(2 * j)));
                    b.insert(1usize, words.extract(comptime!(2 * j + 1)));
                    #[unroll]
                    for i in 0..fragments {
                        let at = comptime!(i * 8 + two * 2 + j);
                        sums[at] = multiply_add(a[comptime!(k * tile.fragments + i)], b, sums[at], half);
                    }
                }
            }
        }
    }
}
