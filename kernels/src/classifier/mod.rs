//! The classifier: one segment's training step and search on every backend.

mod chunk;
pub mod cpu;
#[cfg(feature = "cube")]
mod gpu;
mod init;
mod layout;
mod ops;
mod positives;
mod problem;
pub mod reference;

pub use init::{Initializer, initial_words};
pub use layout::stored;
pub use ops::{ClassifierOps, StepOutput, classifier_search, classifier_step};
pub use positives::Positives;
pub use problem::{Head, Search, Segment, Step};
