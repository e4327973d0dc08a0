//! Learning-rate schedules: what the base learning rate is multiplied with, as a function of the step alone.

use std::f64::consts::PI;

/// A factor for the learning rate at every optimizer step.
///
/// It has no state, so that a resumed run needs nothing but its step number, and the encoder and the classifier can
/// follow schedules of their own.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Always 1.
    Constant,
    /// From 0 up to 1 along a line in `warmup` steps, then down along half a cosine to 0 at step `total`.
    ///
    /// That is `get_cosine_schedule_with_warmup` of Hugging Face transformers with its default half cycle. Like that
    /// one it follows the cosine up again beyond `total`; `total` is meant to be the last step.
    CosineWithWarmup {
        /// Steps of warm-up; the factor at step 0 is 0 unless there are none.
        warmup: u64,
        /// All steps, warm-up included.
        total: u64,
    },
    /// 1, and `gamma` times as much from each of some steps on: `MultiStepLR` of PyTorch.
    MultiStep {
        /// These steps, counted from 0; one that is named twice counts twice.
        milestones: Vec<u64>,
        /// What the factor is multiplied with.
        gamma: f64,
    },
}

impl Schedule {
    /// The factor at `step`, counted from 0: the first update is made with `factor(0)`.
    pub fn factor(&self, step: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::MultiStep { milestones, gamma } => {
                milestones.iter().filter(|milestone| **milestone <= step).fold(1.0, |factor, _| factor * gamma)
            }
            Self::CosineWithWarmup { warmup, .. } if step < *warmup => step as f64 / *warmup as f64,
            Self::CosineWithWarmup { warmup, total } => {
                // At least one step, for a schedule that ends with its warm-up.
                let steps = total.saturating_sub(*warmup).max(1);
                let progress = (step - warmup) as f64 / steps as f64;
                0.5 * (1.0 + (PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Fixture {
        curves: BTreeMap<String, Vec<f64>>,
    }

    #[test]
    fn agrees_with_transformers_and_torch() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/optimizer/schedules.json");
        let fixture: Fixture = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let schedules = [
            ("constant", Schedule::Constant),
            ("cosine_with_warmup(warmup=10,total=50)", Schedule::CosineWithWarmup { warmup: 10, total: 50 }),
            ("multistep(milestones=[25,37],gamma=0.15)", Schedule::MultiStep { milestones: vec![25, 37], gamma: 0.15 }),
        ];
        assert_eq!(fixture.curves.len(), schedules.len());
        for (name, schedule) in schedules {
            for (step, expected) in (0..).zip(&fixture.curves[name]) {
                let factor = schedule.factor(step);
                assert!((factor - expected).abs() <= 1e-12, "{name}, step {step}: {factor} is not {expected}");
            }
        }
    }

    #[test]
    fn degenerate_lengths_give_numbers() {
        let cosine = |warmup, total, step| Schedule::CosineWithWarmup { warmup, total }.factor(step);
        assert_eq!(cosine(0, 10, 0), 1.0, "no warm-up");
        assert_eq!(cosine(0, 0, 0), 1.0, "no steps");
        assert_eq!(cosine(5, 5, 5), 1.0, "nothing but warm-up");
        assert_eq!(cosine(8, 5, 4), 0.5, "a warm-up that never ends");
    }
}
