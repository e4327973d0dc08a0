//! A step of Adam with Kahan summation as one pass over a parameter.
//!
//! Composed of tensor operations it is some thirty of them, each of which reads and writes whole tensors. Here every
//! number is read once and written once: 18 bytes of traffic for a parameter of 16 bits.
//!
//! Each intermediate result that the composed step stores in the parameter's type is rounded to it here too, so that
//! both give the same bits (on a GPU but for the last bit of what a division or a square root, or a product and a sum
//! in one instruction, have rounded otherwise).

#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "cube")]
mod gpu;
mod ops;
#[cfg(test)]
mod tests;

pub use ops::{
    AdamBatch, AdamState, AdamTensors, AdamWork, BATCH, GradientBatch, OptimizerOps, kahan_adam, kahan_adam_all, settle,
};

/// What a step needs beside tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Of this step.
    pub learning_rate: f64,
    /// What the first moment keeps of itself at this step: 0 at the first one, as Adam's correction of the bias wants it.
    pub beta_1: f64,
    /// Of the second moment, likewise.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay, in the sense that `decoupled` says.
    pub weight_decay: f64,
    /// Whether weights decay by themselves rather than through the gradient.
    pub decoupled: bool,
}

/// Where weights decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Decay {
    Nowhere,
    /// The parameter is multiplied by a factor.
    Parameter,
    /// The parameter times a factor is added to the gradient.
    Gradient,
}

/// The numbers of a step as the arithmetic takes them: each rounded to F32 once.
#[derive(Clone, Copy, Debug)]
struct Factors {
    /// By [`Decay`].
    decay: f32,
    /// Share of the new gradient in the first moment.
    change: f32,
    /// What the second moment keeps.
    keep: f32,
    /// Share of the new gradient's square in the second moment.
    add: f32,
    /// The learning rate, negative.
    rate: f32,
    epsilon: f32,
}

impl AdamStep {
    fn decay(&self) -> Decay {
        match (self.weight_decay != 0.0, self.decoupled) {
            (false, _) => Decay::Nowhere,
            (true, true) => Decay::Parameter,
            (true, false) => Decay::Gradient,
        }
    }

    fn factors(&self) -> Factors {
        let decay = if self.decoupled { 1.0 - self.learning_rate * self.weight_decay } else { self.weight_decay };
        Factors {
            decay: decay as f32,
            change: (1.0 - self.beta_1) as f32,
            keep: self.beta_2 as f32,
            add: (1.0 - self.beta_2) as f32,
            rate: -self.learning_rate as f32,
            epsilon: self.epsilon as f32,
        }
    }
}
