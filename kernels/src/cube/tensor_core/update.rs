//! The weight gradient of a chunk, `G X`, and the update in place: the gradient never leaves the registers.

use cubecl::prelude::*;

use super::{
    instructions::{Half, Sums, Words2, Words4, decode_e4m3, permute_bytes, unpack},
    product::{Left, Tile, product, unit_place},
};
use crate::cube::fp8::{
    Format, Quad, decode_quad, encode_quad, encode_quad_stochastic, is_finite, quad_bits, row_key,
};

/// Columns of one row that a unit updates.
const RUN: usize = 16;

/// `W <- round(W - lr (G X + wd W))` for `labels` rows of the segment from `first`, in place; one tile a cube.
///
/// A value that is not finite leaves the weight as it was and is counted; the first `head_rows` rows of the segment keep in
/// `compensation` what rounding took.
///
/// # Shapes
/// - `words`: the segment's weights, rows of `row_parts` parts of 16 bytes
/// - `compensation`: rows of `compensation_parts`; any length where `head_rows` is 0
/// - `gradient`: `[labels, depth_parts]`, multiplied by the scale that divides `learning_rate` and multiplies `weight_decay`
/// - `x`: `[columns, depth_parts]`, see [`columns`](super::operands::columns)
/// - `non_finite`: `[1]`
#[cube(launch_unchecked)]
pub fn update(
    words: &mut [Words4],
    compensation: &mut [Words4],
    gradient: &[Words4],
    x: &[Words4],
    non_finite: &[Atomic<u32>],
    first: usize,
    labels: usize,
    row_parts: usize,
    head_rows: usize,
    compensation_parts: usize,
    depth_parts: usize,
    dim: usize,
    first_label_low: u32,
    first_label_high: u32,
    rounding_key: u32,
    learning_rate: f32,
    weight_decay: f32,
    #[comptime] tile: Tile,
    #[comptime] half: Half,
    #[comptime] format: Format,
    #[comptime] weights: Left,
    #[comptime] compensation_format: Option<Format>,
) {
    let tile_row = CUBE_POS_Y as usize * tile.rows();
    let tile_column = CUBE_POS_X as usize * tile.columns();
    let sums = product(
        gradient,
        tile_row,
        labels - tile_row,
        depth_parts,
        depth_parts,
        x,
        tile_column,
        depth_parts,
        depth_parts / 8,
        tile,
        Left::Half,
        half,
    );

    let (row, column) = unit_place(tile);
    let row = tile_row + row;
    let column = tile_column + column;
    let parts = comptime!(format.quad_words());
    let part = column / RUN * parts;
    let mut refused = 0u32.runtime();
    #[unroll]
    for i in 0..comptime!(2 * tile.fragments) {
        let row = row + comptime!(8 * i);
        if row < labels && part < row_parts {
            let row = first + row;
            let key = row_key(rounding_key, first_label_low, first_label_high, row as u32);
            let at = row * row_parts + part;
            let mut old = Array::<Words4>::new(parts);
            let mut new = Array::<Words4>::new(parts);
            #[unroll]
            for p in 0..parts {
                // The last run of a row of 16-bit weights may be half as long.
                old[p] = Words4::new(0u32);
                if part + p < row_parts {
                    old[p] = words[at + p];
                }
                new[p] = Words4::empty();
            }

            // Zero as long as every value is finite, NaN for good after one that is not.
            let mut finite = 0.0f32.runtime();
            #[unroll]
            for q in 0..4usize {
                let first_word = comptime!(q * format.quad_words());
                let w = decode_weights(
                    old[comptime!(first_word / 4)],
                    comptime!(first_word % 4),
                    format,
                    weights,
                );
                let mut value = Quad::empty();
                #[unroll]
                for k in 0..4usize {
                    let v = updated(
                        &sums,
                        w.extract(k),
                        learning_rate,
                        weight_decay,
                        i,
                        comptime!(4 * q + k),
                    );
                    finite = fma(v, 0.0f32, finite);
                    value.insert(k, v);
                }
                let random = quad_bits(key, (column / 4) as u32 + comptime!(q as u32));
                let codes = encode_weights(value, random, format);
                put(&mut new, first_word, codes, format);
            }

            let mut plain = finite == 0.0f32;
            if comptime!(compensation_format.is_some()) {
                plain = plain && row >= head_rows;
            }
            if !plain {
                refused += update_carefully(
                    &sums,
                    &old,
                    &mut new,
                    compensation,
                    row,
                    head_rows,
                    compensation_parts,
                    column,
                    dim,
                    key,
                    learning_rate,
                    weight_decay,
                    i,
                    format,
                    compensation_format,
                );
            }
            #[unroll]
            for p in 0..parts {
                if part + p < row_parts {
                    words[at + p] = new[p];
                }
            }
        }
    }
    if refused > 0u32 {
        non_finite[0].fetch_add(refused);
    }
}

/// The value of column `column` of the unit's run before it is rounded.
#[cube]
fn updated(
    sums: &Array<Sums>,
    w: f32,
    learning_rate: f32,
    weight_decay: f32,
    #[comptime] row: usize,
    #[comptime] column: usize,
) -> f32 {
    let sum = sums[comptime!(row / 2 * 8 + column / 2)];
    let gradient = fma(
        weight_decay,
        w,
        sum.extract(comptime!(row % 2 * 2 + column % 2)),
    );
    fma(-learning_rate, gradient, w)
}

/// The same update where a value is not finite or a compensation is kept; returns how many values were not finite.
#[cube]
fn update_carefully(
    sums: &Array<Sums>,
    old: &Array<Words4>,
    new: &mut Array<Words4>,
    compensation: &mut [Words4],
    row: usize,
    head_rows: usize,
    compensation_parts: usize,
    column: usize,
    dim: usize,
    key: u32,
    learning_rate: f32,
    weight_decay: f32,
    #[comptime] i: usize,
    #[comptime] format: Format,
    #[comptime] compensation_format: Option<Format>,
) -> u32 {
    // Without a compensation any format does: nothing is loaded or stored.
    let held_format = comptime!(compensation_format.unwrap_or(Format::E5m2));
    let held_parts = comptime!(held_format.quad_words());
    let part = column / RUN * held_parts;
    let held_at = row * compensation_parts + part;
    let mut held = Array::<Words4>::new(held_parts);
    let mut is_head = false.runtime();
    #[unroll]
    for p in 0..held_parts {
        held[p] = Words4::new(0u32);
    }
    if comptime!(compensation_format.is_some()) {
        is_head = row < head_rows;
        if is_head {
            #[unroll]
            for p in 0..held_parts {
                if part + p < compensation_parts {
                    held[p] = compensation[held_at + p];
                }
            }
        }
    }

    let mut refused = 0u32.runtime();
    #[unroll]
    for q in 0..4usize {
        let first_word = comptime!(q * format.quad_words());
        let first_held = comptime!(q * held_format.quad_words());
        let w: Quad = decode_quad(
            old[comptime!(first_word / 4)],
            comptime!(first_word % 4),
            format,
        );
        let c: Quad = decode_quad(
            held[comptime!(first_held / 4)],
            comptime!(first_held % 4),
            held_format,
        );
        let mut value = Quad::new(0.0f32);
        #[unroll]
        for k in 0..4usize {
            // Columns past `dim` stay zero.
            if column + comptime!(4 * q + k) < dim {
                let v = updated(
                    sums,
                    w.extract(k),
                    learning_rate,
                    weight_decay,
                    i,
                    comptime!(4 * q + k),
                );
                let v = v + c.extract(k);
                let finite = is_finite(v);
                // A weight lies on the grid, so rounding gives it back as it was.
                value.insert(k, select(finite, v, w.extract(k)));
                refused += select(finite, 0u32.runtime(), 1u32.runtime());
            }
        }
        let random = quad_bits(key, (column / 4) as u32 + comptime!(q as u32));
        let codes = encode_quad_stochastic(value, random, format);
        let lost = value - decode_quad(codes, 0usize, format);
        let lost = encode_quad(lost, held_format);
        put(new, first_word, codes, format);
        put(&mut held, first_held, lost, held_format);
    }
    if is_head {
        #[unroll]
        for p in 0..held_parts {
            if part + p < compensation_parts {
                compensation[held_at + p] = held[p];
            }
        }
    }
    refused
}

/// Puts a quad's codes at word `at` of a run.
#[cube]
fn put(run: &mut Array<Words4>, #[comptime] at: usize, codes: Words4, #[comptime] format: Format) {
    #[unroll]
    for word in 0..comptime!(format.quad_words()) {
        let place = comptime!(at + word);
        let mut part = run[comptime!(place / 4)];
        part.insert(comptime!(place % 4), codes.extract(word));
        run[comptime!(place / 4)] = part;
    }
}

/// Four weights; [`decode_quad`], quicker where codes are no NaN.
#[cube]
fn decode_weights(
    words: Words4,
    #[comptime] at: usize,
    #[comptime] format: Format,
    #[comptime] weights: Left,
) -> Quad {
    match comptime!(weights) {
        Left::E4m3 { native } => {
            let pairs = decode_e4m3(words.extract(at), native);
            let low = unpack(pairs.extract(0usize), Half::F16);
            let high = unpack(pairs.extract(1usize), Half::F16);
            let mut quad = Quad::empty();
            quad.insert(0usize, low.extract(0usize));
            quad.insert(1usize, low.extract(1usize));
            quad.insert(2usize, high.extract(0usize));
            quad.insert(3usize, high.extract(1usize));
            quad
        }
        Left::Half => decode_quad(words, at, format),
    }
}

/// [`encode_quad_stochastic`], quicker for E4M3: the same codes from fewer instructions.
///
/// A multiplication by `2^-120` brings a value's bits to where E4M3's lie, subnormals included, since CUDA keeps the
/// denormals of F32. What is not finite saturates.
#[cube]
fn encode_weights(value: Quad, random: Words2, #[comptime] format: Format) -> Words4 {
    match comptime!(format) {
        Format::E4m3 => {
            let mut tops = Words4::empty();
            #[unroll]
            for k in 0..4usize {
                let v = value.extract(k);
                let bits = u32::reinterpret(f32::abs(v) * f32::reinterpret(0x0380_0000u32));
                let draw = random.extract(comptime!(k / 2));
                let noise = if comptime!(k % 2 == 0) {
                    (draw & 0xffffu32) << 4u32
                } else {
                    (draw >> 12u32) & 0x000f_fff0u32
                };
                let sum = u32::min(bits + (noise | 8u32), 0x07ef_ffffu32.runtime());
                let top = (sum << 4u32) & 0x7f00_0000u32;
                tops.insert(k, top | (u32::reinterpret(v) & 0x8000_0000u32));
            }
            let low = permute_bytes(tops.extract(0usize), tops.extract(1usize), 0x0073u32);
            let high = permute_bytes(tops.extract(2usize), tops.extract(3usize), 0x0073u32);
            let mut codes = Words4::new(0u32);
            codes.insert(0usize, permute_bytes(low, high, 0x5410u32));
            codes
        }
        _ => encode_quad_stochastic(value, random, format),
    }
}
