//! The operations of an extreme multi-label classifier that Burn lacks, for every backend.
//!
//! A classifier with millions of labels is kept in 8 bits a weight and trained in place: logits exist for one chunk
//! of labels at a time, the weight gradient never reaches memory, and updates are rounded stochastically
//! (ELMO, ICML 2025, arXiv 2510.11168).

mod autodiff;
pub mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
pub mod fp8;
mod fusion;
mod init;
mod layout;
mod ops;
mod path;
mod problem;
pub mod random;
pub mod reference;
pub mod timing;

pub use fusion::configure_fusion;
pub use init::{Initializer, initial_words};
pub use layout::{Compensation, Precision};
pub use ops::{ClassifierOps, StepOutput, classifier_search, classifier_step};
pub use path::{KernelPath, limit_kernels};
pub use problem::{Head, Operands, Positives, Search, Segment, Step, padded_batch};
