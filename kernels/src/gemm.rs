//! The matrix product of the CPU path: `C = A B + C0` in F32, a tile of `C` at a time, in one fixed order.
//!
//! A tile's sums run over `k` upwards, one multiply-add after the other, whatever the tile's place and size. That makes
//! every element of `C` independent of chunk size and thread count, bit for bit, which no BLAS promises. `C0` continues
//! a sum that an earlier chunk began. The instruction set is chosen at run time; with fused multiply-add the last bits
//! differ from those without, so results repeat on one kind of machine, not between kinds.

/// Rows of a tile: columns of `B` are loaded once for this many rows of `A`.
pub const TILE_ROWS: usize = 6;
/// Columns of a tile; buffers that are multiplied have rows padded to a multiple of it.
pub const TILE_COLUMNS: usize = 16;

/// The instruction set that the product uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl InstructionSet {
    /// The best one this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if avx2 && avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Runs `f` compiled for this instruction set.
    #[inline(always)]
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        match self {
            // SAFETY: `detect` found these features on this machine, AVX2 and FMA for either.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx2 => unsafe { with_avx2(f) },
            Self::Portable => f(),
        }
    }
}

/// `A` of one tile: `rows` (at most [`TILE_ROWS`]) by `depth`, packed so that one step of `k` lies together.
#[derive(Default)]
pub struct Panel {
    values: Vec<f32>,
    rows: usize,
    depth: usize,
}

impl Panel {
    /// Packs `a[row * row_stride + k * depth_stride]`.
    ///
    /// # Panics
    /// If there are more than [`TILE_ROWS`] rows, or `a` is too short.
    pub fn pack(&mut self, a: &[f32], row_stride: usize, depth_stride: usize, rows: usize, depth: usize) {
        assert!(rows <= TILE_ROWS);
        (self.rows, self.depth) = (rows, depth);
        self.values.clear();
        self.values.resize(depth * TILE_ROWS, 0.0);
        let (steps, _) = self.values.as_chunks_mut::<TILE_ROWS>();
        if row_stride == 1 {
            for (k, step) in steps.iter_mut().enumerate() {
                step[..rows].copy_from_slice(&a[k * depth_stride..][..rows]);
            }
            return;
        }
        for row in 0..rows {
            for (k, step) in steps.iter_mut().enumerate() {
                step[row] = a[row * row_stride + k * depth_stride];
            }
        }
    }
}

/// `c[row][..columns] += A b[.., ..columns]` for the rows of one panel.
///
/// # Shapes
/// - `b`: `[depth, b_stride]`, of which the first `columns` are used
/// - `c`: `[rows, c_stride]`
///
/// # Panics
/// If `columns` is not a multiple of [`TILE_COLUMNS`], or a buffer is too short.
pub fn multiply_add(
    set: InstructionSet,
    panel: &Panel,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
    columns: usize,
) {
    assert!(columns.is_multiple_of(TILE_COLUMNS) && columns <= b_stride.min(c_stride));
    if panel.depth == 0 {
        return;
    }
    assert!(b.len() >= (panel.depth - 1) * b_stride + columns);
    match set {
        // SAFETY: `detect` found these features on this machine.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => unsafe { avx512(panel, b, b_stride, c, c_stride, columns) },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { avx2(panel, b, b_stride, c, c_stride, columns) },
        InstructionSet::Portable => {
            columns_of_tiles::<TILE_COLUMNS>(panel, b, b_stride, c, c_stride, 0, columns);
        }
    }
}

/// A tile of `COLUMNS` columns with registers of one width. Written with the instructions themselves: what a compiler makes
/// of loops over arrays was once a vector product, and once a scalar one.
#[cfg(target_arch = "x86_64")]
macro_rules! tile {
    ($name:ident, $features:literal, $lanes:literal, $load:ident, $store:ident, $spread:ident, $multiply_add:ident) => {
        #[target_feature(enable = $features)]
        fn $name<const VECTORS: usize>(panel: &Panel, b: &[f32], b_stride: usize, c: &mut [f32], c_stride: usize) {
            use std::arch::x86_64::*;
            const LANES: usize = $lanes;
            let columns = VECTORS * LANES;
            assert!(b.len() >= (panel.depth - 1) * b_stride + columns);
            assert!(c.len() >= (panel.rows - 1) * c_stride + columns && panel.rows <= TILE_ROWS);
            assert!(panel.values.len() == panel.depth * TILE_ROWS);
            // SAFETY: what is read and written lies within the lengths above.
            unsafe {
                let at = |row: usize, vector: usize| row * c_stride + vector * LANES;
                let mut sums = [[$spread(0.0); VECTORS]; TILE_ROWS];
                for (row, sums) in sums.iter_mut().enumerate().take(panel.rows) {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = $load(c.as_ptr().add(at(row, vector)));
                    }
                }
                let (mut a, mut from) = (panel.values.as_ptr(), b.as_ptr());
                for _ in 0..panel.depth {
                    let mut right = [$spread(0.0); VECTORS];
                    for (vector, right) in right.iter_mut().enumerate() {
                        *right = $load(from.add(vector * LANES));
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let left = $spread(*a.add(row));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = $multiply_add(left, right, *sum);
                        }
                    }
                    a = a.add(TILE_ROWS);
                    // Past the end after the last step, where it is not read.
                    from = from.wrapping_add(b_stride);
                }
                for (row, sums) in sums.iter().enumerate().take(panel.rows) {
                    for (vector, sum) in sums.iter().enumerate() {
                        $store(c.as_mut_ptr().add(at(row, vector)), *sum);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tile!(
    tile_512,
    "avx512f,avx512vl,avx512dq,avx2,fma",
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
tile!(tile_256, "avx2,fma", 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
fn avx512(panel: &Panel, b: &[f32], bs: usize, c: &mut [f32], cs: usize, columns: usize) {
    let mut column = 0;
    while column < columns {
        let (b, c) = (&b[column..], &mut c[column..]);
        match columns - column {
            64.. => tile_512::<4>(panel, b, bs, c, cs),
            32..64 => tile_512::<2>(panel, b, bs, c, cs),
            _ => tile_512::<1>(panel, b, bs, c, cs),
        }
        column += match columns - column {
            64.. => 64,
            32..64 => 32,
            _ => 16,
        };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(panel: &Panel, b: &[f32], bs: usize, c: &mut [f32], cs: usize, columns: usize) {
    for column in (0..columns).step_by(16) {
        tile_256::<2>(panel, &b[column..], bs, &mut c[column..], cs);
    }
}

/// A tile without vector instructions.
fn columns_of_tiles<const N: usize>(
    panel: &Panel,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
    from: usize,
    to: usize,
) {
    for j in (from..to).step_by(N) {
        let mut sums = [[0.0f32; N]; TILE_ROWS];
        for (row, sums) in sums.iter_mut().enumerate().take(panel.rows) {
            sums.copy_from_slice(&c[row * c_stride + j..][..N]);
        }
        let (steps, _) = panel.values.as_chunks::<TILE_ROWS>();
        for (k, a) in steps.iter().enumerate() {
            let b: &[f32; N] = b[k * b_stride + j..][..N].try_into().expect("a slice of N elements");
            for row in 0..TILE_ROWS {
                for column in 0..N {
                    sums[row][column] += a[row] * b[column];
                }
            }
        }
        for (row, sums) in sums.iter().enumerate().take(panel.rows) {
            c[row * c_stride + j..][..N].copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_and_stride_agrees_with_f64() {
        let (depth, columns) = (37, 64 + 32 + 16);
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
        let b: Vec<f32> = (0..depth * columns).map(value).collect();
        let mut sets = vec![InstructionSet::Portable, InstructionSet::detect()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(InstructionSet::Avx2);
        }
        for set in sets {
            for rows in 1..=TILE_ROWS {
                for (row_stride, depth_stride) in [(depth, 1), (1, TILE_ROWS)] {
                    let a: Vec<f32> = (0..depth * TILE_ROWS).map(|i| value(i + 7)).collect();
                    let mut panel = Panel::default();
                    panel.pack(&a, row_stride, depth_stride, rows, depth);
                    let mut c = vec![0.5; rows * columns];
                    multiply_add(set, &panel, &b, columns, &mut c, columns, columns);
                    for row in 0..rows {
                        for j in 0..columns {
                            let expected: f64 = 0.5
                                + (0..depth)
                                    .map(|k| a[row * row_stride + k * depth_stride] as f64 * b[k * columns + j] as f64)
                                    .sum::<f64>();
                            assert!((c[row * columns + j] as f64 - expected).abs() < 1e-5);
                        }
                    }
                }
            }
        }
    }
}
