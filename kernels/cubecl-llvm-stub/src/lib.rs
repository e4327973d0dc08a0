//! Stands in for `cubecl-llvm`, CubeCL's compiler that goes through LLVM.
//!
//! `cubecl-cuda` depends on `cubecl-llvm` without condition, and its build script downloads a prebuilt LLVM. A build
//! must not fetch binaries, and this project has no use for that compiler: the feature `cubecl/cuda-cpp` selects the
//! one that writes CUDA C++ for NVRTC, which also knows the instructions that the LLVM one leaves out (8-bit
//! conversions, tensor memory access, inline PTX).
//!
//! So this crate, put in place by `[patch.crates-io]`, has the names and types that `cubecl-cuda` mentions and nothing
//! behind them. Nothing here is called while `cubecl/cuda-cpp` is on. Without it, every kernel fails to compile with an
//! error that says what to do. CubeCL's CPU runtime needs the real crate and cannot be built beside this one.
//!
//! The version must be that of the CubeCL in use: when CubeCL is updated, compare with `compiler.rs`, `runtime.rs` and
//! `compute/context.rs` of `cubecl-cuda`.

use core::{ffi::c_char, fmt};

#[cfg(feature = "nvptx")]
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::{
    CompilationError, Compiler, environment::backtrace::BackTrace, prelude::KernelDefinition,
};
use cubecl_runtime::kernel::BufferIOAttr;

/// What a compiler would emit code for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    #[default]
    Cpu,
    #[cfg(feature = "nvptx")]
    Nvptx,
}

/// The compiler that is not there.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    pub target: LlvmTarget,
}

/// Options of a compilation.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Architecture of an AMD device.
    pub arch: Option<()>,
    /// Architecture of an NVIDIA device.
    #[cfg(feature = "nvptx")]
    pub sm_arch: Option<SmArch>,
    /// PTX version to emit.
    #[cfg(feature = "nvptx")]
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether scalars travel in the kernel's parameter block.
    pub grid_constants: bool,
}

/// A compiled PTX module.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    pub ptx: Vec<c_char>,
    pub ir: String,
    pub shared_memory_size: usize,
    pub io: Vec<BufferIOAttr>,
}

/// What a compilation would yield; none ever does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlironArtifact {
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NvptxCode(module) = self;
        f.write_str(&module.ir)
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _kernel: KernelDefinition,
        _options: &Self::CompilationOptions,
    ) -> Result<Self::Representation, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this program is built without CubeCL's LLVM compiler; \
                     build it with the feature `cubecl/cuda-cpp`, which compiles through NVRTC"
                .to_owned(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

#[cfg(feature = "nvptx")]
pub mod nvptx {
    pub mod ptx_version {
        use core::fmt;

        /// A version of the PTX language. There is no value of it here, since nothing emits PTX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest version that a driver loads: unknown.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

pub mod shared {
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// What features are narrowed for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            #[cfg(feature = "nvptx")]
            Nvptx,
        }

        /// Narrows a device's features to what the compiler supports; no kernel compiles, so nothing is left to narrow.
        pub fn restrict_features(_properties: &mut DeviceProperties, _target: GpuTarget) {}
    }
}
