//! The input gradient of a chunk, `G^T W`, whose depth is the labels.
//!
//! Few tiles of a small matrix with an enormous depth: the labels are dealt out over many cubes. Each keeps its own
//! sums in a workspace from chunk to chunk, and [`add_parts`](crate::classifier::gpu::common::parts::add_parts) adds
//! them up at the end, always in the same order. Which cube takes a label depends on the label's place in the segment
//! alone, so the result is the same, bit for bit, wherever chunks are cut.
//!
//! Rows of both operands lie across the depth. Those of the gradient are transposed on their way out of shared memory;
//! of the weights, which have 8 bits and no such instruction, a unit reads four rows and puts pairs of them together.

use cubecl::prelude::*;

use crate::{
    classifier::gpu::common::operands::Stored,
    gpu::ptx::{
        Sums, Words2, Words4, copy_async, decode_e4m3, end_copy_group, load_8, load_16, load_matrices, multiply_add,
        permute_bytes, shared_address, wait_for_copies,
    },
    numbers::Format,
};

/// Labels of a stage, and of what one cube takes at a time.
pub const BLOCK: usize = 64;
/// Rows and columns of `dX` that a plane computes.
const PLANE_SIDE: usize = 64;
/// Fragments of 16 rows of a plane, tiles of 8 columns.
const FRAGMENTS: usize = PLANE_SIDE / 16;
const TILES: usize = PLANE_SIDE / 8;

/// What a cube computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Planes above one another: 64 rows of the batch each.
    pub row_planes: usize,
    /// Planes beside one another: 64 features each.
    pub column_planes: usize,
    pub stages: usize,
}

impl Tile {
    pub const fn rows(self) -> usize {
        self.row_planes * PLANE_SIDE
    }

    pub const fn columns(self) -> usize {
        self.column_planes * PLANE_SIDE
    }

    pub const fn units(self) -> u32 {
        (self.row_planes * self.column_planes * 32) as u32
    }

    /// 16-byte parts of a label's row of gradients.
    const fn gradient_parts(self) -> usize {
        self.rows() / 8
    }

    /// 16-byte parts of a label's row of weights.
    const fn weight_parts(self, weights: Stored) -> usize {
        match weights {
            Stored::Codes { .. } => self.columns() / 16,
            Stored::Half => self.columns() / 8,
        }
    }

    pub const fn stage_bytes(self, weights: Stored) -> usize {
        16 * self.stage_size(weights)
    }

    const fn stage_size(self, weights: Stored) -> usize {
        BLOCK * (self.gradient_parts() + self.weight_parts(weights))
    }
}

/// How a cube multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Multiply {
    pub tile: Tile,
    /// How the weights lie in memory.
    pub weights: Stored,
    /// The format in which the operands are multiplied.
    pub half: Format,
}

/// Sizes of [`add_input_gradient()`].
#[derive(CubeType, CubeLaunch)]
pub struct GradientArgs {
    /// The rows of the segment that are multiplied.
    pub first: usize,
    pub labels: usize,
    /// 16-byte parts of a row of weights.
    pub row_parts: usize,
    /// Rows of the batch and features, in whole tiles.
    pub batch: usize,
    pub dim: usize,
}

/// Adds `G^T W` of some rows of the segment to the workspace.
///
/// # Shapes
/// - `words`: the segment's weights
/// - `gradient`: `[labels, batch]`, 16 bits
/// - `workspace`: `[gridDim.z, batch, dim]`, in parts of four numbers
#[cube(launch_unchecked)]
pub fn add_input_gradient(
    words: &[Words4],
    gradient: &[Words4],
    workspace: &mut [Sums],
    args: &GradientArgs,
    #[comptime] multiply: Multiply,
) {
    let tile = comptime!(multiply.tile);
    let weights = comptime!(multiply.weights);
    let first = args.first;
    let labels = args.labels;
    let batch = args.batch;
    let dim = args.dim;
    let memory = Shared::<[Words4]>::new_aligned_slice(comptime!(tile.stages * tile.stage_size(weights)), 128usize);
    let address = shared_address(&memory);
    let stage_size = comptime!(tile.stage_size(weights));

    // The blocks of this chunk that are dealt to this cube.
    let cubes = CUBE_COUNT_Z as usize;
    let first_block = first / BLOCK;
    let offset = (CUBE_POS_Z as usize + cubes - first_block % cubes) % cubes;
    let blocks = (labels - 1) / BLOCK + 1;
    let mut count = 0usize.runtime();
    if offset < blocks {
        count = (blocks - offset - 1) / cubes + 1;
    }

    let plane = (UNIT_POS / 32u32) as usize;
    let lane = (UNIT_POS % 32u32) as usize;
    let (g, t) = (lane / 4, lane % 4);
    let planes = comptime!(tile.column_planes);
    let plane_row = plane / planes;
    let plane_column = plane % planes;

    // Row `16 i + 8 r + g` of fragment `i`, columns `16 t + 8 e + j` of tile `j`.
    let row = CUBE_POS_Y as usize * comptime!(tile.rows()) + plane_row * PLANE_SIDE + g;
    let column = CUBE_POS_X as usize * comptime!(tile.columns()) + plane_column * PLANE_SIDE + 16 * t;
    let place = ((CUBE_POS_Z as usize * batch + row) * dim + column) / 4;
    let mut sums = Array::<Sums>::new(comptime!(FRAGMENTS * TILES));
    #[unroll]
    for i in 0..comptime!(FRAGMENTS * TILES) {
        sums[i] = Sums::new(0.0f32);
    }
    if first > 0 {
        #[unroll]
        for i in 0..FRAGMENTS {
            #[unroll]
            for r in 0..2usize {
                #[unroll]
                for part in 0..4usize {
                    let values = workspace[place + comptime!(16 * i + 8 * r) * (dim / 4) + part];
                    #[unroll]
                    for k in 0..4usize {
                        let e = comptime!(part / 2);
                        let at = comptime!(i * TILES + part % 2 * 4 + k);
                        let mut sum = sums[at];
                        sum.insert(comptime!(2 * r + e), values.extract(k));
                        sums[at] = sum;
                    }
                }
            }
        }
    }

    #[unroll]
    for stage in 0..comptime!(tile.stages - 1) {
        if stage < count {
            copy_block(
                address + comptime!((stage * stage_size * 16) as u32),
                offset + stage * cubes,
                words,
                gradient,
                args,
                multiply,
            );
        }
        end_copy_group();
    }
    let mut slot = 0usize.runtime();
    let mut free_slot = comptime!(tile.stages - 1).runtime();
    for step in 0..count {
        wait_for_copies(comptime!(tile.stages as u32 - 2));
        sync_cube();
        let ahead = step + comptime!(tile.stages - 1);
        if ahead < count {
            copy_block(
                address + (free_slot * comptime!(stage_size * 16)) as u32,
                offset + ahead * cubes,
                words,
                gradient,
                args,
                multiply,
            );
        }
        end_copy_group();
        let gradient_at = address + (slot * comptime!(stage_size * 16)) as u32;
        let words_at = gradient_at + comptime!((BLOCK * tile.gradient_parts() * 16) as u32);
        #[unroll]
        for k in 0..comptime!(BLOCK / 16) {
            multiply_labels(
                gradient_at + comptime!((k * 16 * tile.gradient_parts() * 16) as u32),
                words_at + comptime!((k * 16 * tile.weight_parts(weights) * 16) as u32),
                plane_row as u32,
                plane_column as u32,
                &mut sums,
                multiply,
            );
        }
        free_slot = slot;
        slot += 1;
        if slot == comptime!(tile.stages) {
            slot = 0usize.runtime();
        }
    }
    wait_for_copies(0u32);

    #[unroll]
    for i in 0..FRAGMENTS {
        #[unroll]
        for r in 0..2usize {
            #[unroll]
            for part in 0..4usize {
                let mut values = Sums::empty();
                #[unroll]
                for k in 0..4usize {
                    let e = comptime!(part / 2);
                    let sum = sums[comptime!(i * TILES + part % 2 * 4 + k)];
                    values.insert(k, sum.extract(comptime!(2 * r + e)));
                }
                workspace[place + comptime!(16 * i + 8 * r) * (dim / 4) + part] = values;
            }
        }
    }
}

/// Begins to copy one block of labels. Parts of a row change places by the row, so that rows that are read at once lie
/// in different banks: eight neighbours of the gradient, four second neighbours of the weights.
#[cube]
fn copy_block(
    to: u32,
    block: usize,
    words: &[Words4],
    gradient: &[Words4],
    args: &GradientArgs,
    #[comptime] multiply: Multiply,
) {
    let tile = comptime!(multiply.tile);
    let weights = comptime!(multiply.weights);
    let labels = args.labels;
    let row_parts = args.row_parts;
    let batch = args.batch;
    // Every unit copies the same part of rows at a constant distance.
    let parts = comptime!(tile.gradient_parts());
    let (row, part) = (UNIT_POS as usize / parts, UNIT_POS as usize % parts);
    let label = block * BLOCK + row;
    let from = to + ((row * parts + (part ^ (row % 8))) * 16) as u32;
    let at = label * (batch / 8) + CUBE_POS_Y as usize * parts + part;
    #[unroll]
    for i in 0..comptime!(BLOCK * tile.gradient_parts() / tile.units() as usize) {
        let below = comptime!(i * tile.units() as usize / tile.gradient_parts());
        copy_async(
            from + comptime!(i as u32 * tile.units() * 16),
            gradient,
            at + below * (batch / 8),
            label + below < labels,
        );
    }
    let to = to + comptime!((BLOCK * tile.gradient_parts() * 16) as u32);
    let parts = comptime!(tile.weight_parts(weights));
    let (row, part) = (UNIT_POS as usize / parts, UNIT_POS as usize % parts);
    let label = block * BLOCK + row;
    let column = CUBE_POS_X as usize * parts + part;
    let at = (args.first + label) * row_parts + column;
    let inside = select(column < row_parts, labels, 0usize);
    #[unroll]
    for i in 0..comptime!(BLOCK * tile.weight_parts(weights) / tile.units() as usize) {
        let below = comptime!(i * tile.units() as usize / tile.weight_parts(weights));
        let place = (row + below) * parts + (part ^ ((row + below) / 2 % 4 * 2));
        copy_async(to + (place * 16) as u32, words, at + below * row_parts, label + below < inside);
    }
}

/// Adds the products of 16 labels. Lane `4 g + t` takes the weights of the labels `2t`, `2t + 1`, `2t + 8` and
/// `2t + 9`.
#[cube]
fn multiply_labels(
    gradient_at: u32,
    words_at: u32,
    plane_row: u32,
    plane_column: u32,
    sums: &mut Array<Sums>,
    #[comptime] multiply: Multiply,
) {
    let tile = comptime!(multiply.tile);
    let weights = comptime!(multiply.weights);
    let half = comptime!(multiply.half);
    let lane = UNIT_POS % 32u32;
    let (g, t) = (lane / 4u32, lane % 4u32);

    // Matrices of 8 labels by 8 rows of the batch: labels 0 to 7 of both row halves, then labels 8 to 15.
    let (matrix, label) = (lane / 8u32, lane % 8u32);
    let parts = comptime!(tile.gradient_parts() as u32);
    let row = (matrix / 2u32 * 8u32 + label) * parts;
    let mut a = Array::<Words4>::new(FRAGMENTS);
    #[unroll]
    for i in 0..FRAGMENTS {
        let part = plane_row * 8u32 + comptime!(2 * i as u32) + matrix % 2u32;
        a[i] = load_matrices(gradient_at + (row + (part ^ label)) * 16u32, true);
    }

    // For each of 8 tiles of columns: pairs of labels, two pairs an instruction.
    let parts = comptime!(tile.weight_parts(weights) as u32);
    let mut b = Array::<u32>::new(comptime!(2 * TILES));
    match comptime!(weights) {
        Stored::Codes { native } => {
            let part = (plane_column * 4u32 + g / 2u32) ^ (2u32 * t);
            let at = words_at + (2u32 * t * parts + part) * 16u32 + g % 2u32 * 8u32;
            #[unroll]
            for k in 0..2usize {
                let one = load_8(at + comptime!(8 * k as u32 * parts * 16));
                let other = load_8(at + comptime!((8 * k as u32 + 1) * parts * 16));
                #[unroll]
                for word in 0..2usize {
                    let (one, other) = (one.extract(word), other.extract(word));
                    let low = decode_e4m3(permute_bytes(one, other, 0x5140u32), native);
                    let high = decode_e4m3(permute_bytes(one, other, 0x7362u32), native);
                    b[comptime!((word * 4) * 2 + k)] = low.extract(0usize);
                    b[comptime!((word * 4 + 1) * 2 + k)] = low.extract(1usize);
                    b[comptime!((word * 4 + 2) * 2 + k)] = high.extract(0usize);
                    b[comptime!((word * 4 + 3) * 2 + k)] = high.extract(1usize);
                }
            }
        }
        Stored::Half => {
            let part = (plane_column * 8u32 + g) ^ (2u32 * t);
            let at = words_at + (2u32 * t * parts + part) * 16u32;
            #[unroll]
            for k in 0..2usize {
                let one = load_16(at + comptime!(8 * k as u32 * parts * 16));
                let other = load_16(at + comptime!((8 * k as u32 + 1) * parts * 16));
                #[unroll]
                for word in 0..4usize {
                    let (one, other) = (one.extract(word), other.extract(word));
                    b[comptime!((word * 2) * 2 + k)] = permute_bytes(one, other, 0x5410u32);
                    b[comptime!((word * 2 + 1) * 2 + k)] = permute_bytes(one, other, 0x7632u32);
                }
            }
        }
    }

    #[unroll]
    for j in 0..TILES {
        let mut pair = Words2::empty();
        pair.insert(0usize, b[comptime!(2 * j)]);
        pair.insert(1usize, b[comptime!(2 * j + 1)]);
        #[unroll]
        for i in 0..FRAGMENTS {
            let at = comptime!(i * TILES + j);
            sums[at] = multiply_add(a[i], pair, sums[at], half);
        }
    }
}
