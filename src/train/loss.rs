//! The training loss: when it is computed, its mean over an epoch, and the stop on numbers that are not finite.

use burn::tensor::Tensor;

use crate::error::{Error, Result};

/// An epoch with fewer steps computes the loss in every one.
const FEW_STEPS: usize = 40;
/// A longer one computes it so many times or more.
const MIN_LOSSES: usize = 4;

/// Every how many steps the loss is computed where `wanted` is configured: more often in short epochs, so that each has
/// a loss that stands for its rows. Never if 0.
pub fn period(wanted: usize, steps_an_epoch: usize) -> usize {
    match steps_an_epoch < FEW_STEPS {
        true => wanted.min(1),
        false => wanted.min(steps_an_epoch / MIN_LOSSES),
    }
}

/// What a training step reports.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// `[2]`, on the device: see [`ClassifierStep::report`](crate::classifier::ClassifierStep::report).
    pub report: Tensor<1>,
    /// Whether the step computed its loss.
    pub has_loss: bool,
    /// Rows of the batch.
    pub rows: usize,
}

/// Mean loss over the rows of the steps that computed it.
#[derive(Default)]
pub struct MeanLoss {
    sum: f64,
    rows: usize,
    /// `[1]`, on the device: weights that kept their value because the new one was not finite.
    refused: Option<Tensor<1>>,
}

impl MeanLoss {
    /// The mean so far.
    pub fn value(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.sum / self.rows as f64)
    }

    /// The rows that it is the mean over.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The step's own loss a row if it computed one. Reading it waits for the device.
    ///
    /// # Errors
    /// [`Error::Training`] if the loss, or an update since it was last read, is not finite.
    pub fn add(&mut self, step: &StepReport) -> Result<Option<f64>> {
        let refused = step.report.clone().narrow(0, 1, 1);
        self.refused = Some(match self.refused.take() {
            Some(sum) => sum + refused,
            None => refused,
        });
        if !step.has_loss {
            return Ok(None);
        }
        let report: Vec<f32> = step.report.to_data().iter().collect();
        if report[1] > 0.0 || !report[0].is_finite() {
            return Err(not_finite(report[0], report[1]));
        }
        self.sum += report[0] as f64;
        self.rows += step.rows;
        Ok(Some(report[0] as f64 / step.rows as f64))
    }

    /// Whether every update so far was finite, also in steps that computed no loss.
    ///
    /// # Errors
    /// [`Error::Training`] if one was not.
    pub fn check(&mut self) -> Result<()> {
        let refused = self.refused.take().map_or(0.0, |sum| sum.into_scalar::<f32>());
        match refused > 0.0 {
            true => Err(not_finite(f32::NAN, refused)),
            false => Ok(()),
        }
    }
}

fn not_finite(loss: f32, refused: f32) -> Error {
    Error::Training {
        message: format!("the numbers are not finite any more (loss {loss}, {refused} updates of weights refused)"),
        hint: Some(
            "lower dataset.training.encoder.lr or dataset.training.xmc.lr; checkpoints of earlier epochs are intact"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn step(loss: f32, refused: f32, has_loss: bool, rows: usize) -> StepReport {
        StepReport { report: Tensor::from_floats([loss, refused], &Device::flex()), has_loss, rows }
    }

    #[test]
    fn every_epoch_has_a_loss() {
        // (loss_every, steps an epoch, period)
        for (wanted, steps, expected) in
            [(10, 1, 1), (10, 39, 1), (10, 40, 10), (10, 1000, 10), (1000, 100, 25), (1, 5, 1), (0, 5, 0), (0, 500, 0)]
        {
            assert_eq!(period(wanted, steps), expected, "{wanted} of {steps}");
            assert!(wanted == 0 || period(wanted, steps) <= steps);
        }
    }

    #[test]
    fn the_mean_is_over_the_rows_that_were_measured() {
        let mut loss = MeanLoss::default();
        assert_eq!(loss.value(), None);
        assert_eq!(loss.add(&step(60.0, 0.0, true, 20)).unwrap(), Some(3.0));
        assert_eq!(loss.add(&step(0.0, 0.0, false, 20)).unwrap(), None);
        assert_eq!(loss.add(&step(40.0, 0.0, true, 5)).unwrap(), Some(8.0));
        assert_eq!((loss.value(), loss.rows()), (Some(4.0), 25));
        loss.check().unwrap();
    }

    #[test]
    fn what_is_not_finite_is_found_at_once_or_at_the_end_of_the_epoch() {
        for (report, at_once) in
            [(step(f32::NAN, 0.0, true, 4), true), (step(1.0, 2.0, true, 4), true), (step(0.0, 2.0, false, 4), false)]
        {
            let mut loss = MeanLoss::default();
            assert_eq!(loss.add(&report).is_err(), at_once);
            assert!(at_once || loss.check().is_err());
        }
    }
}
