//! elmo
#![allow(clippy::result_large_err)]

pub mod assemble;
mod atomic;
pub mod checkpoint;
pub mod classifier;
pub mod cli;
pub mod config;
pub mod data;
pub mod device;
pub mod encoder;
mod error;
pub mod eval;
pub mod evaluate;
mod memory;
pub mod model;
pub mod optim;
pub mod predict;
pub mod train;

pub use error::{Error, Place, Result, bytes};
