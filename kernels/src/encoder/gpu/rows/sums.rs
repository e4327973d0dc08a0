//! Sums of columns in two steps of a fixed order, and matrices put side by side.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::ElemType, prelude::*};

use super::{cube_number, cubes};
use crate::gpu::{LINEAR, memory::empty};

/// Units of a cube that adds up rows.
const UNITS: u32 = 64;
/// Rows that a unit adds up, at least.
const ROWS: usize = 32;
/// Partial sums of a column, at most.
const MOST_PARTS: usize = 128;

/// Partial sums of columns, F32, `[count, columns]`.
pub struct Parts<'a> {
    pub parts: &'a CubeTensor,
    pub count: usize,
    pub columns: usize,
    /// Columns of each of the vectors that the sums go to.
    pub length: usize,
}

/// Adds up partial sums, in their order; the columns go to vectors of one type, one after the other.
pub fn add_parts(parts: &Parts, outs: [&CubeTensor; 3]) {
    let [first, second, third] = outs.map(|out| out.clone().into_buffer_arg());
    // SAFETY: every access is within the columns.
    unsafe {
        add::launch_unchecked(
            &parts.parts.client,
            cubes(parts.columns, UNITS),
            CubeDim::new_1d(UNITS),
            parts.parts.clone().into_buffer_arg(),
            first,
            second,
            third,
            parts.count as u32,
            parts.length as u32,
            dtype_to_storage_type(outs[0].dtype),
        );
    }
}

/// The sums of the columns of `[rows, columns]`, rounded to the type of `outs`: vectors that share the columns out, one
/// after the other.
pub fn column_sums(x: &CubeTensor, outs: [&CubeTensor; 3], length: usize) {
    let [rows, columns] = [x.meta.shape()[0], x.meta.shape()[1]];
    let count = rows.div_ceil(ROWS).clamp(1, MOST_PARTS);
    let numbers = if columns.is_multiple_of(12) { 4 } else { 1 };
    let parts = empty(x, count * columns, DType::F32);
    // SAFETY: every access is within rows and columns.
    unsafe {
        partial::launch_unchecked(
            &x.client,
            CubeCount::Static((columns / numbers).div_ceil(UNITS as usize) as u32, count as u32, 1),
            CubeDim::new_1d(UNITS),
            numbers,
            x.clone().into_buffer_arg(),
            parts.clone().into_buffer_arg(),
            rows as u32,
            (columns / numbers) as u32,
            dtype_to_storage_type(x.dtype),
        );
    }
    add_parts(&Parts { parts: &parts, count, columns, length }, outs);
}

#[cube(launch_unchecked)]
fn partial<F: Float, N: Size>(
    x: &[Vector<F, N>],
    parts: &mut [Vector<f32, N>],
    rows: u32,
    vectors: u32,
    #[define(F)] _dtype: ElemType,
) {
    let vector = CUBE_POS_X * UNITS + UNIT_POS;
    if vector < vectors {
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut row = CUBE_POS_Y;
        while row < rows {
            sum += Vector::<f32, N>::cast_from(x[row as usize * vectors as usize + vector as usize]);
            row += CUBE_COUNT_Y;
        }
        parts[CUBE_POS_Y as usize * vectors as usize + vector as usize] = sum;
    }
}

/// `length` is that of each vector; there are as many columns as units that find theirs in one of the three.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn add<F: Float>(
    parts: &[f32],
    first: &mut [F],
    second: &mut [F],
    third: &mut [F],
    count: u32,
    length: u32,
    #[define(F)] _dtype: ElemType,
) {
    let column = cube_number() * UNITS + UNIT_POS;
    let columns = parts.len() as u32 / count;
    if column < columns {
        let mut sum = 0.0f32.runtime();
        let mut part = 0u32.runtime();
        while part < count {
            sum += parts[(part * columns + column) as usize];
            part += 1u32;
        }
        let rounded = F::cast_from(sum);
        let at = (column % length) as usize;
        if column < length {
            first[at] = rounded;
        } else if column < 2u32 * length {
            second[at] = rounded;
        } else {
            third[at] = rounded;
        }
    }
}

/// Three matrices of `[rows, columns]`, or vectors of `[columns]`, side by side.
pub fn join_columns(parts: [&CubeTensor; 3], out: &CubeTensor) {
    let shape = parts[0].meta.shape();
    let columns = shape[shape.num_dims() - 1];
    let total = 3 * shape.num_elements();
    let numbers = if columns.is_multiple_of(4) { 4 } else { 1 };
    move_columns(parts, out, columns, total, numbers, true);
}

/// The reverse of [`join_columns`].
pub fn split_columns(joined: &CubeTensor, outs: [&CubeTensor; 3]) {
    let shape = joined.meta.shape();
    let columns = shape[shape.num_dims() - 1] / 3;
    let numbers = if columns.is_multiple_of(4) { 4 } else { 1 };
    move_columns(outs, joined, columns, shape.num_elements(), numbers, false);
}

fn move_columns(
    parts: [&CubeTensor; 3],
    joined: &CubeTensor,
    columns: usize,
    total: usize,
    numbers: usize,
    together: bool,
) {
    let out = joined;
    let [first, second, third] = parts.map(|part| part.clone().into_buffer_arg());
    // SAFETY: every access is within the matrices.
    unsafe {
        exchange::launch_unchecked(
            &out.client,
            cubes(total / numbers, LINEAR.x),
            LINEAR,
            numbers,
            first,
            second,
            third,
            out.clone().into_buffer_arg(),
            (columns / numbers) as u32,
            (total / numbers) as u32,
            together,
            dtype_to_storage_type(out.dtype),
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn exchange<F: Float, N: Size>(
    first: &mut [Vector<F, N>],
    second: &mut [Vector<F, N>],
    third: &mut [Vector<F, N>],
    joined: &mut [Vector<F, N>],
    vectors: u32,
    total: u32,
    #[comptime] together: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = cube_number() * CUBE_DIM_X + UNIT_POS;
    if at < total {
        let row = at / (3u32 * vectors);
        let place = at % (3u32 * vectors);
        let from = (row * vectors + place % vectors) as usize;
        let at = at as usize;
        if place < vectors {
            exchange_vector(first, from, joined, at, together);
        } else if place < 2u32 * vectors {
            exchange_vector(second, from, joined, at, together);
        } else {
            exchange_vector(third, from, joined, at, together);
        }
    }
}

#[cube]
fn exchange_vector<F: Float, N: Size>(
    part: &mut [Vector<F, N>],
    from: usize,
    joined: &mut [Vector<F, N>],
    at: usize,
    #[comptime] together: bool,
) {
    if comptime!(together) {
        joined[at] = part[from];
    } else {
        part[from] = joined[at];
    }
}
