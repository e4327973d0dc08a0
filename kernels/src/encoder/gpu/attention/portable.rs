//! The attention on every device, in F32: four units have one query, or on the way to keys and values one key, of one
//! head of one text, a quarter of its numbers each; the others come through shared memory, a block at a time.
//!
//! Scores are computed as often as they are needed and never stored, nor is the dropout. Of each query its largest
//! score, the sum of the exponentials and the mean of the probabilities' gradients go from the first half of the
//! backward pass to the second.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::ElemType, prelude::*};

use super::Attention;
use crate::{
    gpu::memory::empty,
    numbers::device::{pair_bits, row_key},
};

/// Units of a row.
const QUARTERS: u32 = 4;
/// Rows of a cube: queries, or keys, of one head of one text.
const ROWS: u32 = 16;
/// Units of a cube.
const UNITS: u32 = ROWS * QUARTERS;
/// Numbers of shared memory for each of the two kinds that a block holds.
const SHARED: usize = 1024;

/// What the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    dim: usize,
    heads: usize,
    /// Numbers of a head.
    width: usize,
    /// Numbers of a unit.
    quarter: usize,
    /// Rows of a block in shared memory.
    block: usize,
    dropped: bool,
}

impl Shape {
    fn new(attention: &Attention) -> Self {
        let width = attention.dim / attention.heads;
        let quarter = width.div_ceil(QUARTERS as usize);
        Self {
            dim: attention.dim,
            heads: attention.heads,
            width,
            quarter,
            block: (SHARED / (QUARTERS as usize * quarter)).clamp(1, ROWS as usize),
            dropped: attention.dropout.is_active(),
        }
    }

    /// Numbers of a row in shared memory, whole quarters.
    const fn padded(self) -> usize {
        QUARTERS as usize * self.quarter
    }

    /// Quarters of the products of a cube's rows with those of a block.
    const fn products(self) -> usize {
        UNITS as usize * self.block
    }
}

#[derive(CubeType, CubeLaunch)]
struct Args {
    /// Where the list of texts by length begins.
    order: u32,
    /// Rows that belong to a token, and all.
    tokens: u32,
    rows: u32,
    scale: f32,
    key: u32,
    keep: u32,
    factor: f32,
}

impl Args {
    fn of(attention: &Attention) -> ArgsLaunch {
        let width = (attention.dim / attention.heads) as f32;
        ArgsLaunch {
            order: attention.texts.order().start as u32,
            tokens: attention.texts.tokens as u32,
            rows: attention.texts.rows() as u32,
            scale: width.sqrt().recip(),
            key: attention.dropout.key,
            keep: attention.dropout.keep,
            factor: attention.dropout.scale(),
        }
    }
}

/// A cube for every block of rows of every head of every text, the last text being the rows without a token.
fn cubes(attention: &Attention) -> CubeCount {
    let blocks = attention.texts.longest.div_ceil(ROWS as usize).max(1);
    CubeCount::Static(attention.texts.texts as u32 + 1, attention.heads as u32, blocks as u32)
}

pub fn forward(attention: &Attention, qkv: &CubeTensor, context: &CubeTensor) {
    // SAFETY: texts and heads are within the rows and columns of all tensors.
    unsafe {
        results::launch_unchecked(
            &qkv.client,
            cubes(attention),
            CubeDim::new_1d(UNITS),
            qkv.clone().into_buffer_arg(),
            attention.words.clone().into_buffer_arg(),
            context.clone().into_buffer_arg(),
            Args::of(attention),
            Shape::new(attention),
            dtype_to_storage_type(qkv.dtype),
        );
    }
}

pub fn backward(
    attention: &Attention,
    qkv: &CubeTensor,
    gradient: &CubeTensor,
    qkv_gradient: &CubeTensor,
    context: &CubeTensor,
) {
    let queries = empty(qkv, 3 * attention.heads * attention.texts.tokens, DType::F32);
    let shape = Shape::new(attention);
    // SAFETY: as in `forward`.
    unsafe {
        by_queries::launch_unchecked(
            &qkv.client,
            cubes(attention),
            CubeDim::new_1d(UNITS),
            qkv.clone().into_buffer_arg(),
            attention.words.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            context.clone().into_buffer_arg(),
            qkv_gradient.clone().into_buffer_arg(),
            queries.clone().into_buffer_arg(),
            Args::of(attention),
            shape,
            dtype_to_storage_type(qkv.dtype),
        );
        by_keys::launch_unchecked(
            &qkv.client,
            cubes(attention),
            CubeDim::new_1d(UNITS),
            qkv.clone().into_buffer_arg(),
            attention.words.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            qkv_gradient.clone().into_buffer_arg(),
            queries.into_buffer_arg(),
            Args::of(attention),
            shape,
            dtype_to_storage_type(qkv.dtype),
        );
    }
}

/// Which head of which text a cube has, and which row of it a unit.
#[derive(CubeType, Clone, Copy)]
struct Place {
    text: u32,
    head: u32,
    /// First row of the text, and rows.
    start: u32,
    length: u32,
    /// The unit's own row in the text; past the end for a unit without one.
    own: u32,
    /// Which of the row's units it is.
    quarter: u32,
}

#[cube]
fn place(texts: &[u32], args: &Args) -> Place {
    let text = texts[(args.order + CUBE_POS_X) as usize];
    let start = texts[text as usize];
    let length = texts[text as usize + 1] - start;
    let own = CUBE_POS_Z * ROWS + UNIT_POS / QUARTERS;
    Place { text, head: CUBE_POS_Y, start, length, own, quarter: UNIT_POS % QUARTERS }
}

/// Where a head's numbers begin in a row of queries (`part` 0), keys (1) or values (2).
#[cube]
fn number_at(row: u32, head: u32, part: u32, #[comptime] shape: Shape) -> usize {
    (row * 3u32 + part) as usize * comptime!(shape.dim) + head as usize * comptime!(shape.width)
}

/// Brings a head's numbers of the text's rows from `first` on into shared memory, zeros where there are none.
#[cube]
fn load<F: Float>(
    to: &mut Shared<[f32]>,
    from: &[F],
    place: &Place,
    first: u32,
    offset: usize,
    #[comptime] stride: usize,
    #[comptime] shape: Shape,
) {
    let mut at = UNIT_POS;
    while at < comptime!((shape.block * shape.padded()) as u32) {
        let row = first + at / comptime!(shape.padded() as u32);
        let column = at % comptime!(shape.padded() as u32);
        let mut number = 0.0f32.runtime();
        if row < place.length && column < comptime!(shape.width as u32) {
            number = f32::cast_from(from[(place.start + row) as usize * stride + offset + column as usize]);
        }
        to[at as usize] = number;
        at += UNITS;
    }
}

/// The unit's quarters of the products of its row with all rows of a block.
#[cube]
fn multiply(
    own: &Array<f32>,
    block: &Shared<[f32]>,
    products: &mut Shared<[f32]>,
    place: &Place,
    #[comptime] shape: Shape,
) {
    for row in 0..comptime!(shape.block as u32) {
        let from = row as usize * comptime!(shape.padded()) + place.quarter as usize * comptime!(shape.quarter);
        let mut sum = 0.0f32.runtime();
        #[unroll]
        for at in 0..comptime!(shape.quarter) {
            sum += own[at] * block[from + at];
        }
        products[(row * UNITS + UNIT_POS) as usize] = sum;
    }
}

/// The product of the unit's row with a row of the block, from all quarters.
#[cube]
fn product(products: &Shared<[f32]>, row: u32, place: &Place) -> f32 {
    let first = (row * UNITS + UNIT_POS - place.quarter) as usize;
    products[first] + products[first + 1] + products[first + 2] + products[first + 3]
}

/// `own += scale * row` of a block, the unit's quarter.
#[cube]
fn add(own: &mut Array<f32>, scale: f32, block: &Shared<[f32]>, row: u32, place: &Place, #[comptime] shape: Shape) {
    let from = row as usize * comptime!(shape.padded()) + place.quarter as usize * comptime!(shape.quarter);
    #[unroll]
    for at in 0..comptime!(shape.quarter) {
        own[at] += scale * block[from + at];
    }
}

#[cube]
fn multiply_all(own: &mut Array<f32>, scale: f32, #[comptime] shape: Shape) {
    #[unroll]
    for at in 0..comptime!(shape.quarter) {
        own[at] *= scale;
    }
}

/// What the probability of a pair is multiplied by.
#[cube]
fn factor(place: &Place, query: u32, key: u32, args: &Args, #[comptime] shape: Shape) -> f32 {
    let mut factor = 1.0f32.runtime();
    if comptime!(shape.dropped) {
        let of_head = row_key(args.key, place.text * comptime!(shape.heads as u32) + place.head, 0u32, 0u32);
        let bits = pair_bits(row_key(of_head, query, 0u32, 0u32), key / 2u32) >> (16u32 * (key % 2u32));
        factor = select(bits & 0xffffu32 < args.keep, args.factor, 0.0f32);
    }
    factor
}

/// Zeros in the rows without a token: the work of the cubes of no text.
#[cube]
fn fill_tail<F: Float>(out: &mut [F], args: &Args, #[comptime] columns: usize) {
    if CUBE_POS_Z == 0u32 {
        let mut at = args.tokens as usize * columns + (CUBE_POS_Y * UNITS + UNIT_POS) as usize;
        let end = args.rows as usize * columns;
        while at < end {
            out[at] = F::cast_from(0.0f32);
            at += (CUBE_COUNT_Y * UNITS) as usize;
        }
    }
}

/// The unit's quarter of the numbers that begin at `at`.
#[cube]
fn own_numbers<F: Float>(from: &[F], at: usize, place: &Place, #[comptime] shape: Shape) -> Array<f32> {
    let mut own = Array::<f32>::new(comptime!(shape.quarter));
    #[unroll]
    for number in 0..comptime!(shape.quarter) {
        let column = place.quarter as usize * comptime!(shape.quarter) + number;
        own[number] = 0.0f32;
        if place.own < place.length && column < comptime!(shape.width) {
            own[number] = f32::cast_from(from[at + column]);
        }
    }
    own
}

#[cube]
fn zeros(#[comptime] shape: Shape) -> Array<f32> {
    let mut own = Array::<f32>::new(comptime!(shape.quarter));
    #[unroll]
    for number in 0..comptime!(shape.quarter) {
        own[number] = 0.0f32;
    }
    own
}

#[cube]
fn store<F: Float>(out: &mut [F], at: usize, numbers: &Array<f32>, place: &Place, #[comptime] shape: Shape) {
    #[unroll]
    for number in 0..comptime!(shape.quarter) {
        let column = place.quarter as usize * comptime!(shape.quarter) + number;
        if place.own < place.length && column < comptime!(shape.width) {
            out[at + column] = F::cast_from(numbers[number]);
        }
    }
}

/// The largest product of the unit's row with the first `rows` of a block, or what was the largest before.
#[cube]
fn largest_of(products: &Shared<[f32]>, rows: u32, before: f32, args: &Args, place: &Place) -> f32 {
    let mut largest = before;
    for row in 0..rows {
        largest = f32::max(largest, product(products, row, place) * args.scale);
    }
    largest
}

#[cube(launch_unchecked)]
fn results<F: Float>(
    qkv: &[F],
    texts: &[u32],
    context: &mut [F],
    args: &Args,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    if CUBE_POS_X + 1u32 == CUBE_COUNT_X {
        fill_tail(context, args, comptime!(shape.dim));
        terminate!();
    }
    let place = place(texts, args);
    if CUBE_POS_Z * ROWS >= place.length {
        terminate!();
    }
    let mut keys = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.padded()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.padded()));
    let mut products = Shared::<[f32]>::new_slice(comptime!(shape.products()));
    let row = place.start + place.own;
    let query = own_numbers(qkv, number_at(row, place.head, 0u32, shape), &place, shape);
    let mut largest = f32::reinterpret(0xff80_0000u32.runtime());
    let mut sum = 0.0f32.runtime();
    let mut out = zeros(shape);
    let mut first = 0u32.runtime();
    while first < place.length {
        sync_cube();
        let stride = comptime!(3 * shape.dim);
        load(&mut keys, qkv, &place, first, number_at(0u32, place.head, 1u32, shape), stride, shape);
        load(&mut values, qkv, &place, first, number_at(0u32, place.head, 2u32, shape), stride, shape);
        sync_cube();
        multiply(&query, &keys, &mut products, &place, shape);
        sync_cube();
        let rows = u32::min(comptime!(shape.block as u32), place.length - first);
        let next = largest_of(&products, rows, largest, args, &place);
        let kept = (largest - next).exp();
        sum *= kept;
        multiply_all(&mut out, kept, shape);
        for at in 0..rows {
            let weight = (product(&products, at, &place) * args.scale - next).exp();
            sum += weight;
            add(&mut out, weight * factor(&place, place.own, first + at, args, shape), &values, at, &place, shape);
        }
        largest = next;
        first += comptime!(shape.block as u32);
    }
    multiply_all(&mut out, 1.0f32 / sum, shape);
    let at = row as usize * comptime!(shape.dim) + place.head as usize * comptime!(shape.width);
    store(context, at, &out, &place, shape);
}

/// The gradient by the queries, and the results again.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn by_queries<F: Float>(
    qkv: &[F],
    texts: &[u32],
    gradient: &[F],
    context: &mut [F],
    qkv_gradient: &mut [F],
    queries: &mut [f32],
    args: &Args,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    if CUBE_POS_X + 1u32 == CUBE_COUNT_X {
        fill_tail(context, args, comptime!(shape.dim));
        fill_tail(qkv_gradient, args, comptime!(3 * shape.dim));
        terminate!();
    }
    let place = place(texts, args);
    if CUBE_POS_Z * ROWS >= place.length {
        terminate!();
    }
    let mut keys = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.padded()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.padded()));
    let mut products = Shared::<[f32]>::new_slice(comptime!(shape.products()));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(shape.products()));
    let row = place.start + place.own;
    let at_result = row as usize * comptime!(shape.dim) + place.head as usize * comptime!(shape.width);
    let query = own_numbers(qkv, number_at(row, place.head, 0u32, shape), &place, shape);
    let by_result = own_numbers(gradient, at_result, &place, shape);
    let mut largest = f32::reinterpret(0xff80_0000u32.runtime());
    let mut sum = 0.0f32.runtime();
    let mut mean = 0.0f32.runtime();
    let mut result = zeros(shape);
    let mut by_query = zeros(shape);
    // First the results and the mean of the probabilities' gradients, then what needs it.
    for pass in 0..2u32 {
        let mut first = 0u32.runtime();
        while first < place.length {
            sync_cube();
            let stride = comptime!(3 * shape.dim);
            load(&mut keys, qkv, &place, first, number_at(0u32, place.head, 1u32, shape), stride, shape);
            load(&mut values, qkv, &place, first, number_at(0u32, place.head, 2u32, shape), stride, shape);
            sync_cube();
            multiply(&query, &keys, &mut products, &place, shape);
            multiply(&by_result, &values, &mut slopes, &place, shape);
            sync_cube();
            let rows = u32::min(comptime!(shape.block as u32), place.length - first);
            let mut next = largest;
            if pass == 0u32 {
                next = largest_of(&products, rows, largest, args, &place);
                let kept = (largest - next).exp();
                sum *= kept;
                mean *= kept;
                multiply_all(&mut result, kept, shape);
                largest = next;
            }
            for at in 0..rows {
                let weight = (product(&products, at, &place) * args.scale - next).exp();
                let factor = factor(&place, place.own, first + at, args, shape);
                let by_probability = product(&slopes, at, &place) * factor;
                if pass == 0u32 {
                    sum += weight;
                    mean += weight * by_probability;
                    add(&mut result, weight * factor, &values, at, &place, shape);
                } else {
                    let by_score = weight / sum * (by_probability - mean) * args.scale;
                    add(&mut by_query, by_score, &keys, at, &place, shape);
                }
            }
            first += comptime!(shape.block as u32);
        }
        if pass == 0u32 {
            mean /= sum;
        }
    }
    multiply_all(&mut result, 1.0f32 / sum, shape);
    store(context, at_result, &result, &place, shape);
    store(qkv_gradient, number_at(row, place.head, 0u32, shape), &by_query, &place, shape);
    if place.own < place.length && place.quarter == 0u32 {
        let at = 3usize * (place.head * args.tokens + row) as usize;
        queries[at] = largest;
        queries[at + 1] = sum;
        queries[at + 2] = mean;
    }
}

/// The gradients by keys and values.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn by_keys<F: Float>(
    qkv: &[F],
    texts: &[u32],
    gradient: &[F],
    qkv_gradient: &mut [F],
    of_queries: &[f32],
    args: &Args,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    if CUBE_POS_X + 1u32 == CUBE_COUNT_X {
        terminate!();
    }
    let place = place(texts, args);
    if CUBE_POS_Z * ROWS >= place.length {
        terminate!();
    }
    let mut queries = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.padded()));
    let mut by_results = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.padded()));
    let mut products = Shared::<[f32]>::new_slice(comptime!(shape.products()));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(shape.products()));
    let row = place.start + place.own;
    let key = own_numbers(qkv, number_at(row, place.head, 1u32, shape), &place, shape);
    let value = own_numbers(qkv, number_at(row, place.head, 2u32, shape), &place, shape);
    let mut by_key = zeros(shape);
    let mut by_value = zeros(shape);
    let mut first = 0u32.runtime();
    while first < place.length {
        sync_cube();
        let offset = place.head as usize * comptime!(shape.width);
        let at_queries = number_at(0u32, place.head, 0u32, shape);
        load(&mut queries, qkv, &place, first, at_queries, comptime!(3 * shape.dim), shape);
        load(&mut by_results, gradient, &place, first, offset, comptime!(shape.dim), shape);
        sync_cube();
        multiply(&key, &queries, &mut products, &place, shape);
        multiply(&value, &by_results, &mut slopes, &place, shape);
        sync_cube();
        let rows = u32::min(comptime!(shape.block as u32), place.length - first);
        for at in 0..rows {
            let of_query = 3usize * (place.head * args.tokens + place.start + first + at) as usize;
            let score = product(&products, at, &place) * args.scale;
            let probability = (score - of_queries[of_query]).exp() / of_queries[of_query + 1];
            let factor = factor(&place, first + at, place.own, args, shape);
            let by_probability = product(&slopes, at, &place) * factor;
            let by_score = probability * (by_probability - of_queries[of_query + 2]) * args.scale;
            add(&mut by_key, by_score, &queries, at, &place, shape);
            add(&mut by_value, probability * factor, &by_results, at, &place, shape);
        }
        first += comptime!(shape.block as u32);
    }
    store(qkv_gradient, number_at(row, place.head, 1u32, shape), &by_key, &place, shape);
    store(qkv_gradient, number_at(row, place.head, 2u32, shape), &by_value, &place, shape);
}
