//! The matrix product that the kernels share: one cube computes a tile of `C = A B + C0` in F32.
//!
//! Every element of `C` is one unit's running sum over the depth, upwards, one fused multiply-add after the other. So
//! it depends neither on where a tile begins nor on how the depth is cut into calls that continue each other's sums:
//! the weights are the same, bit for bit, for every chunk size. A library product promises no order, and on CUDA may
//! round its operands to TF32.
//!
//! Past the end of a matrix the operands are zero, which leaves a sum as it is.

use cubecl::prelude::*;

use crate::numbers::device::Quad;

/// Rows and columns of a tile.
pub const TILE: usize = 64;
/// Depth that lies in shared memory at one time.
pub const DEPTH: usize = 16;
/// Units of a cube along either axis; each computes 4 rows of one quad of columns.
const UNITS: u32 = 16;

/// The cubes that cover `rows` by `columns`.
pub fn cube_count(rows: usize, columns: usize) -> CubeCount {
    CubeCount::Static(columns.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, 1)
}

/// The shape of a cube.
pub fn cube_dim() -> CubeDim {
    CubeDim::new_2d(UNITS, UNITS)
}

/// One operand's part of the depth in shared memory, `[DEPTH, TILE]`.
pub type Panel = Shared<[f32]>;

#[cube]
pub fn new_panel() -> Panel {
    Shared::<[f32]>::new_slice(comptime!(DEPTH * TILE))
}

/// Sums of a unit before anything is added.
#[cube]
pub fn zero_sums() -> Array<Quad> {
    let mut sums = Array::<Quad>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        sums[i] = Quad::new(0.0f32);
    }
    sums
}

/// First of the 4 rows of `C` that this unit computes.
#[cube]
pub fn unit_row() -> usize {
    CUBE_POS_Y as usize * TILE + UNIT_POS_Y as usize * 4
}

/// The quad of columns of `C` that this unit computes.
#[cube]
pub fn unit_quad() -> usize {
    (CUBE_POS_X * UNITS + UNIT_POS_X) as usize
}

/// Where this unit loads from an operand whose rows run along the depth: row of the tile, quad of the depth.
#[cube]
pub fn along_depth() -> (usize, usize) {
    let unit = UNIT_POS as usize;
    (unit / (DEPTH / 4), unit % (DEPTH / 4))
}

/// Where this unit loads from an operand whose rows run along the tile: row of the depth, quad of the tile.
#[cube]
pub fn along_tile() -> (usize, usize) {
    let unit = UNIT_POS as usize;
    (unit / (TILE / 4), unit % (TILE / 4))
}

/// Stores what was loaded from place [`along_depth()`].
#[cube]
pub fn store_along_depth(panel: &mut Panel, values: Quad) {
    let (row, quad) = along_depth();
    #[unroll]
    for i in 0..4usize {
        panel[(quad * 4 + i) * TILE + row] = values.extract(i);
    }
}

/// Stores what was loaded from place [`along_tile()`].
#[cube]
pub fn store_along_tile(panel: &mut Panel, values: Quad) {
    let (row, quad) = along_tile();
    #[unroll]
    for i in 0..4usize {
        panel[row * TILE + quad * 4 + i] = values.extract(i);
    }
}

/// Loads a quad of a row-major matrix, or zeros past its last row or column.
#[cube]
pub fn load(matrix: &[Quad], row: usize, rows: usize, quad: usize, quads: usize) -> Quad {
    let mut values = Quad::new(0.0f32);
    if row < rows && quad < quads {
        values = matrix[row * quads + quad];
    }
    values
}

/// Adds the product of two panels to the unit's sums.
#[cube]
pub fn multiply_add(a: &Panel, b: &Panel, sums: &mut Array<Quad>) {
    let row = UNIT_POS_Y as usize * 4;
    let column = UNIT_POS_X as usize * 4;
    for k in 0..DEPTH {
        let mut right = Quad::empty();
        #[unroll]
        for j in 0..4usize {
            right.insert(j, b[k * TILE + column + j]);
        }
        #[unroll]
        for i in 0..4usize {
            sums[i] = fma(Quad::new(a[k * TILE + row + i]), right, sums[i]);
        }
    }
}
