//! What moves the encoder: Adam with Kahan summation, and learning-rate schedules.

mod adam;
mod schedule;
#[cfg(test)]
mod tests;

pub use adam::{KahanAdam, KahanAdamState};
pub use schedule::Schedule;
