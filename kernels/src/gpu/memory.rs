//! Buffers on a device.

use burn::tensor::{DType, Shape};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

/// What [`kept`] memory is rounded up to, for each size stays: chunks of about the same size share one.
const KEPT_BYTES: usize = 4 << 20;

/// The tensor itself if nobody else holds it and its rows lie one behind the other, else a copy that is so.
pub fn exclusive(tensor: CubeTensor) -> CubeTensor {
    let tensor = if tensor.can_mut() { tensor } else { tensor.copy() };
    into_contiguous(tensor)
}

/// Uninitialised memory on the device of `like`. Never empty, since no kernel can bind an empty buffer.
pub fn empty(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let handle = like.client.empty(len.max(1) * dtype.size());
    flat(like, len.max(1), handle, dtype)
}

/// The same, in memory of its own that the next step finds again, rounded up to whole [`KEPT_BYTES`].
///
/// A pool's pages are as large as the largest thing in them, so that something large in one page makes all the others
/// as large.
pub fn kept(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let client = &like.client;
    let bytes = (len.max(1) * dtype.size()).next_multiple_of(KEPT_BYTES);
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
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        Shape::from([len]),
        handle,
        dtype,
    )
}
