//! The encoder's learning rate, as burn-train asks for it.

use burn::{
    lr_scheduler::{LrScheduler, LrSchedulerRecord},
    optim::LearningRate,
};

use crate::optim::Schedule;

/// A [`Schedule`] times its peak, one step at a time. The classifier has a schedule of its own.
#[derive(Clone, Debug)]
pub struct EncoderSchedule {
    peak: f64,
    schedule: Schedule,
    step: u64,
}

impl EncoderSchedule {
    pub fn new(peak: f64, schedule: Schedule) -> Self {
        Self {
            peak,
            schedule,
            step: 0,
        }
    }
}

impl LrScheduler for EncoderSchedule {
    fn step(&mut self) -> LearningRate {
        let rate = self.peak * self.schedule.factor(self.step);
        self.step += 1;
        rate
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(step) = record.scalar("step") {
            self.step = step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_continues_where_it_was_taken() {
        let schedule = Schedule::CosineWithWarmup { warmup: 3, total: 10 };
        let mut whole = EncoderSchedule::new(0.5, schedule.clone());
        let rates: Vec<f64> = (0..10).map(|_| whole.step()).collect();
        assert_eq!(rates[0], 0.0);
        assert_eq!(rates[3], 0.5);
        let mut first = EncoderSchedule::new(0.5, schedule.clone());
        (0..4).for_each(|_| {
            first.step();
        });
        let mut second = EncoderSchedule::new(0.5, schedule);
        second.load_record(first.to_record());
        assert_eq!(second.step(), rates[4]);
    }
}
