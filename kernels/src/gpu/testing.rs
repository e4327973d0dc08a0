//! What tests of kernels share: a device, and tensors on it.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, TensorData};
use burn_cubecl::{CubeBackend, CubeDevice, tensor::CubeTensor};

use crate::random::hash;

/// The device that `ELMO_TEST_DEVICE` names, or the best that the build has; `None` if it has none.
pub fn device() -> Option<CubeDevice> {
    let name = std::env::var("ELMO_TEST_DEVICE").ok();
    let device = match name.as_deref() {
        Some("cuda") => CubeDevice::cuda(0),
        Some("vulkan" | "wgpu" | "metal") => CubeDevice::wgpu(Default::default()),
        Some(other) => panic!("no device {other:?}"),
        None if cfg!(feature = "cuda") => CubeDevice::cuda(0),
        None => CubeDevice::wgpu(Default::default()),
    };
    device.ok()
}

/// Numbers of the host on the device, contiguous, rounded to `dtype`.
pub fn tensor<const N: usize>(values: &[f32], shape: [usize; N], dtype: DType, device: &CubeDevice) -> CubeTensor {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
    burn_cubecl::kernel::into_contiguous(CubeBackend::float_from_data(data, device))
}

/// A tensor's numbers.
pub fn values(tensor: CubeTensor) -> Vec<f32> {
    let data = cubecl::future::block_on(CubeBackend::float_into_data(tensor)).expect("the device answers");
    data.convert::<f32>().try_into_vec().expect("F32")
}

/// `length` random numbers in [-1, 1) that depend on `seed` alone.
pub fn noise(length: usize, seed: u32) -> Vec<f32> {
    (0..length as u32).map(|at| hash(at ^ hash(seed)) as f32 / 2_147_483_648.0 - 1.0).collect()
}

/// The types of numbers that the encoder has on this device.
pub fn dtypes(device: &CubeDevice) -> Vec<DType> {
    use burn::backend::Backend;
    [DType::F32, DType::F16, DType::BF16]
        .into_iter()
        .filter(|dtype| CubeBackend::supports_dtype(device, *dtype))
        .collect()
}
