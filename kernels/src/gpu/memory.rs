//! Buffers on a device.

use burn::tensor::{DType, Shape};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

/// What the sizes of [`reused`] memory are rounded up to: each size stays allocated, and chunks of about the same size
/// share one.
const REUSED_BYTES: usize = 4 << 20;

/// The tensor itself if it is contiguous and has no other owner, else a contiguous copy.
pub fn exclusive(tensor: CubeTensor) -> CubeTensor {
    let tensor = if tensor.can_mut() { tensor } else { tensor.copy() };
    into_contiguous(tensor)
}

/// Uninitialised memory on the device of `like`. Never empty, since no kernel can bind an empty buffer.
pub fn empty(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let handle = like.client.empty(len.max(1) * dtype.size());
    flat(like, len.max(1), handle, dtype)
}

/// Uninitialised memory that the next request for as much gets again, rounded up to whole [`REUSED_BYTES`].
///
/// It lies outside the pool of temporary memory, whose pages are as large as the largest buffer in them: one large
/// buffer there would make every page as large.
pub fn reused(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let client = &like.client;
    let bytes = (len.max(1) * dtype.size()).next_multiple_of(REUSED_BYTES);
    let handle = client.memory_persistent_allocation(bytes, |bytes| client.empty(bytes));
    flat(like, len.max(1), handle, dtype)
}

/// Values of the host on the device of `like`; the copy is queued, not waited for.
pub fn upload<T: CubeElement>(like: &CubeTensor, values: &[T], dtype: DType) -> CubeTensor {
    if values.is_empty() {
        return empty(like, 0, dtype);
    }
    let handle = like.client.create_from_slice(T::as_bytes(values));
    flat(like, values.len(), handle, dtype)
}

pub fn flat(like: &CubeTensor, len: usize, handle: cubecl::server::Handle, dtype: DType) -> CubeTensor {
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), Shape::from([len]), handle, dtype)
}
