//! Products by `wgmma`, operands and result through the copy engine.
//!
//! Cubes stay and take one tile of 128 rows after the other. Of a cube's three warpgroups two multiply, 64 rows each,
//! and of the third a single unit asks for the copies: 64 numbers of depth at a time, as many times ahead as there is
//! shared memory. Operands are read as they lie, along the depth or across it. A finished tile goes through shared memory
//! too: stores from registers would not fill the lines of memory.

use burn::tensor::DType;
use cubecl::prelude::*;

use super::{Epilogue, Kind, Layout, Matrix, Operands};
use crate::{
    gpu::{
        ptx::{Words4, pack, shared_address, unpack},
        wgmma::{
            Hopper, Product, ROW_BYTES, ROW_WORDS, WARPGROUP, Walk, Word, barrier_arrive, barrier_expect, barrier_init,
            barrier_wait, copy_tile, descriptor, end_stores, fence_async, give_back_registers, multiply_add,
            publish_barriers, store_shared_u32, store_tile, sync_warpgroup, take_registers, tiles, wait_for_stores,
            wait_for_stores_to_read,
        },
    },
    numbers::Format,
};

/// Rows of a tile.
const ROWS: u32 = 128;
/// Depth that a stage of shared memory holds.
const DEPTH: u32 = ROW_WORDS as u32;
/// Units of a cube: two warpgroups that multiply, and one for the copies.
const UNITS: u32 = 3 * WARPGROUP;
/// Bytes of a block of 64 rows of 128 bytes.
const BLOCK: u32 = 64 * ROW_BYTES;
/// Registers of a unit that multiplies and of one that copies: more and less than the even share.
const REGISTERS: (u32, u32) = (240, 24);
/// Tiles of rows that cubes take side by side before they go on to the next columns, so that both operands are found
/// in the cache.
const GROUP: u32 = 8;

/// What the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    layout: Layout,
    half: Format,
    /// Columns of a tile: 128 or 256.
    columns: u32,
    stages: u32,
    kind: Kind,
}

impl Plan {
    const fn right_bytes(self) -> u32 {
        self.columns * ROW_BYTES
    }

    const fn stage_bytes(self) -> u32 {
        2 * BLOCK + self.right_bytes()
    }

    /// The tile on its way out.
    const fn result_bytes(self) -> u32 {
        ROWS * self.columns * 2
    }

    const fn shared_parts(self) -> usize {
        (self.stages * (self.stage_bytes() + 16) + self.result_bytes()).div_ceil(16) as usize
    }

    const fn left_across(self) -> bool {
        matches!(self.layout, Layout::LeftTransposed)
    }

    const fn right_across(self) -> bool {
        !matches!(self.layout, Layout::RightTransposed)
    }

    /// 64 rows by the columns of a tile, over the depth of a stage.
    const fn product(self) -> Product {
        Product {
            operand: self.half,
            columns: self.columns,
            steps: DEPTH / 16,
            left: if self.left_across() { Walk::across_rows() } else { Walk::along_rows(0) },
            right: if self.right_across() { Walk::across_rows() } else { Walk::along_rows(0) },
            left_across: if self.left_across() { Some(BLOCK) } else { None },
            right_across: if self.right_across() { Some(BLOCK) } else { None },
        }
    }
}

/// The columns of a tile that finish earliest on so many processors: microseconds as measured for one wave of tiles of
/// 256 columns at depths of 768 and 8192, see `benches/NOTES.md`; narrower tiles multiply a little slower for their size.
fn tile_columns((rows, columns, depth): (usize, usize, usize), processors: usize) -> u32 {
    let time = |wide: &(u32, f64)| {
        let (wide, slower) = *wide;
        let tiles = rows.div_ceil(ROWS as usize) * columns.div_ceil(wide as usize);
        let share = f64::from(wide) / 256.0;
        let slabs = depth.div_ceil(DEPTH as usize) as f64;
        tiles.div_ceil(processors) as f64 * (slabs * 0.69 * share * slower + 1.7 * share + 0.3)
    };
    // Not 192: a vector of 96 sums has no alignment that NVRTC takes.
    let choices = [(256, 1.0), (128, 1.14)];
    choices.into_iter().min_by(|a, b| time(a).total_cmp(&time(b))).map_or(128, |(columns, _)| columns)
}

/// The product, if the device and the shapes are those of this kernel.
pub fn product(layout: Layout, operands: &Operands, epilogue: Epilogue) -> bool {
    let Operands { a, b, out } = operands;
    let half = match out.tensor.dtype {
        DType::BF16 => Format::Bf16,
        DType::F16 => Format::F16,
        _ => return false,
    };
    let Some(hopper) = Hopper::of(&out.tensor) else {
        return false;
    };
    let (rows, columns, depth) = layout.sizes(operands);
    // The copy engine wants rows of whole 16 bytes, which begin at such; and empty matrices have no tiles.
    let fits = |matrix: &Matrix| matrix.columns.is_multiple_of(8) && matrix.columns > 0 && matrix.rows > 0;
    if !(fits(a) && fits(b) && fits(out)) {
        return false;
    }
    let kind = epilogue.kind();
    let wide = tile_columns((rows, columns, depth), hopper.processors);
    let plan = Plan { layout, half, columns: wide, stages: 0, kind };
    let stages = (hopper.shared_bytes as u32 - plan.result_bytes() - 1024) / (plan.stage_bytes() + 16);
    let plan = Plan { stages: stages.min(6), ..plan };
    let map =
        |matrix: &Matrix, tile_rows: u32| tiles(&matrix.tensor, matrix.rows, matrix.columns / 8, tile_rows as usize);
    let other = epilogue.tensor(&out.tensor);
    let tiles_of_all = rows.div_ceil(ROWS as usize) * columns.div_ceil(plan.columns as usize);
    // SAFETY: the copy engine stays within its maps, and what the epilogue reads is within the result's shape.
    unsafe {
        multiply::launch_unchecked(
            &out.tensor.client,
            CubeCount::Static(tiles_of_all.min(hopper.processors) as u32, 1, 1),
            CubeDim::new_1d(UNITS),
            plan.columns as usize / 2,
            map(a, if plan.left_across() { DEPTH } else { ROWS }),
            map(b, if plan.right_across() { DEPTH } else { plan.columns }),
            map(out, 64),
            words(other).into_buffer_arg(),
            SizesLaunch { rows: rows as u32, columns: columns as u32, depth: depth as u32 },
            plan,
        );
    }
    true
}

/// Numbers of 16 bits as words of two.
fn words(tensor: &burn_cubecl::tensor::CubeTensor) -> burn_cubecl::tensor::CubeTensor {
    let length = tensor.meta.shape().num_elements() / 2;
    crate::gpu::memory::flat(tensor, length, tensor.handle.clone(), DType::U32)
}

/// Sizes of [`multiply`].
#[derive(CubeType, CubeLaunch)]
struct Sizes {
    rows: u32,
    columns: u32,
    depth: u32,
}

/// Where a tile begins.
#[derive(CubeType, Clone, Copy)]
struct Tile {
    row: u32,
    column: u32,
}

/// Tile `number`, counted by groups of rows.
#[cube]
fn tile(number: u32, sizes: &Sizes, #[comptime] plan: Plan) -> Tile {
    let across = (sizes.columns + comptime!(plan.columns - 1)) / comptime!(plan.columns);
    let down = (sizes.rows + comptime!(ROWS - 1)) / ROWS;
    let group = number / (GROUP * across);
    let rows = u32::min(GROUP, down - group * GROUP);
    let inside = number % (GROUP * across);
    Tile { row: (group * GROUP + inside % rows) * ROWS, column: inside / rows * comptime!(plan.columns) }
}

/// `R` is half the columns of a tile.
///
/// # Shapes
/// - `other`: pairs of the bias, or of a matrix of the result's shape
#[cube(launch_unchecked)]
fn multiply<R: Size>(
    a: &TensorMap<Word, Tiled>,
    b: &TensorMap<Word, Tiled>,
    out: &mut TensorMap<Word, Tiled>,
    other: &[u32],
    sizes: &Sizes,
    #[comptime] plan: Plan,
) {
    let memory = Shared::<[Words4]>::new_aligned_slice(comptime!(plan.shared_parts()), 1024usize);
    let stages_at = shared_address(&memory);
    let result_at = stages_at + comptime!(plan.stages * plan.stage_bytes());
    let full = result_at + comptime!(plan.result_bytes());
    let empty = full + comptime!(plan.stages * 8);
    if UNIT_POS == 0u32 {
        for stage in 0..comptime!(plan.stages) {
            barrier_init(full + stage * 8u32, 1u32);
            barrier_init(empty + stage * 8u32, 8u32);
        }
        publish_barriers();
    }
    sync_cube();

    let across = (sizes.columns + comptime!(plan.columns - 1)) / comptime!(plan.columns);
    let count = across * ((sizes.rows + comptime!(ROWS - 1)) / ROWS);
    let slabs = (sizes.depth + comptime!(DEPTH - 1)) / DEPTH;
    let mut number = CUBE_POS_X;
    let mut stage = 0u32.runtime();
    let mut parity = 0u32.runtime();

    if UNIT_POS < comptime!(2 * WARPGROUP) {
        take_registers(comptime!(REGISTERS.0));
        let warpgroup = UNIT_POS / WARPGROUP;
        let lane = UNIT_POS % 32u32;
        let own_result = result_at + warpgroup * comptime!(plan.result_bytes() / 2);
        while number < count {
            let tile = tile(number, sizes, plan);
            let mut sums = Vector::<f32, R>::new(0.0f32);
            for _slab in 0..slabs {
                barrier_wait(full + stage * 8u32, parity);
                sync_plane();
                let left = stages_at + stage * comptime!(plan.stage_bytes());
                sums = multiply_add::<R>(
                    sums,
                    descriptor(left + warpgroup * BLOCK),
                    descriptor(left + comptime!(2 * BLOCK)),
                    comptime!(plan.product()),
                );
                if lane == 0u32 {
                    barrier_arrive(empty + stage * 8u32);
                }
                stage += 1u32;
                if stage == comptime!(plan.stages) {
                    stage = 0u32.runtime();
                    parity ^= 1u32;
                }
            }
            finish::<R>(sums, own_result, warpgroup, &tile, &*out, other, sizes, plan);
            number += CUBE_COUNT_X;
        }
        let unit = UNIT_POS % WARPGROUP;
        if unit == 0u32 {
            wait_for_stores();
        }
    } else {
        give_back_registers(comptime!(REGISTERS.1));
        if UNIT_POS == comptime!(2 * WARPGROUP) {
            while number < count {
                let tile = tile(number, sizes, plan);
                for slab in 0..slabs {
                    let barrier = full + stage * 8u32;
                    barrier_wait(empty + stage * 8u32, parity ^ 1u32);
                    barrier_expect(barrier, comptime!(plan.stage_bytes()));
                    let left = stages_at + stage * comptime!(plan.stage_bytes());
                    let right = left + comptime!(2 * BLOCK);
                    let depth = slab * DEPTH;
                    if comptime!(plan.left_across()) {
                        copy_tile(left, a, tile.row, depth, barrier);
                        copy_tile(left + BLOCK, a, tile.row + 64u32, depth, barrier);
                    } else {
                        copy_tile(left, a, depth, tile.row, barrier);
                    }
                    if comptime!(plan.right_across()) {
                        #[unroll]
                        for block in 0..comptime!(plan.columns / 64) {
                            let column = tile.column + comptime!(block * 64);
                            copy_tile(right + comptime!(block * BLOCK), b, column, depth, barrier);
                        }
                    } else {
                        copy_tile(right, b, depth, tile.column, barrier);
                    }
                    stage += 1u32;
                    if stage == comptime!(plan.stages) {
                        stage = 0u32.runtime();
                        parity ^= 1u32;
                    }
                }
                number += CUBE_COUNT_X;
            }
        }
    }
}

/// The epilogue of a warpgroup's 64 rows.
#[cube]
#[allow(clippy::too_many_arguments)]
fn finish<R: Size>(
    sums: Vector<f32, R>,
    own_result: u32,
    warpgroup: u32,
    tile: &Tile,
    out: &TensorMap<Word, Tiled>,
    other: &[u32],
    sizes: &Sizes,
    #[comptime] plan: Plan,
) {
    let lane = UNIT_POS % 32u32;
    let row = UNIT_POS % WARPGROUP / 32u32 * 16u32 + lane / 4u32;
    let pair = lane % 4u32;
    let first_row = tile.row + warpgroup * 64u32;
    let place = Place {
        shared: own_result + row * ROW_BYTES + pair * 4u32,
        swizzle: row % 8u32,
        row: first_row + row,
        column: tile.column + 2u32 * pair,
    };
    let half = comptime!(plan.half);
    await_result(warpgroup);
    #[unroll]
    for block in 0..comptime!((plan.columns / 8) as usize) {
        #[unroll]
        for lower in 0..2usize {
            let (first, next) = results::<R>(sums, block, lower, &place, other, sizes, plan);
            store_pair(&place, block, lower, pack(first, next, half));
        }
    }
    store_result(out, own_result, warpgroup, first_row, tile.column, plan);
}

/// Where a unit's numbers of a tile are.
#[derive(CubeType, Clone, Copy)]
struct Place {
    /// The first pair of the unit's first row in shared memory, were its parts not moved.
    shared: u32,
    swizzle: u32,
    /// In the result.
    row: u32,
    column: u32,
}

/// A pair of the unit's sums as they are.
#[cube]
fn sums_of<R: Size>(sums: Vector<f32, R>, #[comptime] block: usize, #[comptime] lower: usize) -> (f32, f32) {
    (sums.extract(comptime!(4 * block + 2 * lower)), sums.extract(comptime!(4 * block + 2 * lower + 1)))
}

/// A pair of `other`: of the bias, or of the matrix. Zeros outside of it.
#[cube]
fn others(
    place: &Place,
    other: &[u32],
    sizes: &Sizes,
    #[comptime] block: usize,
    #[comptime] lower: usize,
    #[comptime] plan: Plan,
) -> Vector<f32, Const<2>> {
    let column = place.column + comptime!(8 * block as u32);
    let row = place.row + comptime!(8 * lower as u32);
    let mut word = 0u32.runtime();
    if comptime!(plan.kind == Kind::Bias) {
        if column < sizes.columns {
            word = other[(column / 2u32) as usize];
        }
    } else if column < sizes.columns && row < sizes.rows {
        word = other[row as usize * (sizes.columns / 2u32) as usize + (column / 2u32) as usize];
    }
    unpack(word, comptime!(plan.half))
}

/// The result.
#[cube]
fn results<R: Size>(
    sums: Vector<f32, R>,
    #[comptime] block: usize,
    #[comptime] lower: usize,
    place: &Place,
    other: &[u32],
    sizes: &Sizes,
    #[comptime] plan: Plan,
) -> (f32, f32) {
    let (first, next) = sums_of::<R>(sums, block, lower);
    match comptime!(plan.kind) {
        Kind::Store => (first, next),
        Kind::Bias | Kind::Add => {
            let others = others(place, other, sizes, block, lower, plan);
            (first + others.extract(0usize), next + others.extract(1usize))
        }
    }
}

#[cube]
fn store_pair(place: &Place, #[comptime] block: usize, #[comptime] lower: usize, pair: u32) {
    let part = (comptime!(block as u32 % 8) ^ place.swizzle) * 16u32;
    let at = place.shared + comptime!(block as u32 / 8 * BLOCK + 8 * lower as u32 * ROW_BYTES) + part;
    store_shared_u32(at, pair);
}

/// Waits until the shared memory of the warpgroup's result may be written.
#[cube]
fn await_result(warpgroup: u32) {
    let unit = UNIT_POS % WARPGROUP;
    if unit == 0u32 {
        wait_for_stores_to_read();
    }
    sync_warpgroup(warpgroup);
}

/// Begins to store the warpgroup's result.
#[cube]
fn store_result(
    map: &TensorMap<Word, Tiled>,
    own_result: u32,
    warpgroup: u32,
    row: u32,
    column: u32,
    #[comptime] plan: Plan,
) {
    fence_async();
    sync_warpgroup(warpgroup);
    let unit = UNIT_POS % WARPGROUP;
    if unit == 0u32 {
        #[unroll]
        for block in 0..comptime!(plan.columns / 64) {
            store_tile(map, own_result + comptime!(block * BLOCK), column + comptime!(block * 64), row);
        }
        end_stores();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fill_the_waves() {
        // BERT-base on 132 processors: the output's layer with 4,096 tokens, and the widest with 8,192.
        assert_eq!(tile_columns((4096, 768, 768), 132), 256);
        assert_eq!(tile_columns((8192, 3072, 768), 132), 256);
        // Few tiles are better narrow.
        assert_eq!(tile_columns((2048, 768, 768), 132), 128);
    }
}
