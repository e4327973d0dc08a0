//! The operations of an extreme multi-label classifier that Burn lacks, for every backend.
//!
//! A classifier with millions of labels is kept in 8 bits a weight and trained in place: logits exist for one chunk
//! of labels at a time, the weight gradient never reaches memory, and updates are rounded stochastically
//! (ELMO, ICML 2025, arXiv 2510.11168).

mod classifier;
pub mod encoder;
mod fusion;
mod gemm;
#[cfg(feature = "cube")]
mod gpu;
pub mod numbers;
pub mod optim;
mod path;
pub mod timing;

pub use classifier::{
    ClassifierOps, Head, Initializer, Positives, Search, Segment, Step, StepOutput, classifier_search, classifier_step,
    cpu, initial_words, reference, stored,
};
pub use fusion::configure_fusion;
pub use numbers::{Format, random};
pub use path::KernelPath;
