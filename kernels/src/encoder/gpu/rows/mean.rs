//! The mean over each text's tokens, forward and backward.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::ElemType, prelude::*};

use super::{super::super::problem::MeanCall, DropArgs, Width, cube_number, cubes, dropped};

/// Units of a cube.
const UNITS: u32 = 128;

/// `[rows, dim]` to `[texts, dim]`.
pub fn mean(x: &CubeTensor, texts: &CubeTensor, call: &MeanCall, out: &CubeTensor) {
    let width = Width::new(call.dim);
    let total = call.texts.texts * width.vectors;
    if total == 0 {
        return;
    }
    // SAFETY: rows are those of the texts, and every access is within them.
    unsafe {
        means::launch_unchecked(
            &x.client,
            cubes(total, UNITS),
            CubeDim::new_1d(UNITS),
            width.numbers,
            x.clone().into_buffer_arg(),
            texts.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            total as u32,
            DropArgs::of(call.dropout),
            width,
            call.dropout.is_active(),
            dtype_to_storage_type(x.dtype),
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn means<F: Float, N: Size>(
    x: &[Vector<F, N>],
    starts: &[u32],
    out: &mut [Vector<F, N>],
    total: u32,
    drop: &DropArgs,
    #[comptime] width: Width,
    #[comptime] active: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = cube_number() * UNITS + UNIT_POS;
    if at < total {
        let vectors = comptime!(width.vectors as u32);
        let text = at / vectors;
        let vector = at % vectors;
        let mut row = starts[text as usize];
        let end = starts[text as usize + 1];
        let count = end - row;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        while row < end {
            sum += Vector::<f32, N>::cast_from(x[row as usize * comptime!(width.vectors) + vector as usize]);
            row += 1u32;
        }
        let share = 1.0f32 / f32::cast_from(u32::max(count, 1u32));
        let mean = sum * Vector::<f32, N>::new(share);
        let first = vector * comptime!(width.numbers as u32);
        out[at as usize] =
            Vector::<F, N>::cast_from(dropped(mean, text, first, drop, comptime!(width.numbers), active));
    }
}

/// `[texts, dim]` to `[rows, dim]`, zero in rows without a token.
pub fn mean_backward(gradient: &CubeTensor, texts: &CubeTensor, call: &MeanCall, out: &CubeTensor) {
    let width = Width::new(call.dim);
    let total = call.texts.rows() * width.vectors;
    let texts_of_rows = call.texts.texts_of_rows().start;
    // SAFETY: texts are those of the rows, and every access is within them.
    unsafe {
        spread::launch_unchecked(
            &out.client,
            cubes(total, UNITS),
            CubeDim::new_1d(UNITS),
            width.numbers,
            gradient.clone().into_buffer_arg(),
            texts.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            total as u32,
            call.texts.tokens as u32,
            texts_of_rows as u32,
            DropArgs::of(call.dropout),
            width,
            call.dropout.is_active(),
            dtype_to_storage_type(out.dtype),
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn spread<F: Float, N: Size>(
    gradient: &[Vector<F, N>],
    texts: &[u32],
    out: &mut [Vector<F, N>],
    total: u32,
    tokens: u32,
    texts_of_rows: u32,
    drop: &DropArgs,
    #[comptime] width: Width,
    #[comptime] active: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = cube_number() * UNITS + UNIT_POS;
    if at < total {
        let vectors = comptime!(width.vectors as u32);
        let row = at / vectors;
        let vector = at % vectors;
        let mut value = Vector::<f32, N>::new(0.0f32);
        if row < tokens {
            let text = texts[(texts_of_rows + row) as usize];
            let count = texts[text as usize + 1] - texts[text as usize];
            let share = 1.0f32 / f32::cast_from(count);
            let by_mean =
                Vector::<f32, N>::cast_from(gradient[text as usize * comptime!(width.vectors) + vector as usize]);
            let first = vector * comptime!(width.numbers as u32);
            value =
                dropped(by_mean, text, first, drop, comptime!(width.numbers), active) * Vector::<f32, N>::new(share);
        }
        out[at as usize] = Vector::<F, N>::cast_from(value);
    }
}
