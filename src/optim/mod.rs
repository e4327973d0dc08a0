//! What moves the encoder: Adam with Kahan summation, and learning-rate schedules.

mod adam;
mod module_adam;
mod schedule;
#[cfg(test)]
mod tests;

pub use adam::{KahanAdam, KahanAdamState};
pub use module_adam::ModuleAdam;
pub use schedule::Schedule;
