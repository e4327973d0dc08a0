//! The attention on every device, in F32: a unit has one query, or on the way to keys and values one key, of one head
//! of one text; the others come through shared memory, a block at a time.
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

/// Units of a cube: queries, or keys, of one head of one text.
const UNITS: u32 = 64;
/// Numbers of shared memory for each of the two kinds that a block holds.
const SHARED: usize = 2048;

/// What the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    dim: usize,
    heads: usize,
    /// Numbers of a head.
    width: usize,
    /// Rows of a block in shared memory.
    block: usize,
    dropped: bool,
}

impl Shape {
    fn new(attention: &Attention) -> Self {
        let width = attention.dim / attention.heads;
        Self {
            dim: attention.dim,
            heads: attention.heads,
            width,
            block: (SHARED / width).clamp(1, UNITS as usize),
            dropped: attention.dropout.is_active(),
        }
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
    let blocks = attention.texts.longest.div_ceil(UNITS as usize).max(1);
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

/// Which head of which text a cube has.
#[derive(CubeType, Clone, Copy)]
struct Place {
    text: u32,
    head: u32,
    /// First row of the text, and rows.
    start: u32,
    length: u32,
    /// The unit's own row in the text; past the end for a unit without one.
    own: u32,
}

#[cube]
fn place(texts: &[u32], args: &Args) -> Place {
    let text = texts[(args.order + CUBE_POS_X) as usize];
    let start = texts[text as usize];
    let length = texts[text as usize + 1] - start;
    Place { text, head: CUBE_POS_Y, start, length, own: CUBE_POS_Z * UNITS + UNIT_POS }
}

/// Where a head's numbers begin in a row of queries (`part` 0), keys (1) or values (2).
#[cube]
fn number_at(row: u32, head: u32, part: u32, #[comptime] shape: Shape) -> usize {
    (row * 3u32 + part) as usize * comptime!(shape.dim) + head as usize * comptime!(shape.width)
}

/// Brings a head's numbers of the rows from `first` on into shared memory, as far as there are any.
#[cube]
fn load<F: Float>(
    to: &mut Shared<[f32]>,
    from: &[F],
    first: u32,
    end: u32,
    offset: usize,
    stride: usize,
    #[comptime] shape: Shape,
) {
    let mut at = UNIT_POS;
    while at < comptime!((shape.block * shape.width) as u32) {
        let row = first + at / comptime!(shape.width as u32);
        let column = at % comptime!(shape.width as u32);
        let mut number = 0.0f32.runtime();
        if row < end {
            number = f32::cast_from(from[row as usize * stride + offset + column as usize]);
        }
        to[at as usize] = number;
        at += UNITS;
    }
}

#[cube]
fn dot(own: &Array<f32>, shared: &Shared<[f32]>, row: u32, #[comptime] shape: Shape) -> f32 {
    let mut sum = 0.0f32.runtime();
    for at in 0..comptime!(shape.width) {
        sum += own[at] * shared[row as usize * comptime!(shape.width) + at];
    }
    sum
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

/// The unit's numbers of one kind.
#[cube]
fn own_numbers<F: Float>(from: &[F], at: usize, inside: bool, #[comptime] shape: Shape) -> Array<f32> {
    let mut own = Array::<f32>::new(comptime!(shape.width));
    for number in 0..comptime!(shape.width) {
        own[number] = 0.0f32;
        if inside {
            own[number] = f32::cast_from(from[at + number]);
        }
    }
    own
}

#[cube]
fn zeros(#[comptime] shape: Shape) -> Array<f32> {
    let mut own = Array::<f32>::new(comptime!(shape.width));
    for number in 0..comptime!(shape.width) {
        own[number] = 0.0f32;
    }
    own
}

#[cube]
fn store<F: Float>(out: &mut [F], at: usize, numbers: &Array<f32>, #[comptime] shape: Shape) {
    for number in 0..comptime!(shape.width) {
        out[at + number] = F::cast_from(numbers[number]);
    }
}

/// The largest score of the unit's query, and the sum of the exponentials.
#[cube]
fn maximum_and_sum<F: Float>(
    qkv: &[F],
    query: &Array<f32>,
    keys: &mut Shared<[f32]>,
    place: &Place,
    args: &Args,
    #[comptime] shape: Shape,
) -> (f32, f32) {
    let mut largest = f32::reinterpret(0xff80_0000u32.runtime());
    let mut sum = 0.0f32.runtime();
    let mut first = 0u32.runtime();
    while first < place.length {
        sync_cube();
        let end = place.start + place.length;
        let offset = number_at(0u32, place.head, 1u32, shape);
        load(keys, qkv, place.start + first, end, offset, comptime!(3 * shape.dim), shape);
        sync_cube();
        let rows = u32::min(comptime!(shape.block as u32), place.length - first);
        for row in 0..rows {
            let score = dot(query, &*keys, row, shape) * args.scale;
            let next = f32::max(largest, score);
            sum = sum * (largest - next).exp() + (score - next).exp();
            largest = next;
        }
        first += comptime!(shape.block as u32);
    }
    (largest, sum)
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
    if CUBE_POS_Z * UNITS >= place.length {
        terminate!();
    }
    let mut keys = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.width));
    let mut values = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.width));
    let inside = place.own < place.length;
    let row = place.start + place.own;
    let query = own_numbers(qkv, number_at(row, place.head, 0u32, shape), inside, shape);
    let (largest, sum) = maximum_and_sum(qkv, &query, &mut keys, &place, args, shape);
    let mut out = zeros(shape);
    let mut first = 0u32.runtime();
    while first < place.length {
        sync_cube();
        let end = place.start + place.length;
        let stride = comptime!(3 * shape.dim);
        load(&mut keys, qkv, place.start + first, end, number_at(0u32, place.head, 1u32, shape), stride, shape);
        load(&mut values, qkv, place.start + first, end, number_at(0u32, place.head, 2u32, shape), stride, shape);
        sync_cube();
        let rows = u32::min(comptime!(shape.block as u32), place.length - first);
        for at in 0..rows {
            let score = dot(&query, &keys, at, shape) * args.scale;
            let probability = (score - largest).exp() / sum * factor(&place, place.own, first + at, args, shape);
            for number in 0..comptime!(shape.width) {
                out[number] += probability * values[at as usize * comptime!(shape.width) + number];
            }
        }
        first += comptime!(shape.block as u32);
    }
    if inside {
        store(context, row as usize * comptime!(shape.dim) + place.head as usize * comptime!(shape.width), &out, shape);
    }
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
    if CUBE_POS_Z * UNITS >= place.length {
        terminate!();
    }
    let mut keys = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.width));
    let mut values = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.width));
    let inside = place.own < place.length;
    let row = place.start + place.own;
    let at_result = row as usize * comptime!(shape.dim) + place.head as usize * comptime!(shape.width);
    let query = own_numbers(qkv, number_at(row, place.head, 0u32, shape), inside, shape);
    let by_result = own_numbers(gradient, at_result, inside, shape);
    let (largest, sum) = maximum_and_sum(qkv, &query, &mut keys, &place, args, shape);
    let mut result = zeros(shape);
    let mut by_query = zeros(shape);
    let mut mean = 0.0f32.runtime();
    // First the mean of the probabilities' gradients, then what needs it.
    for pass in 0..2u32 {
        let mut first = 0u32.runtime();
        while first < place.length {
            sync_cube();
            let end = place.start + place.length;
            let stride = comptime!(3 * shape.dim);
            load(&mut keys, qkv, place.start + first, end, number_at(0u32, place.head, 1u32, shape), stride, shape);
            load(&mut values, qkv, place.start + first, end, number_at(0u32, place.head, 2u32, shape), stride, shape);
            sync_cube();
            let rows = u32::min(comptime!(shape.block as u32), place.length - first);
            for at in 0..rows {
                let score = dot(&query, &keys, at, shape) * args.scale;
                let probability = (score - largest).exp() / sum;
                let factor = factor(&place, place.own, first + at, args, shape);
                let by_probability = dot(&by_result, &values, at, shape) * factor;
                if pass == 0u32 {
                    mean += probability * by_probability;
                    for number in 0..comptime!(shape.width) {
                        result[number] += probability * factor * values[at as usize * comptime!(shape.width) + number];
                    }
                } else {
                    let by_score = probability * (by_probability - mean) * args.scale;
                    for number in 0..comptime!(shape.width) {
                        by_query[number] += by_score * keys[at as usize * comptime!(shape.width) + number];
                    }
                }
            }
            first += comptime!(shape.block as u32);
        }
    }
    if inside {
        store(context, at_result, &result, shape);
        store(qkv_gradient, number_at(row, place.head, 0u32, shape), &by_query, shape);
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
    if CUBE_POS_Z * UNITS >= place.length {
        terminate!();
    }
    let mut queries = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.width));
    let mut by_results = Shared::<[f32]>::new_slice(comptime!(shape.block * shape.width));
    let inside = place.own < place.length;
    let row = place.start + place.own;
    let key = own_numbers(qkv, number_at(row, place.head, 1u32, shape), inside, shape);
    let value = own_numbers(qkv, number_at(row, place.head, 2u32, shape), inside, shape);
    let mut by_key = zeros(shape);
    let mut by_value = zeros(shape);
    let mut first = 0u32.runtime();
    while first < place.length {
        sync_cube();
        let end = place.start + place.length;
        let stride = comptime!(3 * shape.dim);
        load(&mut queries, qkv, place.start + first, end, number_at(0u32, place.head, 0u32, shape), stride, shape);
        let offset = place.head as usize * comptime!(shape.width);
        load(&mut by_results, gradient, place.start + first, end, offset, comptime!(shape.dim), shape);
        sync_cube();
        let rows = u32::min(comptime!(shape.block as u32), place.length - first);
        for at in 0..rows {
            let of_query = 3usize * (place.head * args.tokens + place.start + first + at) as usize;
            let score = dot(&key, &queries, at, shape) * args.scale;
            let probability = (score - of_queries[of_query]).exp() / of_queries[of_query + 1];
            let factor = factor(&place, first + at, place.own, args, shape);
            let by_probability = dot(&value, &by_results, at, shape) * factor;
            let by_score = probability * (by_probability - of_queries[of_query + 2]) * args.scale;
            let dropped = probability * factor;
            for number in 0..comptime!(shape.width) {
                let place = at as usize * comptime!(shape.width) + number;
                by_key[number] += by_score * queries[place];
                by_value[number] += dropped * by_results[place];
            }
        }
        first += comptime!(shape.block as u32);
    }
    if inside {
        store(qkv_gradient, number_at(row, place.head, 1u32, shape), &by_key, shape);
        store(qkv_gradient, number_at(row, place.head, 2u32, shape), &by_value, shape);
    }
}
