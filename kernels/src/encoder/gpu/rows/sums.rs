//! Sums of columns in two steps of a fixed order, what goes over whole columns on the way, and matrices put side by side.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::ElemType, prelude::*};

use super::{
    super::{super::problem::Activation, activation::value_and_slope},
    cube_number, cubes,
};
use crate::gpu::{LINEAR, memory::empty};

/// Vectors of columns that a cube takes side by side.
const LANES: u32 = 32;
/// Rows, or partial sums, that it takes at a time.
const GROUPS: u32 = 8;
/// Units of a cube.
const UNITS: u32 = LANES * GROUPS;
/// Rows that a unit adds up, at least.
const ROWS: usize = 8;
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

/// Adds up partial sums, in a fixed order; the columns go to vectors of one type, one after the other.
pub fn add_parts(parts: &Parts, outs: [&CubeTensor; 3]) {
    let [first, second, third] = outs.map(|out| out.clone().into_buffer_arg());
    // SAFETY: every access is within the columns.
    unsafe {
        add::launch_unchecked(
            &parts.parts.client,
            cubes(parts.columns, LANES),
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
    walk(Walk { x, before: x, values: x, work: Work::Sums }, outs, length);
}

/// The way back through a non-linearity and the bias before it.
pub struct ActivationBackward<'a> {
    /// `[rows, columns]`: by the activation's value, and afterwards by its argument.
    pub gradient: &'a CubeTensor,
    /// `[rows, columns]`: the argument.
    pub before: &'a CubeTensor,
    /// `[rows, columns]`: where the value goes once more.
    pub values: &'a CubeTensor,
    /// `[columns]`: where the sums of the argument's gradient go.
    pub bias_gradient: &'a CubeTensor,
    pub activation: Activation,
}

impl ActivationBackward<'_> {
    pub fn launch(self) {
        let columns = self.gradient.meta.shape()[1];
        let work = Work::Activation(self.activation);
        let walk_all = Walk { x: self.gradient, before: self.before, values: self.values, work };
        walk(walk_all, [self.bias_gradient; 3], columns);
    }
}

/// What [`partial`] does on its way through the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// It adds up.
    Sums,
    /// It goes back through a non-linearity, and adds up what comes of it.
    Activation(Activation),
}

struct Walk<'a> {
    x: &'a CubeTensor,
    /// Any live buffer of the type, for this and the next one, where nothing but sums is wanted.
    before: &'a CubeTensor,
    values: &'a CubeTensor,
    work: Work,
}

fn walk(walk: Walk, outs: [&CubeTensor; 3], length: usize) {
    let Walk { x, before, values, work } = walk;
    let [rows, columns] = [x.meta.shape()[0], x.meta.shape()[1]];
    let count = rows.div_ceil(ROWS * GROUPS as usize).clamp(1, MOST_PARTS);
    let numbers = vector(x, columns);
    let parts = empty(x, count * columns, DType::F32);
    // SAFETY: every access is within rows and columns.
    unsafe {
        partial::launch_unchecked(
            &x.client,
            CubeCount::Static((columns / numbers).div_ceil(LANES as usize) as u32, count as u32, 1),
            CubeDim::new_1d(UNITS),
            numbers,
            x.clone().into_buffer_arg(),
            before.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            parts.clone().into_buffer_arg(),
            rows as u32,
            (columns / numbers) as u32,
            work,
            dtype_to_storage_type(x.dtype),
        );
    }
    add_parts(&Parts { parts: &parts, count, columns, length }, outs);
}

/// Numbers of the widest access that cuts rows of `columns` into whole ones.
fn vector(x: &CubeTensor, columns: usize) -> usize {
    x.client.io_optimized_vector_sizes(x.dtype.size()).find(|numbers| columns.is_multiple_of(*numbers)).unwrap_or(1)
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn partial<F: Float, N: Size>(
    x: &mut [Vector<F, N>],
    before: &[Vector<F, N>],
    values: &mut [Vector<F, N>],
    parts: &mut [Vector<f32, N>],
    rows: u32,
    vectors: u32,
    #[comptime] work: Work,
    #[define(F)] _dtype: ElemType,
) {
    let mut sums = Shared::<[Vector<f32, N>]>::new_slice(UNITS as usize);
    let vector = CUBE_POS_X * LANES + UNIT_POS % LANES;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    if vector < vectors {
        let mut row = CUBE_POS_Y * GROUPS + UNIT_POS / LANES;
        while row < rows {
            let at = row as usize * vectors as usize + vector as usize;
            let mut value = Vector::<f32, N>::cast_from(x[at]);
            if let Work::Activation(activation) = comptime!(work) {
                let argument = Vector::<f32, N>::cast_from(before[at]);
                let (activated, slopes) = value_and_slope(argument, activation);
                values[at] = Vector::<F, N>::cast_from(activated);
                let rounded = Vector::<F, N>::cast_from(value * slopes);
                x[at] = rounded;
                value = Vector::<f32, N>::cast_from(rounded);
            }
            sum += value;
            row += CUBE_COUNT_Y * GROUPS;
        }
    }
    sums[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS < LANES && vector < vectors {
        #[unroll]
        for group in 1..GROUPS {
            sum += sums[(UNIT_POS + group * LANES) as usize];
        }
        parts[CUBE_POS_Y as usize * vectors as usize + vector as usize] = sum;
    }
}

/// The values of a non-linearity, to a matrix of the argument's shape.
pub fn activate(before: &CubeTensor, values: &CubeTensor, activation: Activation) {
    let columns = before.meta.shape()[1];
    let numbers = vector(before, columns);
    let vectors = before.meta.shape().num_elements() / numbers;
    // SAFETY: every access is within the vectors.
    unsafe {
        activated::launch_unchecked(
            &before.client,
            cubes(vectors, LINEAR.x),
            LINEAR,
            numbers,
            before.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            vectors as u32,
            activation,
            dtype_to_storage_type(before.dtype),
        );
    }
}

#[cube(launch_unchecked)]
fn activated<F: Float, N: Size>(
    before: &[Vector<F, N>],
    values: &mut [Vector<F, N>],
    vectors: u32,
    #[comptime] activation: Activation,
    #[define(F)] _dtype: ElemType,
) {
    let at = cube_number() * CUBE_DIM_X + UNIT_POS;
    if at < vectors {
        let argument = Vector::<f32, N>::cast_from(before[at as usize]);
        let (activated, _slopes) = value_and_slope(argument, activation);
        values[at as usize] = Vector::<F, N>::cast_from(activated);
    }
}

/// `length` is that of each vector; there are as many columns as lanes that find theirs in one of the three.
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
    let mut sums = Shared::<[f32]>::new_slice(UNITS as usize);
    let column = cube_number() * LANES + UNIT_POS % LANES;
    let columns = parts.len() as u32 / count;
    let mut sum = 0.0f32.runtime();
    if column < columns {
        let mut part = UNIT_POS / LANES;
        while part < count {
            sum += parts[(part * columns + column) as usize];
            part += GROUPS;
        }
    }
    sums[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS < LANES && column < columns {
        #[unroll]
        for group in 1..GROUPS {
            sum += sums[(UNIT_POS + group * LANES) as usize];
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
