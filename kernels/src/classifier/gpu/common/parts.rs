//! The sum of the input gradient's parts.

use cubecl::prelude::*;

/// `dX += scale` times the sum of the workspace's parts, which are added one after the other.
///
/// # Shapes
/// - `workspace`: `[parts, padded batch, padded_dim]`
/// - `input_gradient`: `[batch, dim]`
#[cube(launch)]
pub fn add_parts(
    workspace: &[f32],
    input_gradient: &mut [f32],
    parts: usize,
    part_size: usize,
    dim: usize,
    padded_dim: usize,
    scale: f32,
) {
    if ABSOLUTE_POS < input_gradient.len() {
        let at = ABSOLUTE_POS / dim * padded_dim + ABSOLUTE_POS % dim;
        let mut sum = 0.0f32.runtime();
        for part in 0..parts {
            sum += workspace[part * part_size + at];
        }
        input_gradient[ABSOLUTE_POS] += sum * scale;
    }
}
