//! The two products with the gradient of a chunk: the input gradient, and the weight gradient with the update in place.

use cubecl::prelude::*;

use super::{BatchSize, Rows, tile};
use crate::{
    classifier::gpu::common::run::{UpdateArgs, key_of_row},
    numbers::{
        Format,
        device::{Quad, decode_quad, encode_quad, encode_quad_stochastic, is_finite, load_quad, quad_bits, store_quad},
    },
};

/// Adds `G^T W` of some rows of the segment to the workspace.
///
/// Blocks of labels are dealt out over `CUBE_COUNT_Z` cubes by their place in the segment. Each cube keeps its own
/// sums, in ascending order of the labels, from chunk to chunk; [`Parts`](crate::classifier::gpu::common::parts::Parts)
/// adds them up at the end. So the result does not depend on where chunks are cut.
///
/// # Shapes
/// - `words`: the segment's weights
/// - `gradient`: `[labels, batch_quads]`
/// - `workspace`: `[CUBE_COUNT_Z, batch, quads]`
#[cube(launch)]
pub fn add_input_gradient(
    words: &[u32],
    gradient: &[Quad],
    workspace: &mut [Quad],
    rows: &Rows,
    size: &BatchSize,
    #[comptime] format: Format,
) {
    let batch = size.batch;
    let quads = size.quads;
    let batch_quads = size.batch_quads;
    let first = rows.first;
    let mut a = tile::new_panel();
    let mut b = tile::new_panel();
    let mut sums = tile::zero_sums();
    let unit_quad = tile::unit_quad();
    let cubes = CUBE_COUNT_Z as usize;
    let place = CUBE_POS_Z as usize * batch;
    if first > 0 {
        #[unroll]
        for i in 0..4usize {
            let sample = tile::unit_row() + i;
            if sample < batch && unit_quad < quads {
                sums[i] = workspace[(place + sample) * quads + unit_quad];
            }
        }
    }

    let (row, quad) = tile::along_tile();
    let batch_quad = CUBE_POS_Y as usize * (tile::TILE / 4) + quad;
    let quad = CUBE_POS_X as usize * (tile::TILE / 4) + quad;
    let end = first + rows.labels;
    let first_block = first / tile::DEPTH;
    let mut block = first_block + (CUBE_POS_Z as usize + cubes - first_block % cubes) % cubes;
    while block * tile::DEPTH < end {
        let label = block * tile::DEPTH + row;
        let inside = label >= first && label < end;
        let mut weights = Quad::new(0.0f32);
        let mut gradients = Quad::new(0.0f32);
        if inside {
            if quad < quads {
                let at = label * rows.row_words + quad * comptime!(format.quad_words());
                weights = load_quad(words, at, format);
            }
            if batch_quad < batch_quads {
                gradients = gradient[(label - first) * batch_quads + batch_quad];
            }
        }
        tile::store_along_tile(&mut a, gradients);
        tile::store_along_tile(&mut b, weights);
        sync_cube();
        tile::multiply_add(&a, &b, &mut sums);
        sync_cube();
        block += cubes;
    }

    #[unroll]
    for i in 0..4usize {
        let sample = tile::unit_row() + i;
        if sample < batch && unit_quad < quads {
            workspace[(place + sample) * quads + unit_quad] = sums[i];
        }
    }
}

/// In what formats weights and, if there is one, compensation are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoredFormats {
    pub weights: Format,
    pub compensation: Option<Format>,
}

/// `W <- round(W - lr (G X + wd W))` for some rows of the segment, in place.
///
/// A unit computes whole words, so no two units share one. A value that is not finite leaves the weight as it was and
/// is counted; the first rows of the segment keep in `compensation` what rounding took.
///
/// # Shapes
/// - `words`: the segment's weights
/// - `compensation`: any length where no row keeps one
/// - `gradient`: `[labels, batch_quads]`
/// - `x`: `[batch, quads]`
/// - `non_finite`: `[1]`
#[cube(launch)]
pub fn update(
    words: &mut [u32],
    compensation: &mut [u32],
    gradient: &[Quad],
    x: &[Quad],
    non_finite: &[Atomic<u32>],
    rows: &Rows,
    size: &BatchSize,
    args: &UpdateArgs,
    #[comptime] formats: StoredFormats,
) {
    let format = comptime!(formats.weights);
    let compensation_format = comptime!(formats.compensation);
    let batch = size.batch;
    let quads = size.quads;
    let batch_quads = size.batch_quads;
    let labels = rows.labels;
    let mut a = tile::new_panel();
    let mut b = tile::new_panel();
    let mut sums = tile::zero_sums();
    let (tile_label, batch_quad) = tile::along_depth();
    let (tile_sample, quad) = tile::along_tile();
    let label = CUBE_POS_Y as usize * tile::TILE + tile_label;
    let quad = CUBE_POS_X as usize * (tile::TILE / 4) + quad;
    for depth in range_stepped(0, batch, comptime!(tile::DEPTH)) {
        tile::store_along_depth(&mut a, tile::load(gradient, label, labels, depth / 4 + batch_quad, batch_quads));
        tile::store_along_tile(&mut b, tile::load(x, depth + tile_sample, batch, quad, quads));
        sync_cube();
        tile::multiply_add(&a, &b, &mut sums);
        sync_cube();
    }

    let quad = tile::unit_quad();
    let mut refused = 0u32.runtime();
    #[unroll]
    for i in 0..4usize {
        if tile::unit_row() + i < labels && quad < quads {
            let row = rows.first + tile::unit_row() + i;
            let key = key_of_row(args, row as u32);

            let at = row * rows.row_words + quad * comptime!(format.quad_words());
            let old = load_quad(&*words, at, format);
            let mut lost = Quad::new(0.0f32);
            if comptime!(compensation_format.is_some()) {
                let format = comptime!(compensation_format.unwrap());
                if row < args.head_rows {
                    let at = row * args.compensation_size + quad * comptime!(format.quad_words());
                    lost = load_quad(&*compensation, at, format);
                }
            }

            let mut new = Quad::new(0.0f32);
            #[unroll]
            for j in 0..4usize {
                // Columns past `dim` stay zero.
                if quad * 4 + j < args.dim {
                    let w = old.extract(j);
                    let gradient = sums[i].extract(j) + args.weight_decay * w;
                    let value = w + lost.extract(j) - args.learning_rate * gradient;
                    let finite = is_finite(value);
                    // A weight lies on the grid, so rounding gives it back as it was.
                    new.insert(j, select(finite, value, w));
                    refused += select(finite, 0u32.runtime(), 1u32.runtime());
                }
            }
            let codes = encode_quad_stochastic(new, quad_bits(key, quad as u32), format);
            store_quad(words, at, codes, format);

            if comptime!(compensation_format.is_some()) {
                let stored_format = format;
                let format = comptime!(compensation_format.unwrap());
                if row < args.head_rows {
                    let at = row * args.compensation_size + quad * comptime!(format.quad_words());
                    let rounded_away = new - decode_quad(codes, 0usize, stored_format);
                    store_quad(compensation, at, encode_quad(rounded_away, format), format);
                }
            }
        }
    }
    if refused > 0u32 {
        non_finite[0].fetch_add(refused);
    }
}
