//! What moves the encoder: Adam and SGD with Kahan summation, gradient clipping, and learning-rate schedules.

mod adam;
mod clip;
mod module_adam;
mod plateau;
mod schedule;
mod sgd;
#[cfg(test)]
mod tests;

pub use adam::{KahanAdam, KahanAdamState};
pub use clip::clip;
pub use module_adam::ModuleAdam;
pub use plateau::Plateau;
pub use schedule::Schedule;
pub use sgd::{KahanSgd, KahanSgdState};

use burn::tensor::DType;

/// Whether parameters of this type can have a compensation: those of 32 bits lose too little to need one.
fn can_be_compensated(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}
