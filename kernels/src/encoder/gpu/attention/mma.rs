//! The attention on devices with matrix instructions: operands of 16 bits, sums in F32.
//!
//! The rows of a head of a text lie in shared memory, all of them, so that neither a running maximum nor a second pass
//! over memory is needed. A plane takes 16 rows at a time: queries, whose scores stay in registers, and on the way to
//! keys and values 16 keys. Where all texts are short a plane has a head to itself, else four planes share one. How many
//! keys the registers have room for is chosen by the longest text; loops end with the text that a cube has.
//!
//! Probabilities and their gradients are rounded to 16 bits for the second product. The backward pass computes them
//! twice, by queries and by keys: so no sum crosses planes, and it is the same, bit for bit, every time.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{
    features::MmaConfig,
    ir::{ElemType, FloatKind},
    prelude::*,
};

use super::Attention;
use crate::{
    gpu::ptx::{
        Sums, Words2, Words4, copy_async, end_copy_group, load_matrices, multiply_add, pack, shared_address, unpack,
        value, wait_for_copies,
    },
    numbers::{
        Format,
        device::{pair_bits, row_key},
    },
    path::KernelPath,
};

/// Units of a plane: a fact of every device that has these instructions.
const PLANE: u32 = 32;
/// Planes of a cube.
const PLANES: u32 = 4;
/// Rows of a tile.
const TILE: u32 = 16;
/// Tiles of the longest text: its scores have to fit into registers.
const MOST_TILES: usize = 16;
/// Tiles of a text that one plane does by itself.
const TILES_OF_PLANE: usize = 2;
/// A score that no probability is left of.
const NOTHING: f32 = -1.0e30;

/// Matrices of a head in shared memory: queries, keys, values.
pub const FORWARD: usize = 3;
/// And the gradient by the head's results.
pub const BACKWARD: usize = 4;

/// What the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Numbers of a head.
    width: usize,
    /// Tiles that the longest text may have.
    tiles: usize,
    /// Heads that a cube has, of the same text.
    heads: u32,
    /// See [`FORWARD`] and [`BACKWARD`].
    matrices: usize,
    half: Format,
    dropped: bool,
}

impl Shape {
    /// 16-byte parts of a row.
    const fn parts(self) -> u32 {
        self.width as u32 / 8
    }

    /// Parts of one matrix.
    const fn matrix(self) -> u32 {
        self.tiles as u32 * TILE * self.parts()
    }

    /// Parts of a head: its matrices, and in the backward pass one for each query.
    const fn head(self) -> u32 {
        let queries = if self.matrices == BACKWARD { self.tiles as u32 * TILE } else { 0 };
        self.matrices as u32 * self.matrix() + queries
    }

    const fn memory(self) -> usize {
        (self.heads * self.head()) as usize
    }

    /// Planes that share a head.
    const fn planes(self) -> u32 {
        PLANES / self.heads
    }
}

#[derive(CubeType, CubeLaunch)]
struct Args {
    /// Where the list of texts by length begins.
    order: u32,
    /// Rows that belong to a token, and all.
    tokens: u32,
    rows: u32,
    dim: u32,
    heads: u32,
    scale: f32,
    key: u32,
    keep: u32,
    factor: f32,
}

/// The kernels for one batch.
pub struct Mma<'a> {
    attention: &'a Attention<'a>,
    shape: Shape,
}

impl<'a> Mma<'a> {
    /// With room for so many `matrices` of a head; `None` if there are no kernels for it on this device.
    pub fn new(attention: &'a Attention<'a>, qkv: &CubeTensor, matrices: usize) -> Option<Self> {
        let (half, kind) = match qkv.dtype {
            DType::BF16 => (Format::Bf16, FloatKind::BF16),
            DType::F16 => (Format::F16, FloatKind::F16),
            _ => return None,
        };
        let tiles = attention.texts.longest.div_ceil(TILE as usize).max(1).next_power_of_two();
        let shape = Shape {
            width: attention.width(),
            tiles,
            heads: if tiles <= TILES_OF_PLANE { PLANES } else { 1 },
            matrices,
            half,
            dropped: attention.dropout.is_active(),
        };
        let properties = qkv.client.properties();
        let instruction = MmaConfig {
            a_type: ElemType::Float(kind),
            b_type: ElemType::Float(kind),
            cd_type: ElemType::Float(FloatKind::F32),
            m: 16,
            n: 8,
            k: 16,
        };
        // The instructions are written in PTX.
        let possible = attention.most >= KernelPath::TensorCores
            && qkv.client.name().contains("cuda")
            && properties.features.matmul.mma.contains(&instruction)
            && matches!(shape.width, 32 | 64 | 128)
            && tiles <= MOST_TILES
            && 16 * shape.memory() <= properties.hardware.max_shared_memory_size;
        possible.then_some(Self { attention, shape })
    }

    pub fn forward(&self, qkv: &CubeTensor, context: &CubeTensor) {
        // SAFETY: texts and heads are within the rows and columns of all tensors, texts no longer than the longest.
        unsafe {
            mma_results::launch_unchecked(
                &qkv.client,
                self.cubes(),
                CubeDim::new_1d(PLANES * PLANE),
                qkv.clone().into_buffer_arg(),
                self.attention.words.clone().into_buffer_arg(),
                context.clone().into_buffer_arg(),
                self.args(),
                self.shape,
            );
        }
    }

    pub fn backward(&self, qkv: &CubeTensor, gradient: &CubeTensor, qkv_gradient: &CubeTensor, context: &CubeTensor) {
        // SAFETY: as in `forward`.
        unsafe {
            mma_gradients::launch_unchecked(
                &qkv.client,
                self.cubes(),
                CubeDim::new_1d(PLANES * PLANE),
                qkv.clone().into_buffer_arg(),
                self.attention.words.clone().into_buffer_arg(),
                gradient.clone().into_buffer_arg(),
                context.clone().into_buffer_arg(),
                qkv_gradient.clone().into_buffer_arg(),
                self.args(),
                self.shape,
            );
        }
    }

    /// Cubes for all heads of every text, the last text being the rows without a token.
    fn cubes(&self) -> CubeCount {
        let heads = self.attention.heads.div_ceil(self.shape.heads as usize);
        CubeCount::Static(self.attention.texts.texts as u32 + 1, heads as u32, 1)
    }

    fn args(&self) -> ArgsLaunch {
        let Attention { texts, dim, heads, dropout, .. } = self.attention;
        ArgsLaunch {
            order: texts.order().start as u32,
            tokens: texts.tokens as u32,
            rows: texts.rows() as u32,
            dim: *dim as u32,
            heads: *heads as u32,
            scale: (self.shape.width as f32).sqrt().recip(),
            key: dropout.key,
            keep: dropout.keep,
            factor: dropout.scale(),
        }
    }
}

/// Which head of which text a plane has, and where its matrices lie in shared memory.
#[derive(CubeType, Clone, Copy)]
struct Place {
    /// First row of the text, and rows.
    start: u32,
    length: u32,
    head: u32,
    /// Of the dropout of this head of this text.
    key: u32,
    /// The first tile of rows that the plane has; others follow at distances of [`Shape::planes`].
    first: u32,
    /// Addresses of the matrices, `[rows, width]`.
    queries: u32,
    keys: u32,
    values: u32,
    gradients: u32,
    /// Where what is known of each query begins, in parts.
    known: u32,
}

#[cube]
fn place(memory: &Shared<[Words4]>, texts: &[u32], args: &Args, #[comptime] shape: Shape) -> Place {
    let plane = UNIT_POS / PLANE;
    let planes = comptime!(shape.planes());
    let matrix = comptime!(16 * shape.matrix());
    let text = texts[(args.order + CUBE_POS_X) as usize];
    let start = texts[text as usize];
    let head = CUBE_POS_Y * comptime!(shape.heads) + plane / planes;
    let slot = plane / planes * comptime!(shape.head());
    let address = shared_address(memory) + slot * 16u32;
    Place {
        start,
        length: texts[text as usize + 1] - start,
        head,
        key: row_key(args.key, text * args.heads + head, 0u32, 0u32),
        first: plane % planes,
        queries: address,
        keys: address + matrix,
        values: address + 2u32 * matrix,
        gradients: address + 3u32 * matrix,
        known: slot + comptime!(shape.matrices as u32 * shape.matrix()),
    }
}

/// Where a 16-byte part of a row lies, in bytes: parts change places by the row, so that the eight rows that a matrix
/// takes its parts from lie in different banks.
#[cube]
fn part_place(row: u32, part: u32, #[comptime] shape: Shape) -> u32 {
    let parts = comptime!(shape.parts());
    let key = if comptime!(parts >= 8) { row % 8u32 } else { row / 2u32 % 4u32 };
    (row * parts + (part ^ key)) * 16u32
}

/// Begins to copy a head's numbers of all rows of its text, which begin in part `at` of the first and are `stride` parts
/// from one row to the next; zeros behind them, up to a whole tile.
#[cube]
fn copy_rows(to: u32, from: &[Words4], at: u32, stride: u32, place: &Place, #[comptime] shape: Shape) {
    let parts = comptime!(shape.parts());
    let units = comptime!(shape.planes() * PLANE);
    let end = place.length.div_ceil(TILE) * comptime!(TILE * shape.parts());
    for i in range_stepped(UNIT_POS % units, end, units) {
        let row = i / parts;
        let part = i % parts;
        let address = to + part_place(row, part, shape);
        copy_async(address, from, ((place.start + row) * stride + at + part) as usize, row < place.length);
    }
}

/// Brings queries, keys, and values into shared memory, and waits for nothing.
#[cube]
fn copy_qkv(qkv: &[Words4], place: &Place, args: &Args, #[comptime] shape: Shape) {
    let dim = args.dim / 8u32;
    let at = place.head * comptime!(shape.parts());
    copy_rows(place.queries, qkv, at, 3u32 * dim, place, shape);
    copy_rows(place.keys, qkv, at + dim, 3u32 * dim, place, shape);
    copy_rows(place.values, qkv, at + 2u32 * dim, 3u32 * dim, place, shape);
}

/// Row of a tile in which this unit's sums begin; the others are 8 further.
#[cube]
fn sums_row() -> u32 {
    UNIT_POS % PLANE / 4u32
}

/// Column of a tile in which this unit's sums begin.
#[cube]
fn sums_column() -> u32 {
    UNIT_POS % 4u32 * 2u32
}

/// 16 rows from `row` on at the depths from `8 part` on as a left operand; or, transposed, as two right ones whose
/// columns are these depths.
#[cube]
fn left_fragment(
    matrix: u32,
    row: u32,
    #[comptime] part: u32,
    #[comptime] transposed: bool,
    #[comptime] shape: Shape,
) -> Words4 {
    let lane = UNIT_POS % PLANE;
    let row = row + lane % 16u32;
    load_matrices(matrix + part_place(row, part + lane / 16u32, shape), transposed)
}

/// The same rows as two right operands whose columns are these rows.
#[cube]
fn right_fragments(matrix: u32, row: u32, #[comptime] part: u32, #[comptime] shape: Shape) -> Words4 {
    let lane = UNIT_POS % PLANE;
    let row = row + lane / 16u32 * 8u32 + lane % 8u32;
    load_matrices(matrix + part_place(row, part + lane / 8u32 % 2u32, shape), false)
}

/// One of two right operands.
#[cube]
fn one_of(words: Words4, #[comptime] which: usize) -> Words2 {
    let mut pair = Words2::empty();
    pair.insert(0usize, words.extract(comptime!(2 * which)));
    pair.insert(1usize, words.extract(comptime!(2 * which + 1)));
    pair
}

/// 16 rows over the whole width as left operands.
#[cube]
fn left_rows(matrix: u32, row: u32, #[comptime] shape: Shape) -> Array<Words4> {
    let mut rows = Array::<Words4>::new(comptime!(shape.width / 16));
    #[unroll]
    for k in 0..comptime!(shape.width / 16) {
        rows[k] = left_fragment(matrix, row, comptime!(2 * k as u32), false, shape);
    }
    rows
}

#[cube]
fn zeros(#[comptime] shape: Shape) -> Array<Sums> {
    let mut sums = Array::<Sums>::new(comptime!(shape.width / 8));
    #[unroll]
    for i in 0..comptime!(shape.width / 8) {
        sums[i] = Sums::new(0.0f32);
    }
    sums
}

/// The products of 16 rows with 16 rows of a matrix, 8 by 8: a tile of 16 x 16.
#[cube]
fn rows_by_rows(left: &Array<Words4>, matrix: u32, row: u32, #[comptime] shape: Shape) -> Array<Sums> {
    let mut sums = Array::<Sums>::new(2usize);
    sums[0usize] = Sums::new(0.0f32);
    sums[1usize] = Sums::new(0.0f32);
    #[unroll]
    for k in 0..comptime!(shape.width / 16) {
        let words = right_fragments(matrix, row, comptime!(2 * k as u32), shape);
        #[unroll]
        for i in 0..2usize {
            sums[i] = multiply_add(left[k], one_of(words, i), sums[i], comptime!(shape.half));
        }
    }
    sums
}

/// Adds the product of a tile with 16 rows of a matrix.
#[cube]
fn add_product(sums: &mut Array<Sums>, tile: &Array<Sums>, matrix: u32, row: u32, #[comptime] shape: Shape) {
    let half = comptime!(shape.half);
    let mut left = Words4::empty();
    #[unroll]
    for i in 0..2usize {
        let part = tile[i];
        left.insert(comptime!(2 * i), pack(part.extract(0usize), part.extract(1usize), half));
        left.insert(comptime!(2 * i + 1), pack(part.extract(2usize), part.extract(3usize), half));
    }
    #[unroll]
    for k in 0..comptime!(shape.width / 16) {
        let words = left_fragment(matrix, row, comptime!(2 * k as u32), true, shape);
        #[unroll]
        for i in 0..2usize {
            let at = comptime!(2 * k + i);
            sums[at] = multiply_add(left, one_of(words, i), sums[at], half);
        }
    }
}

/// `2^x`
#[cube]
fn exp2(x: f32) -> f32 {
    let d: f32;
    gpu_asm!("ex2.approx.ftz.f32 {d}, {x};", d = out(_) d, x = in(_) value::<f32>(x), options(pure, nomem));
    d
}

/// The scale of the scores where they are powers of two.
#[cube]
fn scale_of_2(args: &Args) -> f32 {
    args.scale * comptime!(std::f32::consts::LOG2_E)
}

/// The largest of the four units that have a row.
#[cube]
fn row_max(x: f32) -> f32 {
    let x = f32::max(x, plane_shuffle_xor(x, 1u32));
    f32::max(x, plane_shuffle_xor(x, 2u32))
}

#[cube]
fn row_sum(x: f32) -> f32 {
    let x = x + plane_shuffle_xor(x, 1u32);
    x + plane_shuffle_xor(x, 2u32)
}

/// What a probability is multiplied by whose 16 bits are the lower ones.
#[cube]
fn factor(bits: u32, args: &Args) -> f32 {
    select(bits & 0xffffu32 < args.keep, args.factor, 0.0f32)
}

/// What is known of a query before its gradients.
#[derive(CubeType, Clone, Copy)]
struct Query {
    /// Its largest score, as a power of two.
    largest: f32,
    /// `1 / sum`
    share: f32,
    /// Of its dropout.
    key: u32,
}

/// What the probabilities of a tile are multiplied by, 8 columns from `key` on; its rows are queries.
#[cube]
fn factors(upper: &Query, lower: &Query, key: u32, args: &Args) -> Sums {
    let pair = (key + sums_column()) / 2u32;
    let upper = pair_bits(upper.key, pair);
    let lower = pair_bits(lower.key, pair);
    let mut factors = Sums::empty();
    factors.insert(0usize, factor(upper, args));
    factors.insert(1usize, factor(upper >> 16u32, args));
    factors.insert(2usize, factor(lower, args));
    factors.insert(3usize, factor(lower >> 16u32, args));
    factors
}

/// 16 queries and all keys of a text.
#[derive(CubeType)]
struct Probabilities {
    /// `[2 tiles]`: those of 8 keys each, before the dropout; of keys past the text nothing, or not set.
    tiles: Array<Sums>,
    /// The two queries that a unit has numbers of.
    upper: Query,
    lower: Query,
}

#[cube]
fn probabilities(row: u32, place: &Place, args: &Args, #[comptime] shape: Shape) -> Probabilities {
    let queries = left_rows(place.queries, row, shape);
    let scale = scale_of_2(args);
    let mut tiles = Array::<Sums>::new(comptime!(2 * shape.tiles));
    let mut upper = NOTHING.runtime();
    let mut lower = NOTHING.runtime();
    #[unroll]
    for step in 0..comptime!(shape.tiles) {
        let key = comptime!(step as u32 * TILE);
        if key < place.length {
            let products = rows_by_rows(&queries, place.keys, key, shape);
            #[unroll]
            for i in 0..2usize {
                let product = products[i];
                let column = comptime!(step as u32 * TILE + 8 * i as u32) + sums_column();
                let mut scores = Sums::empty();
                #[unroll]
                for j in 0..4usize {
                    let inside = column + comptime!(j as u32 % 2) < place.length;
                    scores.insert(j, select(inside, product.extract(j) * scale, NOTHING));
                }
                upper = f32::max(upper, f32::max(scores.extract(0usize), scores.extract(1usize)));
                lower = f32::max(lower, f32::max(scores.extract(2usize), scores.extract(3usize)));
                tiles[comptime!(2 * step + i)] = scores;
            }
        }
    }
    let upper = row_max(upper);
    let lower = row_max(lower);
    let mut upper_sum = 0.0f32.runtime();
    let mut lower_sum = 0.0f32.runtime();
    #[unroll]
    for step in 0..comptime!(shape.tiles) {
        if comptime!(step as u32 * TILE) < place.length {
            #[unroll]
            for i in 0..2usize {
                let scores = tiles[comptime!(2 * step + i)];
                let mut exps = Sums::empty();
                #[unroll]
                for j in 0..2usize {
                    exps.insert(j, exp2(scores.extract(j) - upper));
                    exps.insert(comptime!(j + 2), exp2(scores.extract(comptime!(j + 2)) - lower));
                }
                upper_sum += exps.extract(0usize) + exps.extract(1usize);
                lower_sum += exps.extract(2usize) + exps.extract(3usize);
                tiles[comptime!(2 * step + i)] = exps;
            }
        }
    }
    let upper_share = 1.0f32 / row_sum(upper_sum);
    let lower_share = 1.0f32 / row_sum(lower_sum);
    #[unroll]
    for step in 0..comptime!(shape.tiles) {
        if comptime!(step as u32 * TILE) < place.length {
            #[unroll]
            for i in 0..2usize {
                let exps = tiles[comptime!(2 * step + i)];
                tiles[comptime!(2 * step + i)] = exps * of_rows(upper_share, lower_share);
            }
        }
    }
    let query = row + sums_row();
    Probabilities {
        tiles,
        upper: Query { largest: upper, share: upper_share, key: row_key(place.key, query, 0u32, 0u32) },
        lower: Query { largest: lower, share: lower_share, key: row_key(place.key, query + 8u32, 0u32, 0u32) },
    }
}

/// A number of each row beside all of the unit's columns.
#[cube]
fn of_rows(upper: f32, lower: f32) -> Sums {
    let mut sums = Sums::empty();
    sums.insert(0usize, upper);
    sums.insert(1usize, upper);
    sums.insert(2usize, lower);
    sums.insert(3usize, lower);
    sums
}

/// The results of 16 queries.
#[cube]
fn results(probabilities: &Probabilities, place: &Place, args: &Args, #[comptime] shape: Shape) -> Array<Sums> {
    let mut sums = zeros(shape);
    #[unroll]
    for step in 0..comptime!(shape.tiles) {
        let key = comptime!(step as u32 * TILE);
        if key < place.length {
            let mut tile = Array::<Sums>::new(2usize);
            #[unroll]
            for i in 0..2usize {
                tile[i] = probabilities.tiles[comptime!(2 * step + i)];
                if comptime!(shape.dropped) {
                    let key = comptime!(step as u32 * TILE + 8 * i as u32);
                    tile[i] *= factors(&probabilities.upper, &probabilities.lower, key.runtime(), args);
                }
            }
            add_product(&mut sums, &tile, place.values, key.runtime(), shape);
        }
    }
    sums
}

/// Stores a unit's numbers of 16 rows from `row` on of the text, as far as there are any; `at` is the pair of columns
/// with which the head begins, of `stride` in a row.
#[cube]
fn store(
    out: &mut [u32],
    sums: &Array<Sums>,
    scale: f32,
    row: u32,
    at: u32,
    stride: u32,
    place: &Place,
    #[comptime] shape: Shape,
) {
    let half = comptime!(shape.half);
    let row = row + sums_row();
    let to = (place.start + row) * stride + at + sums_column() / 2u32;
    #[unroll]
    for i in 0..comptime!(shape.width / 8) {
        let part = sums[i] * Sums::new(scale);
        let column = comptime!(4 * i as u32);
        if row < place.length {
            out[(to + column) as usize] = pack(part.extract(0usize), part.extract(1usize), half);
        }
        if row + 8u32 < place.length {
            out[(to + 8u32 * stride + column) as usize] = pack(part.extract(2usize), part.extract(3usize), half);
        }
    }
}

/// Zeros in the rows without a token, `stride` pairs each: the work of the cubes of no text.
#[cube]
fn fill_tail(out: &mut [u32], stride: u32, args: &Args) {
    let units = CUBE_COUNT_Y * comptime!(PLANES * PLANE);
    let unit = CUBE_POS_Y * comptime!(PLANES * PLANE) + UNIT_POS;
    for at in range_stepped(args.tokens * stride + unit, args.rows * stride, units) {
        out[at as usize] = 0u32;
    }
}

/// The heads' results.
///
/// # Shapes
/// - `qkv`: `[rows, 3 dim / 8]`
/// - `context`: `[rows, dim / 2]`
#[cube(launch_unchecked)]
fn mma_results(qkv: &[Words4], texts: &[u32], context: &mut [u32], args: &Args, #[comptime] shape: Shape) {
    let stride = args.dim / 2u32;
    if CUBE_POS_X + 1u32 == CUBE_COUNT_X {
        fill_tail(context, stride, args);
        terminate!();
    }
    let memory = Shared::<[Words4]>::new_aligned_slice(comptime!(shape.memory()), 128usize);
    let place = place(&memory, texts, args, shape);
    if place.head < args.heads {
        copy_qkv(qkv, &place, args, shape);
    }
    end_copy_group();
    wait_for_copies(0u32);
    sync_cube();
    if place.head < args.heads {
        let tiles = place.length.div_ceil(TILE);
        for tile in range_stepped(place.first, tiles, comptime!(shape.planes())) {
            let row = tile * TILE;
            let probabilities = probabilities(row, &place, args, shape);
            let sums = results(&probabilities, &place, args, shape);
            let at = place.head * comptime!(shape.width as u32 / 2);
            store(context, &sums, 1.0f32.runtime(), row, at, stride, &place, shape);
        }
    }
}

/// The gradients by queries, keys and values, and the results again.
///
/// # Shapes
/// - `qkv`: `[rows, 3 dim / 8]`
/// - `gradient`: `[rows, dim / 8]`
/// - `context`: `[rows, dim / 2]`
/// - `qkv_gradient`: `[rows, 3 dim / 2]`
#[cube(launch_unchecked)]
fn mma_gradients(
    qkv: &[Words4],
    texts: &[u32],
    gradient: &[Words4],
    context: &mut [u32],
    qkv_gradient: &mut [u32],
    args: &Args,
    #[comptime] shape: Shape,
) {
    let stride = args.dim / 2u32;
    if CUBE_POS_X + 1u32 == CUBE_COUNT_X {
        fill_tail(context, stride, args);
        fill_tail(qkv_gradient, 3u32 * stride, args);
        terminate!();
    }
    let mut memory = Shared::<[Words4]>::new_aligned_slice(comptime!(shape.memory()), 128usize);
    let place = place(&memory, texts, args, shape);
    let tiles = place.length.div_ceil(TILE);
    if place.head < args.heads {
        copy_qkv(qkv, &place, args, shape);
        let at = place.head * comptime!(shape.parts());
        copy_rows(place.gradients, gradient, at, args.dim / 8u32, &place, shape);
    }
    end_copy_group();
    wait_for_copies(0u32);
    sync_cube();
    if place.head < args.heads {
        for tile in range_stepped(place.first, tiles, comptime!(shape.planes())) {
            by_queries(&mut memory, context, qkv_gradient, tile * TILE, &place, args, shape);
        }
    }
    sync_cube();
    if place.head < args.heads {
        for tile in range_stepped(place.first, tiles, comptime!(shape.planes())) {
            by_keys(&memory, qkv_gradient, tile * TILE, &place, args, shape);
        }
    }
}

/// The gradient by 16 queries and their results; what is known of them goes to shared memory.
#[cube]
fn by_queries(
    memory: &mut Shared<[Words4]>,
    context: &mut [u32],
    qkv_gradient: &mut [u32],
    row: u32,
    place: &Place,
    args: &Args,
    #[comptime] shape: Shape,
) {
    let stride = args.dim / 2u32;
    let at = place.head * comptime!(shape.width as u32 / 2);
    let probabilities = probabilities(row, place, args, shape);
    let sums = results(&probabilities, place, args, shape);
    store(context, &sums, 1.0f32.runtime(), row, at, stride, place, shape);

    // The mean of a query's gradients by its probabilities is the product of its result and the gradient by that.
    let by_results = left_rows(place.gradients, row, shape);
    let mut upper = 0.0f32.runtime();
    let mut lower = 0.0f32.runtime();
    #[unroll]
    for k in 0..comptime!(shape.width / 16) {
        #[unroll]
        for i in 0..2usize {
            let result = sums[comptime!(2 * k + i)];
            let by_upper = unpack(by_results[k].extract(comptime!(2 * i)), comptime!(shape.half));
            let by_lower = unpack(by_results[k].extract(comptime!(2 * i + 1)), comptime!(shape.half));
            #[unroll]
            for j in 0..2usize {
                upper = fma(result.extract(j), by_upper.extract(j), upper);
                lower = fma(result.extract(comptime!(j + 2)), by_lower.extract(j), lower);
            }
        }
    }
    let upper = row_sum(upper);
    let lower = row_sum(lower);
    let of_row = UNIT_POS % 4u32;
    if of_row == 0u32 {
        let query = (place.known + row + sums_row()) as usize;
        memory[query] = known(&probabilities.upper, upper);
        memory[query + 8] = known(&probabilities.lower, lower);
    }

    let means = of_rows(upper, lower);
    let mut sums = zeros(shape);
    #[unroll]
    for step in 0..comptime!(shape.tiles) {
        let key = comptime!(step as u32 * TILE);
        if key < place.length {
            let mut tile = rows_by_rows(&by_results, place.values, key.runtime(), shape);
            #[unroll]
            for i in 0..2usize {
                if comptime!(shape.dropped) {
                    let key = comptime!(step as u32 * TILE + 8 * i as u32);
                    tile[i] *= factors(&probabilities.upper, &probabilities.lower, key.runtime(), args);
                }
                tile[i] = probabilities.tiles[comptime!(2 * step + i)] * (tile[i] - means);
            }
            add_product(&mut sums, &tile, place.keys, key.runtime(), shape);
        }
    }
    store(qkv_gradient, &sums, args.scale, row, at, 3u32 * stride, place, shape);
}

/// What is known of a query: its largest score, the reciprocal sum, the mean of the gradients by its probabilities, and
/// the key of its dropout.
#[cube]
fn known(query: &Query, mean: f32) -> Words4 {
    let mut words = Words4::empty();
    words.insert(0usize, u32::reinterpret(query.largest));
    words.insert(1usize, u32::reinterpret(query.share));
    words.insert(2usize, u32::reinterpret(mean));
    words.insert(3usize, query.key);
    words
}

/// The gradients by 16 keys and their values.
#[cube]
fn by_keys(
    memory: &Shared<[Words4]>,
    qkv_gradient: &mut [u32],
    row: u32,
    place: &Place,
    args: &Args,
    #[comptime] shape: Shape,
) {
    let scale = scale_of_2(args);
    let keys = left_rows(place.keys, row, shape);
    let values = left_rows(place.values, row, shape);
    let key = row + sums_row();
    let mut by_keys = zeros(shape);
    let mut by_values = zeros(shape);
    for query in range_stepped(0u32, place.length, TILE) {
        let mut scores = rows_by_rows(&keys, place.queries, query, shape);
        let mut dropped = rows_by_rows(&values, place.gradients, query, shape);
        #[unroll]
        for i in 0..2usize {
            let score = scores[i];
            let by_probability = dropped[i];
            let mut by_score = Sums::empty();
            let mut probability = Sums::empty();
            #[unroll]
            for j in 0..2usize {
                let column = query + comptime!(8 * i as u32 + j as u32) + sums_column();
                let known = memory[(place.known + column) as usize];
                let largest = f32::reinterpret(known.extract(0usize));
                let share = f32::reinterpret(known.extract(1usize));
                let mean = f32::reinterpret(known.extract(2usize));
                #[unroll]
                for lower in 0..2usize {
                    let at = comptime!(j + 2 * lower);
                    let p = exp2(fma(score.extract(at), scale, -largest)) * share;
                    if comptime!(shape.dropped) {
                        let key = key + comptime!(8 * lower as u32);
                        let bits = pair_bits(known.extract(3usize), key / 2u32) >> (16u32 * (key % 2u32));
                        let factor = factor(bits, args);
                        probability.insert(at, p * factor);
                        by_score.insert(at, p * (by_probability.extract(at) * factor - mean));
                    } else {
                        probability.insert(at, p);
                        by_score.insert(at, p * (by_probability.extract(at) - mean));
                    }
                }
            }
            scores[i] = by_score;
            dropped[i] = probability;
        }
        add_product(&mut by_values, &dropped, place.gradients, query, shape);
        add_product(&mut by_keys, &scores, place.queries, query, shape);
    }
    let stride = args.dim / 2u32;
    let at = place.head * comptime!(shape.width as u32 / 2);
    store(qkv_gradient, &by_keys, args.scale, row, at + stride, 3u32 * stride, place, shape);
    store(qkv_gradient, &by_values, 1.0f32.runtime(), row, at + 2u32 * stride, 3u32 * stride, place, shape);
}
