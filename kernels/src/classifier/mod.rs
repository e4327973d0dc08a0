//! The classifier: one segment's training step and search on every backend.

pub mod cpu;
#[cfg(feature = "cube")]
mod gpu;
mod init;
mod layout;
mod ops;
mod problem;
pub mod reference;

pub use init::{Initializer, initial_words};
pub use layout::{Compensation, Precision, stored};
pub use ops::{ClassifierOps, StepOutput, classifier_search, classifier_step};
pub use problem::{Head, Operands, Positives, Search, Segment, Step, padded_batch};
