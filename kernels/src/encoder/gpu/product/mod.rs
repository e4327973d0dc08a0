//! Matrix products with what happens to each number of the result.

mod composed;
#[cfg(feature = "cuda")]
mod hopper;

use burn_cubecl::tensor::CubeTensor;

use crate::path::KernelPath;

/// A contiguous, row-major matrix.
#[derive(Clone)]
pub struct Matrix {
    /// Its numbers.
    pub tensor: CubeTensor,
    pub rows: usize,
    pub columns: usize,
}

/// How both operands lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `A [M, K]`, `B [K, N]`: forward.
    Plain,
    /// `A [M, K]`, `B [N, K]`: the gradient by the input, `dY W^T`.
    RightTransposed,
    /// `A [K, M]`, `B [K, N]`: the gradient by the weight, `X^T dY`.
    LeftTransposed,
}

/// What happens to the numbers of a result, in F32, before they are rounded and stored.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    Store,
    /// A bias `[N]` is added.
    Bias(&'a CubeTensor),
    /// Another matrix of the result's shape is added.
    Add(&'a CubeTensor),
}

/// An epilogue without its tensors: what a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Store,
    Bias,
    Add,
}

impl<'a> Epilogue<'a> {
    fn kind(self) -> Kind {
        match self {
            Self::Store => Kind::Store,
            Self::Bias(_) => Kind::Bias,
            Self::Add(_) => Kind::Add,
        }
    }

    /// What is read; `any` live buffer where there is no such tensor.
    fn tensor(self, any: &'a CubeTensor) -> &'a CubeTensor {
        match self {
            Self::Store => any,
            Self::Bias(other) | Self::Add(other) => other,
        }
    }
}

/// One product.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    pub a: &'a Matrix,
    pub b: &'a Matrix,
    pub out: &'a Matrix,
}

/// `out = op(A) op(B)` with the epilogue; all of one type, summed in F32.
pub fn product(layout: Layout, operands: Operands, epilogue: Epilogue, most: KernelPath) {
    #[cfg(feature = "cuda")]
    if most >= KernelPath::Hopper && hopper::product(layout, &operands, epilogue) {
        return;
    }
    let _ = most;
    composed::product(layout, &operands, epilogue);
}

impl Layout {
    /// Rows, columns and depth of the product.
    fn sizes(self, operands: &Operands) -> (usize, usize, usize) {
        let (a, b) = (operands.a, operands.b);
        match self {
            Self::Plain => (a.rows, b.columns, a.columns),
            Self::RightTransposed => (a.rows, b.rows, a.columns),
            Self::LeftTransposed => (a.columns, b.columns, a.rows),
        }
    }
}
