//! Devices by the names that a user types: `cpu`, `wgpu`, `vulkan`, `metal`, `cuda`, with `:n` for the n-th.

use std::panic::{self, AssertUnwindSafe};

use burn::tensor::{DType, Device, FloatDType, IntDType, Tensor};
use elmo_kernels::Format;

use crate::error::{Error, Result};

/// Largest buffer of classifier weights on devices that promise no more (WebGPU's binding limit).
const SMALL_SEGMENT: usize = 128 << 20;
/// Largest buffer of classifier weights elsewhere.
const LARGE_SEGMENT: usize = 1 << 30;

/// The names that can be used, best first, and whether this build holds them.
const KINDS: [(&str, bool); 5] = [
    ("cuda", cfg!(feature = "cuda")),
    ("metal", cfg!(feature = "metal")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("cpu", cfg!(feature = "flex")),
];

/// A device that has been found to work, and what the rest of the crate must know of it.
#[derive(Clone, Debug)]
pub struct Compute {
    /// The device, without autodiff.
    pub device: Device,
    /// What the user calls it, such as `cuda:0`.
    pub name: String,
    /// The type of the encoder's parameters and activations.
    pub float: FloatDType,
    /// Largest buffer of classifier weights, in bytes.
    pub segment_bytes: usize,
}

impl Compute {
    /// Opens the device called `name`; the best one this build holds if it is `None`.
    ///
    /// The encoder computes in BF16 if that is wanted and the device is a GPU that has it, else in F32. The device's
    /// random numbers (dropout, initial encoder weights) start from `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such name; [`Error::Device`] if it is not compiled in, or no such device
    /// answers.
    pub fn open(name: Option<&str>, want_bf16: bool, seed: u64) -> Result<Self> {
        let name = match name {
            Some(name) => name,
            None => KINDS
                .into_iter()
                .find_map(|(kind, compiled)| compiled.then_some(kind))
                .ok_or_else(|| fail("none", "this build holds no device", Some(build_hint("flex"))))?,
        };
        let (kind, index) = parse(name)?;
        elmo_kernels::configure_fusion();
        let mut device = guarded(name, || construct(kind, index))?;
        let float = guarded(name, || {
            let bf16 = want_bf16 && kind != "cpu" && device.supports_dtype(DType::BF16);
            if bf16 { FloatDType::BF16 } else { FloatDType::F32 }
        })?;
        guarded(name, || {
            // Fails only if a tensor exists already: then the settings are those of whoever made it.
            if let Err(error) = device.configure((float, IntDType::I32)) {
                tracing::debug!("device settings stay as they are: {error}");
            }
            device.seed(seed);
            // Reading the value makes the device do something.
            let one: Vec<f32> = Tensor::<1>::ones([1], (&device, DType::F32)).into_data().iter().collect();
            assert_eq!(one, [1.0], "the device returns wrong numbers");
        })?;
        Ok(Self {
            device,
            name: match index {
                Some(index) => format!("{kind}:{index}"),
                None => kind.to_owned(),
            },
            float,
            segment_bytes: match kind {
                "wgpu" => SMALL_SEGMENT,
                _ => LARGE_SEGMENT,
            },
        })
    }

    /// The format of the encoder's numbers.
    pub fn float_format(&self) -> Format {
        match self.float {
            FloatDType::BF16 => Format::Bf16,
            _ => Format::F32,
        }
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.name == "cpu"
    }
}

/// Whether `device` is the CPU.
pub(crate) fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().without_autodiff() == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

fn fail(device: &str, message: impl Into<String>, hint: Option<String>) -> Error {
    Error::Device { device: device.to_owned(), message: message.into(), hint }
}

fn mistyped(name: &str, expected: &str, hint: Option<String>) -> Error {
    Error::Usage { argument: "--device".into(), expected: expected.into(), found: name.to_owned(), hint }
}

fn build_hint(feature: &str) -> String {
    format!("build it in: cargo build --release --features {feature}")
}

/// `kind` and `:index`, checked against what is compiled in.
fn parse(name: &str) -> Result<(&'static str, Option<usize>)> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse().map_err(|_| {
                let hint = format!("write {kind}:0 for the first, {kind}:1 for the second");
                mistyped(name, "a device number after the colon", Some(hint))
            })?;
            (kind, Some(index))
        }
        None => (name, None),
    };
    let compiled: Vec<&str> = KINDS.iter().filter(|k| k.1).map(|k| k.0).collect();
    let have = format!("this build holds: {}", compiled.join(", "));
    match KINDS.into_iter().find(|(known, _)| *known == kind) {
        None => Err(mistyped(name, "cpu, wgpu, vulkan, metal or cuda", Some(have))),
        Some((kind, false)) => {
            let feature = if kind == "cpu" { "flex" } else { kind };
            let hint = format!("{have}; {}", build_hint(feature));
            Err(fail(name, "not part of this build", Some(hint)))
        }
        Some(("cpu", true)) if index > Some(0) => Err(mistyped(name, "cpu, as there is one", None)),
        Some(("cpu", true)) => Ok(("cpu", None)),
        Some((kind, true)) => Ok((kind, index)),
    }
}

fn construct(kind: &str, index: Option<usize>) -> Device {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    use burn::tensor::DeviceKind;
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    let number = index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
    let _ = index;
    match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(index.unwrap_or(0)),
        #[cfg(feature = "metal")]
        "metal" => Device::metal(number),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(number),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(number),
        #[cfg(feature = "flex")]
        "cpu" => Device::flex(),
        kind => unreachable!("`parse` lets only compiled kinds through, not {kind}"),
    }
}

/// Runs `f`, and turns a panic into an error: a GPU back end without its driver or adapter panics on first use.
fn guarded<R>(name: &str, f: impl FnOnce() -> R) -> Result<R> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    panic::set_hook(hook);
    result.map_err(|cause| {
        let reason = cause
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| cause.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        let first_line = reason.lines().next().unwrap_or(reason);
        fail(
            name,
            format!("cannot be used: {first_line}"),
            Some("check that the device and its driver are there, or choose another with --device".into()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(parse("cpu").unwrap(), ("cpu", None));
        assert_eq!(parse("cpu:0").unwrap(), ("cpu", None));
        for (name, part) in [("gpu", "expected cpu, wgpu"), ("cuda:x", "a device number"), ("cpu:1", "as there is one")]
        {
            let error = parse(name).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    #[cfg(not(feature = "metal"))]
    fn a_missing_feature_is_named() {
        let error = Compute::open(Some("metal"), false, 0).unwrap_err().to_string();
        assert!(error.contains("--features metal"), "{error}");
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let error = guarded("cuda", || -> () { panic!("no driver\nbacktrace") }).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cannot be used: no driver\n  help:"), "{text}");
    }
}
