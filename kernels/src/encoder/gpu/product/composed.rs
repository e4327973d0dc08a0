//! Products by Burn's own kernels, and the epilogue as a kernel of its own: for every device.
//!
//! In 16 bits the product is rounded before the epilogue.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::{
    kernel::matmul::{MatmulStrategy, matmul},
    tensor::CubeTensor,
};
use cubecl::{calculate_cube_count_elemwise, ir::ElemType, prelude::*, zspace::metadata::Metadata};

use super::{super::layer::new, Epilogue, Kind, Layout, Matrix, Operands};
use crate::gpu::LINEAR;

/// See [`super::product`].
pub fn product(layout: Layout, operands: &Operands, epilogue: Epilogue) {
    let (rows, columns, depth) = layout.sizes(operands);
    let (a, b) = match layout {
        Layout::Plain => (view(operands.a, false), view(operands.b, false)),
        Layout::RightTransposed => (view(operands.a, false), view(operands.b, true)),
        Layout::LeftTransposed => (view(operands.a, true), view(operands.b, false)),
    };
    debug_assert_eq!((a.meta.shape()[1], b.meta.shape()[0]), (depth, depth));
    let out = operands.out;
    let dtype = out.tensor.dtype;
    let kind = epilogue.kind();
    let direct = kind == Kind::Store;
    let result = if direct { view(out, false) } else { new(&out.tensor, [rows, columns]) };
    matmul(a, b, Some(result.clone()), MatmulStrategy::Cube, dtype)
        .expect("a product of two matrices of one type can be launched on every device");
    if direct {
        return;
    }
    let other = epilogue.tensor(&out.tensor);
    let length = rows * columns;
    // SAFETY: every access is within the result.
    unsafe {
        finish::launch_unchecked(
            &out.tensor.client,
            calculate_cube_count_elemwise(&out.tensor.client, length, LINEAR),
            LINEAR,
            result.into_buffer_arg(),
            other.clone().into_buffer_arg(),
            out.tensor.clone().into_buffer_arg(),
            length,
            columns,
            kind,
            dtype_to_storage_type(dtype),
        );
    }
}

/// A matrix, or its transpose, as a tensor of Burn.
fn view(matrix: &Matrix, transposed: bool) -> CubeTensor {
    let (shape, strides) = match transposed {
        false => ([matrix.rows, matrix.columns], [matrix.columns, 1]),
        true => ([matrix.columns, matrix.rows], [1, matrix.columns]),
    };
    let tensor = matrix.tensor.clone();
    let metadata = Metadata::new(shape, strides);
    CubeTensor::new(tensor.client, tensor.handle, metadata, tensor.device, tensor.dtype)
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn finish<F: Float>(
    product: &[F],
    other: &[F],
    out: &mut [F],
    length: usize,
    columns: usize,
    #[comptime] kind: Kind,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < length {
        let number = f32::cast_from(product[at]);
        match comptime!(kind) {
            Kind::Store => out[at] = product[at],
            Kind::Bias => out[at] = F::cast_from(number + f32::cast_from(other[at % columns])),
            Kind::Add => out[at] = F::cast_from(number + f32::cast_from(other[at])),
        }
    }
}
