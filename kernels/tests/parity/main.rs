//! The operations on a GPU against the truth in F64 and the CPU path: one file a promise.
//!
//! `ELMO_TEST_DEVICE` chooses among the devices that the build has: `cuda`, `vulkan`, `metal`, `wgpu`.
#![cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]

mod device;
mod encoder;
mod input;
mod memory;
mod optim;
mod rounding;
mod search;
mod step;
#[path = "../support/mod.rs"]
mod support;
