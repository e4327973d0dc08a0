//! Norm with residual, bias and dropout, forward and backward.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::ElemType, prelude::*};

use super::{
    super::super::problem::Dropout,
    CUBE_ROWS, DropArgs, LANES, UNITS, Width, cube_number, cubes, dropped, has_planes, row_sum,
    sums::{Parts, add_parts},
    vector_sum,
};
use crate::gpu::memory::empty;

/// `s = residual + dropped(update + bias)`, and its norm.
pub struct NormForward<'a> {
    /// `[rows, width]`
    pub residual: &'a CubeTensor,
    /// `[rows, width]`
    pub update: &'a CubeTensor,
    /// `[width]`
    pub bias: &'a CubeTensor,
    /// `[width]`
    pub gamma: &'a CubeTensor,
    /// `[width]`
    pub beta: &'a CubeTensor,
    /// `[rows, width]`: where `s` goes, if it is kept.
    pub sum: Option<&'a CubeTensor>,
    /// `[rows, width]`: where the norm goes.
    pub y: &'a CubeTensor,
    /// F32, `[rows, 2]`: where mean and reciprocal of the deviation go, if `s` is kept.
    pub statistics: Option<&'a CubeTensor>,
    pub rows: usize,
    pub width: usize,
    pub epsilon: f32,
    pub dropout: Dropout,
}

impl NormForward<'_> {
    pub fn launch(self) {
        let width = Width::new(self.width);
        let client = &self.y.client;
        // Where nothing is kept any live buffer is bound.
        let (sum, statistics) = (self.sum.unwrap_or(self.y), self.statistics.unwrap_or(self.bias));
        // SAFETY: every access is within `rows` and `width`.
        unsafe {
            forward::launch_unchecked(
                client,
                cubes(self.rows, CUBE_ROWS),
                CubeDim::new_1d(UNITS),
                width.numbers,
                self.residual.clone().into_buffer_arg(),
                self.update.clone().into_buffer_arg(),
                self.bias.clone().into_buffer_arg(),
                self.gamma.clone().into_buffer_arg(),
                self.beta.clone().into_buffer_arg(),
                sum.clone().into_buffer_arg(),
                self.y.clone().into_buffer_arg(),
                as_f32(statistics).into_buffer_arg(),
                self.rows as u32,
                self.epsilon,
                DropArgs::of(self.dropout),
                width,
                Options { dropped: self.dropout.is_active(), kept: self.sum.is_some(), planes: has_planes(self.y) },
                dtype_to_storage_type(self.y.dtype),
            );
        }
    }
}

/// A tensor that stands for one of F32 numbers where nothing is read or written.
fn as_f32(tensor: &CubeTensor) -> CubeTensor {
    let mut tensor = tensor.clone();
    tensor.dtype = DType::F32;
    tensor
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Options {
    dropped: bool,
    /// Whether sum and statistics are stored.
    kept: bool,
    planes: bool,
}

// What is known when it is compiled stands in an `if` of its own.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, clippy::collapsible_if)]
fn forward<F: Float, N: Size>(
    residual: &[Vector<F, N>],
    update: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    gamma: &[Vector<F, N>],
    beta: &[Vector<F, N>],
    sum: &mut [Vector<F, N>],
    y: &mut [Vector<F, N>],
    statistics: &mut [f32],
    rows: u32,
    epsilon: f32,
    drop: &DropArgs,
    #[comptime] width: Width,
    #[comptime] options: Options,
    #[define(F)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let row = cube_number() * CUBE_ROWS + UNIT_POS / LANES;
    let lane = UNIT_POS % LANES;
    let inside = row < rows;
    let numbers = comptime!(width.numbers);
    let count = comptime!((width.vectors * width.numbers) as f32);
    let mut values = Array::<Vector<f32, N>>::new(comptime!(width.each));
    let mut total = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for each in 0..comptime!(width.each) {
        let vector = lane + comptime!(each as u32 * LANES);
        let mut value = Vector::<f32, N>::new(0.0f32);
        if inside && vector < comptime!(width.vectors as u32) {
            let at = row as usize * comptime!(width.vectors) + vector as usize;
            let added = Vector::<f32, N>::cast_from(update[at]) + Vector::<f32, N>::cast_from(bias[vector as usize]);
            let first = vector * comptime!(width.numbers as u32);
            value = Vector::<f32, N>::cast_from(residual[at])
                + dropped(added, row, first, drop, numbers, comptime!(options.dropped));
            // The backward pass sees the rounded sum: what follows is a function of it, whether it is kept or computed again.
            let rounded = Vector::<F, N>::cast_from(value);
            value = Vector::<f32, N>::cast_from(rounded);
            if comptime!(options.kept) {
                sum[at] = rounded;
            }
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
    let reciprocal = 1.0f32 / (variance + epsilon).sqrt();
    #[unroll]
    for each in 0..comptime!(width.each) {
        let vector = lane + comptime!(each as u32 * LANES);
        if inside && vector < comptime!(width.vectors as u32) {
            let at = row as usize * comptime!(width.vectors) + vector as usize;
            let normal = (values[each] - Vector::<f32, N>::new(mean)) * Vector::<f32, N>::new(reciprocal);
            let scaled = normal * Vector::<f32, N>::cast_from(gamma[vector as usize]);
            y[at] = Vector::<F, N>::cast_from(scaled + Vector::<f32, N>::cast_from(beta[vector as usize]));
        }
    }
    if comptime!(options.kept) {
        if inside && lane == 0u32 {
            statistics[(2u32 * row) as usize] = mean;
            statistics[(2u32 * row + 1u32) as usize] = reciprocal;
        }
    }
}

/// Rows of a cube on the way back: with its three sums of columns a unit needs so many registers that of a larger cube a
/// processor holds only one.
const BACK_ROWS: u32 = 4;
/// Units of such a cube.
const BACK_UNITS: u32 = LANES * BACK_ROWS;

/// The way back through [`NormForward`].
pub struct NormBackward<'a> {
    /// `[rows, width]`: by the norm's result.
    pub gradient: &'a CubeTensor,
    /// `[rows, width]`: what was normed.
    pub sum: &'a CubeTensor,
    /// F32, `[rows, 2]`
    pub statistics: &'a CubeTensor,
    /// `[width]`
    pub gamma: &'a CubeTensor,
    /// `[width]`: read where the norm's result is wanted again.
    pub beta: &'a CubeTensor,
    /// `[rows, width]`: where the gradient by the sum goes.
    pub sum_gradient: &'a CubeTensor,
    /// `[rows, width]`: where the gradient by the update goes, if anything is dropped; else it is that by the sum.
    pub update_gradient: Option<&'a CubeTensor>,
    /// `[rows, width]`: where the norm's result goes once more, if wanted.
    pub y: Option<&'a CubeTensor>,
    /// `[width]`: where this and the next two gradients go.
    pub gamma_gradient: &'a CubeTensor,
    pub beta_gradient: &'a CubeTensor,
    pub bias_gradient: &'a CubeTensor,
    pub rows: usize,
    pub width: usize,
    pub dropout: Dropout,
}

impl NormBackward<'_> {
    pub fn launch(self) {
        let width = Width::new(self.width);
        let client = &self.gradient.client;
        let walkers = walkers(self.gradient, self.rows);
        let parts = empty(self.gradient, walkers as usize * 3 * self.width, DType::F32);
        // Where these are not wanted any live buffer of the type is bound.
        let update_gradient = self.update_gradient.unwrap_or(self.sum_gradient);
        let y = self.y.unwrap_or(self.sum_gradient);
        // SAFETY: every access is within `rows` and `width`.
        unsafe {
            backward::launch_unchecked(
                client,
                CubeCount::Static(walkers, 1, 1),
                CubeDim::new_1d(BACK_UNITS),
                width.numbers,
                self.gradient.clone().into_buffer_arg(),
                self.sum.clone().into_buffer_arg(),
                self.statistics.clone().into_buffer_arg(),
                self.gamma.clone().into_buffer_arg(),
                self.beta.clone().into_buffer_arg(),
                self.sum_gradient.clone().into_buffer_arg(),
                update_gradient.clone().into_buffer_arg(),
                y.clone().into_buffer_arg(),
                parts.clone().into_buffer_arg(),
                self.rows as u32,
                DropArgs::of(self.dropout),
                width,
                BackOptions {
                    dropped: self.update_gradient.is_some(),
                    y: self.y.is_some(),
                    planes: has_planes(self.gradient),
                },
                dtype_to_storage_type(self.gradient.dtype),
            );
        }
        add_parts(
            &Parts { parts: &parts, count: walkers as usize, columns: 3 * self.width, length: self.width },
            [self.gamma_gradient, self.beta_gradient, self.bias_gradient],
        );
    }
}

/// Cubes that go through all rows together, where each keeps sums of columns.
fn walkers(tensor: &CubeTensor, rows: usize) -> u32 {
    let processors = tensor.client.properties().hardware.num_streaming_multiprocessors.unwrap_or(16);
    (3 * processors).min(rows.div_ceil(BACK_ROWS as usize) as u32).max(1)
}

/// What the backward kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BackOptions {
    dropped: bool,
    y: bool,
    planes: bool,
}

/// A cube goes through every `CUBE_COUNT_X`-th group of rows, and stores its sums of columns: `[3, width]` of `parts`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward<F: Float, N: Size>(
    gradient: &[Vector<F, N>],
    sum: &[Vector<F, N>],
    statistics: &[f32],
    gamma: &[Vector<F, N>],
    beta: &[Vector<F, N>],
    sum_gradient: &mut [Vector<F, N>],
    update_gradient: &mut [Vector<F, N>],
    y: &mut [Vector<F, N>],
    parts: &mut [Vector<f32, N>],
    rows: u32,
    drop: &DropArgs,
    #[comptime] width: Width,
    #[comptime] options: BackOptions,
    #[define(F)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(BACK_UNITS as usize);
    let lane = UNIT_POS % LANES;
    let numbers = comptime!(width.numbers);
    let count = comptime!((width.vectors * width.numbers) as f32);
    let mut gammas = Array::<Vector<f32, N>>::new(comptime!(width.each));
    let mut betas = Array::<Vector<f32, N>>::new(comptime!(width.each));
    let mut biases = Array::<Vector<f32, N>>::new(comptime!(width.each));
    #[unroll]
    for each in 0..comptime!(width.each) {
        gammas[each] = Vector::<f32, N>::new(0.0f32);
        betas[each] = Vector::<f32, N>::new(0.0f32);
        biases[each] = Vector::<f32, N>::new(0.0f32);
    }
    let mut first_row = CUBE_POS_X * BACK_ROWS;
    // All units of a cube go through the loop equally often: they meet in sums.
    while first_row < rows {
        let row = first_row + UNIT_POS / LANES;
        let inside = row < rows;
        let mut mean = 0.0f32.runtime();
        let mut reciprocal = 0.0f32.runtime();
        if inside {
            mean = statistics[(2u32 * row) as usize];
            reciprocal = statistics[(2u32 * row + 1u32) as usize];
        }
        let mut normals = Array::<Vector<f32, N>>::new(comptime!(width.each));
        let mut scaled = Array::<Vector<f32, N>>::new(comptime!(width.each));
        let mut along = Vector::<f32, N>::new(0.0f32);
        let mut across = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for each in 0..comptime!(width.each) {
            let vector = lane + comptime!(each as u32 * LANES);
            let mut normal = Vector::<f32, N>::new(0.0f32);
            let mut product = Vector::<f32, N>::new(0.0f32);
            if inside && vector < comptime!(width.vectors as u32) {
                let at = row as usize * comptime!(width.vectors) + vector as usize;
                let by_y = Vector::<f32, N>::cast_from(gradient[at]);
                let weight = Vector::<f32, N>::cast_from(gamma[vector as usize]);
                let centred = Vector::<f32, N>::cast_from(sum[at]) - Vector::<f32, N>::new(mean);
                normal = centred * Vector::<f32, N>::new(reciprocal);
                product = by_y * weight;
                gammas[each] += by_y * normal;
                betas[each] += by_y;
                if comptime!(options.y) {
                    let again = normal * weight + Vector::<f32, N>::cast_from(beta[vector as usize]);
                    y[at] = Vector::<F, N>::cast_from(again);
                }
            }
            normals[each] = normal;
            scaled[each] = product;
            along += product;
            across += product * normal;
        }
        let along = row_sum(vector_sum(along, numbers), &mut shared, comptime!(options.planes)) / count;
        let across = row_sum(vector_sum(across, numbers), &mut shared, comptime!(options.planes)) / count;
        #[unroll]
        for each in 0..comptime!(width.each) {
            let vector = lane + comptime!(each as u32 * LANES);
            if inside && vector < comptime!(width.vectors as u32) {
                let at = row as usize * comptime!(width.vectors) + vector as usize;
                let inner = scaled[each] - Vector::<f32, N>::new(along) - normals[each] * Vector::<f32, N>::new(across);
                let by_sum = Vector::<F, N>::cast_from(inner * Vector::<f32, N>::new(reciprocal));
                sum_gradient[at] = by_sum;
                let mut by_update = Vector::<f32, N>::cast_from(by_sum);
                if comptime!(options.dropped) {
                    let first = vector * comptime!(width.numbers as u32);
                    by_update = dropped(by_update, row, first, drop, numbers, true);
                    let rounded = Vector::<F, N>::cast_from(by_update);
                    update_gradient[at] = rounded;
                    by_update = Vector::<f32, N>::cast_from(rounded);
                }
                biases[each] += by_update;
            }
        }
        first_row += CUBE_COUNT_X * BACK_ROWS;
    }
    // The rows' sums, one after the other.
    let mut columns = Shared::<[Vector<f32, N>]>::new_slice(comptime!(width.vectors));
    #[unroll]
    for part in 0..3usize {
        #[unroll]
        for group in 0..BACK_ROWS {
            sync_cube();
            if UNIT_POS / LANES == group {
                #[unroll]
                for each in 0..comptime!(width.each) {
                    let vector = lane + comptime!(each as u32 * LANES);
                    if vector < comptime!(width.vectors as u32) {
                        let mut own = biases[each];
                        if comptime!(part == 0) {
                            own = gammas[each];
                        } else if comptime!(part == 1) {
                            own = betas[each];
                        }
                        if comptime!(group == 0) {
                            columns[vector as usize] = own;
                        } else {
                            columns[vector as usize] += own;
                        }
                    }
                }
            }
        }
        sync_cube();
        let mut vector = UNIT_POS;
        while vector < comptime!(width.vectors as u32) {
            let place = (CUBE_POS_X * 3u32 + comptime!(part as u32)) as usize * comptime!(width.vectors);
            parts[place + vector as usize] = columns[vector as usize];
            vector += BACK_UNITS;
        }
    }
}
