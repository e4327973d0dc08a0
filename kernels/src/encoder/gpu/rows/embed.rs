//! The embeddings' sum with its norm, and the gradients of the tables.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use super::{
    super::{
        super::{
            problem::{Dropout, EmbeddingCall},
            weights::{EmbeddingWeights, Norm},
        },
        layer::{new, view},
    },
    CUBE_ROWS, DropArgs, LANES, UNITS, Width, cube_number, cubes, dropped, has_planes,
    norm::NormBackward,
    row_sum, vector_sum,
};

/// Units of a cube that adds up the rows of an id.
const ADDERS: u32 = 64;

/// Sizes of the embeddings.
#[derive(CubeType, CubeLaunch)]
struct EmbedArgs {
    rows: u32,
    tokens: u32,
    /// Where these lists begin in the words of the texts.
    ids: u32,
    texts_of_rows: u32,
    position_offset: u32,
    epsilon: f32,
}

impl EmbedArgs {
    fn of(call: &EmbeddingCall) -> EmbedArgsLaunch {
        EmbedArgsLaunch {
            rows: call.texts.rows() as u32,
            tokens: call.texts.tokens as u32,
            ids: call.texts.ids().start as u32,
            texts_of_rows: call.texts.texts_of_rows().start as u32,
            position_offset: call.position_offset as u32,
            epsilon: call.epsilon,
        }
    }
}

/// What the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Options {
    segments: bool,
    dropped: bool,
    planes: bool,
}

/// The normed sums, `[rows, dim]`, zero in rows without a token; statistics into `kept`.
pub fn embed(
    weights: &EmbeddingWeights<CubeBackend>,
    texts: &CubeTensor,
    call: &EmbeddingCall,
    y: &CubeTensor,
    kept: &CubeTensor,
) {
    let width = Width::new(call.dim);
    // SAFETY: ids are those of the table, which the caller answers for; all else is within rows and width.
    unsafe {
        forward::launch_unchecked(
            &y.client,
            cubes(call.texts.rows(), CUBE_ROWS),
            CubeDim::new_1d(UNITS),
            width.numbers,
            weights.word.clone().into_buffer_arg(),
            weights.position.clone().into_buffer_arg(),
            segment(weights, call).clone().into_buffer_arg(),
            weights.norm.gamma.clone().into_buffer_arg(),
            weights.norm.beta.clone().into_buffer_arg(),
            texts.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            kept.clone().into_buffer_arg(),
            EmbedArgs::of(call),
            DropArgs::of(call.dropout),
            width,
            Options { segments: call.segments, dropped: call.dropout.is_active(), planes: has_planes(y) },
            dtype_to_storage_type(y.dtype),
        );
    }
}

/// The segments' table; any other where there is none.
fn segment<'a>(weights: &'a EmbeddingWeights<CubeBackend>, call: &EmbeddingCall) -> &'a CubeTensor {
    if call.segments { &weights.segment } else { &weights.word }
}

#[cube]
fn token_sum<F: Float, N: Size>(
    word: &[Vector<F, N>],
    position: &[Vector<F, N>],
    segment: &[Vector<F, N>],
    texts: &[u32],
    row: u32,
    vector: u32,
    args: &EmbedArgs,
    #[comptime] width: Width,
    #[comptime] segments: bool,
) -> Vector<f32, N> {
    let id = texts[(args.ids + row) as usize];
    let text = texts[(args.texts_of_rows + row) as usize];
    let place = row - texts[text as usize] + args.position_offset;
    let vectors = comptime!(width.vectors);
    let mut sum = Vector::<f32, N>::cast_from(word[id as usize * vectors + vector as usize])
        + Vector::<f32, N>::cast_from(position[place as usize * vectors + vector as usize]);
    if comptime!(segments) {
        sum += Vector::<f32, N>::cast_from(segment[vector as usize]);
    }
    sum
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward<F: Float, N: Size>(
    word: &[Vector<F, N>],
    position: &[Vector<F, N>],
    segment: &[Vector<F, N>],
    gamma: &[Vector<F, N>],
    beta: &[Vector<F, N>],
    texts: &[u32],
    y: &mut [Vector<F, N>],
    statistics: &mut [f32],
    args: &EmbedArgs,
    drop: &DropArgs,
    #[comptime] width: Width,
    #[comptime] options: Options,
    #[define(F)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let row = cube_number() * CUBE_ROWS + UNIT_POS / LANES;
    let lane = UNIT_POS % LANES;
    let numbers = comptime!(width.numbers);
    let count = comptime!((width.vectors * width.numbers) as f32);
    let mut values = Array::<Vector<f32, N>>::new(comptime!(width.each));
    let mut total = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for each in 0..comptime!(width.each) {
        let vector = lane + comptime!(each as u32 * LANES);
        let mut value = Vector::<f32, N>::new(0.0f32);
        if row < args.tokens && vector < comptime!(width.vectors as u32) {
            value = token_sum(word, position, segment, texts, row, vector, args, width, comptime!(options.segments));
        }
        values[each] = value;
        total += value;
    }
    let mean = row_sum(vector_sum(total, numbers), &mut shared, comptime!(options.planes)) / count;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for each in 0..comptime!(width.each) {
        let vector = lane + comptime!(each as u32 * LANES);
        if vector < comptime!(width.vectors as u32) {
            let centred = values[each] - Vector::<f32, N>::new(mean);
            squares += centred * centred;
        }
    }
    let variance = row_sum(vector_sum(squares, numbers), &mut shared, comptime!(options.planes)) / count;
    let reciprocal = 1.0f32 / (variance + args.epsilon).sqrt();
    #[unroll]
    for each in 0..comptime!(width.each) {
        let vector = lane + comptime!(each as u32 * LANES);
        if row < args.rows && vector < comptime!(width.vectors as u32) {
            let mut out = Vector::<f32, N>::new(0.0f32);
            if row < args.tokens {
                let normal = (values[each] - Vector::<f32, N>::new(mean)) * Vector::<f32, N>::new(reciprocal);
                let scaled = normal * Vector::<f32, N>::cast_from(gamma[vector as usize])
                    + Vector::<f32, N>::cast_from(beta[vector as usize]);
                let first = vector * comptime!(width.numbers as u32);
                out = dropped(scaled, row, first, drop, numbers, comptime!(options.dropped));
            }
            y[row as usize * comptime!(width.vectors) + vector as usize] = Vector::<F, N>::cast_from(out);
        }
    }
    if row < args.rows && lane == 0u32 {
        statistics[(2u32 * row) as usize] = mean;
        statistics[(2u32 * row + 1u32) as usize] = reciprocal;
    }
}

/// The gradients of the tables and of the norm.
pub fn embed_backward(
    gradient: &CubeTensor,
    weights: &EmbeddingWeights<CubeBackend>,
    kept: &CubeTensor,
    texts: &CubeTensor,
    call: &EmbeddingCall,
) -> EmbeddingWeights<CubeBackend> {
    let (rows, dim) = (call.texts.rows(), call.dim);
    let width = Width::new(dim);
    let [sum, by_norm, by_sum] = [0, 1, 2].map(|_| new(gradient, [rows, dim]));
    // SAFETY: as in `embed`.
    unsafe {
        prepare::launch_unchecked(
            &gradient.client,
            cubes(rows * width.vectors, UNITS),
            CubeDim::new_1d(UNITS),
            width.numbers,
            weights.word.clone().into_buffer_arg(),
            weights.position.clone().into_buffer_arg(),
            segment(weights, call).clone().into_buffer_arg(),
            texts.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            by_norm.clone().into_buffer_arg(),
            EmbedArgs::of(call),
            DropArgs::of(call.dropout),
            width,
            Options { segments: call.segments, dropped: call.dropout.is_active(), planes: false },
            dtype_to_storage_type(gradient.dtype),
        );
    }
    let like = |tensor: &CubeTensor| new(gradient, [tensor.meta.shape()[0], tensor.meta.shape()[1]]);
    let [gamma, beta, unused] = [0, 1, 2].map(|_| new(gradient, [dim]));
    let segment = if call.segments { like(&weights.segment) } else { unused.clone() };
    // The first segment's gradient is the sum over all tokens.
    let first_segment = view(&segment, 0..dim * segment.dtype.size(), [dim], segment.dtype);
    if call.segments {
        fill_zeros(&segment);
    }
    NormBackward {
        gradient: &by_norm,
        sum: &sum,
        statistics: kept,
        gamma: &weights.norm.gamma,
        beta: &weights.norm.beta,
        sum_gradient: &by_sum,
        update_gradient: None,
        y: None,
        gamma_gradient: &gamma,
        beta_gradient: &beta,
        bias_gradient: &first_segment,
        rows,
        width: dim,
        dropout: Dropout::NONE,
    }
    .launch();
    drop((sum, by_norm));
    let (word, position) = (like(&weights.word), like(&weights.position));
    let layout = &call.texts;
    for (table, list) in [
        (
            &word,
            List {
                count: layout.distinct,
                numbers: Some(layout.distinct_ids().start),
                offset: 0,
                starts: layout.id_starts().start,
                rows: layout.rows_by_id().start,
            },
        ),
        (
            &position,
            List {
                count: layout.longest,
                numbers: None,
                offset: call.position_offset,
                starts: layout.position_starts().start,
                rows: layout.rows_by_position().start,
            },
        ),
    ] {
        fill_zeros(table);
        add_rows(&by_sum, texts, &list, table, width);
    }
    EmbeddingWeights { word, position, segment, norm: Norm { gamma, beta } }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn prepare<F: Float, N: Size>(
    word: &[Vector<F, N>],
    position: &[Vector<F, N>],
    segment: &[Vector<F, N>],
    texts: &[u32],
    gradient: &[Vector<F, N>],
    sum: &mut [Vector<F, N>],
    by_norm: &mut [Vector<F, N>],
    args: &EmbedArgs,
    drop: &DropArgs,
    #[comptime] width: Width,
    #[comptime] options: Options,
    #[define(F)] _dtype: ElemType,
) {
    let at = cube_number() * UNITS + UNIT_POS;
    let row = at / comptime!(width.vectors as u32);
    let vector = at % comptime!(width.vectors as u32);
    if row < args.rows {
        let mut value = Vector::<f32, N>::new(0.0f32);
        let mut by_value = Vector::<f32, N>::new(0.0f32);
        if row < args.tokens {
            value = token_sum(word, position, segment, texts, row, vector, args, width, comptime!(options.segments));
            let first = vector * comptime!(width.numbers as u32);
            let by_y = Vector::<f32, N>::cast_from(gradient[at as usize]);
            by_value = dropped(by_y, row, first, drop, comptime!(width.numbers), comptime!(options.dropped));
        }
        sum[at as usize] = Vector::<F, N>::cast_from(value);
        by_norm[at as usize] = Vector::<F, N>::cast_from(by_value);
    }
}

fn fill_zeros(tensor: &CubeTensor) {
    let length = tensor.meta.shape().num_elements();
    let numbers = if length.is_multiple_of(4) { 4 } else { 1 };
    // SAFETY: every access is within the length.
    unsafe {
        zeros::launch_unchecked(
            &tensor.client,
            cubes(length / numbers, UNITS),
            CubeDim::new_1d(UNITS),
            numbers,
            tensor.clone().into_buffer_arg(),
            (length / numbers) as u32,
            dtype_to_storage_type(tensor.dtype),
        );
    }
}

#[cube(launch_unchecked)]
fn zeros<F: Float, N: Size>(out: &mut [Vector<F, N>], length: u32, #[define(F)] _dtype: ElemType) {
    let at = cube_number() * UNITS + UNIT_POS;
    if at < length {
        out[at as usize] = Vector::<F, N>::cast_from(Vector::<f32, N>::new(0.0f32));
    }
}

/// Which rows go into which row of a table, as lists among the words of the texts.
struct List {
    /// Rows of the table that get any.
    count: usize,
    /// Where their numbers lie; `None` if they are 0, 1 and so on.
    numbers: Option<usize>,
    /// Added to these numbers.
    offset: usize,
    /// Where each one's rows begin, and where the rows lie.
    starts: usize,
    rows: usize,
}

#[derive(CubeType, CubeLaunch)]
struct ListArgs {
    total: u32,
    numbers: u32,
    offset: u32,
    starts: u32,
    rows: u32,
}

fn add_rows(from: &CubeTensor, texts: &CubeTensor, list: &List, table: &CubeTensor, width: Width) {
    let total = list.count * width.vectors;
    if total == 0 {
        return;
    }
    // SAFETY: the lists name rows of both tensors.
    unsafe {
        gather::launch_unchecked(
            &from.client,
            cubes(total, ADDERS),
            CubeDim::new_1d(ADDERS),
            width.numbers,
            from.clone().into_buffer_arg(),
            texts.clone().into_buffer_arg(),
            table.clone().into_buffer_arg(),
            ListArgsLaunch {
                total: total as u32,
                numbers: list.numbers.unwrap_or(0) as u32,
                offset: list.offset as u32,
                starts: list.starts as u32,
                rows: list.rows as u32,
            },
            width,
            list.numbers.is_some(),
            dtype_to_storage_type(from.dtype),
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn gather<F: Float, N: Size>(
    from: &[Vector<F, N>],
    texts: &[u32],
    table: &mut [Vector<F, N>],
    list: &ListArgs,
    #[comptime] width: Width,
    #[comptime] numbered: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = cube_number() * ADDERS + UNIT_POS;
    if at < list.total {
        let vectors = comptime!(width.vectors as u32);
        let entry = at / vectors;
        let vector = at % vectors;
        let mut number = entry + list.offset;
        if comptime!(numbered) {
            number = texts[(list.numbers + entry) as usize] + list.offset;
        }
        let mut next = texts[(list.starts + entry) as usize];
        let end = texts[(list.starts + entry + 1u32) as usize];
        let mut sum = Vector::<f32, N>::new(0.0f32);
        while next < end {
            let row = texts[(list.rows + next) as usize];
            sum += Vector::<f32, N>::cast_from(from[row as usize * comptime!(width.vectors) + vector as usize]);
            next += 1u32;
        }
        table[number as usize * comptime!(width.vectors) + vector as usize] = Vector::<F, N>::cast_from(sum);
    }
}
