//! The sum of the input gradient's parts.

use burn_cubecl::tensor::CubeTensor;
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use crate::{
    gpu::LINEAR,
    timing::{Grain, timed},
};

/// The workspace that the cubes of an input gradient's product share: `parts` matrices of `rows` by `columns`, the
/// first rows and columns of which count.
pub struct Parts {
    pub workspace: CubeTensor,
    pub parts: usize,
    pub rows: usize,
    pub columns: usize,
}

impl Parts {
    /// `input_gradient += scale` times the sum of the parts.
    ///
    /// # Shapes
    /// - `input_gradient`: `[batch, dim]`
    pub fn add_to(&self, input_gradient: &CubeTensor, scale: f32) {
        let client = &input_gradient.client;
        let shape = input_gradient.meta.shape();
        let (batch, dim) = (shape[0], shape[1]);
        timed(Grain::Kernels, "sum_of_parts", client, || {
            add_parts::launch(
                client,
                calculate_cube_count_elemwise(client, batch * dim, LINEAR),
                LINEAR,
                self.workspace.clone().into_buffer_arg(),
                input_gradient.clone().into_buffer_arg(),
                PartsArgsLaunch {
                    parts: self.parts,
                    part_size: self.rows * self.columns,
                    dim,
                    padded_dim: self.columns,
                    scale,
                },
            )
        });
    }
}

/// Sizes of [`add_parts()`].
#[derive(CubeType, CubeLaunch)]
pub struct PartsArgs {
    parts: usize,
    /// Numbers of a part.
    part_size: usize,
    dim: usize,
    padded_dim: usize,
    scale: f32,
}

/// `dX += scale` times the sum of the workspace's parts, which are added one after the other.
///
/// # Shapes
/// - `workspace`: `[parts, padded batch, padded_dim]`
/// - `input_gradient`: `[batch, dim]`
#[cube(launch)]
pub fn add_parts(workspace: &[f32], input_gradient: &mut [f32], args: &PartsArgs) {
    if ABSOLUTE_POS < input_gradient.len() {
        let at = ABSOLUTE_POS / args.dim * args.padded_dim + ABSOLUTE_POS % args.dim;
        let mut sum = 0.0f32.runtime();
        for part in 0..args.parts {
            sum += workspace[part * args.part_size + at];
        }
        input_gradient[ABSOLUTE_POS] += sum * args.scale;
    }
}
