//! The numbers that burn-train's dashboard shows: loss, P@k and PSP@k.

use std::sync::Arc;

use burn::{
    tensor::TensorReadError,
    train::metric::{
        Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
        SerializedEntry,
        state::{FormatOptions, NumericMetricState},
    },
};

use super::learner::TrainReport;
use crate::{
    eval::{Evaluator, METRIC_K, Propensity},
    evaluate::Ranked,
};

/// The binary cross-entropy of a row, summed over all labels; of the steps that computed it.
#[derive(Clone)]
pub struct LossMetric {
    state: NumericMetricState,
}

impl LossMetric {
    pub fn new() -> Self {
        Self {
            state: NumericMetricState::default(),
        }
    }
}

impl Adaptor<TrainReport> for TrainReport {
    fn adapt(&self) -> TrainReport {
        self.clone()
    }
}

impl Metric for LossMetric {
    type Input = TrainReport;

    fn name(&self) -> MetricName {
        Arc::new("Loss".into())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: false,
        }
        .into()
    }

    fn update(&mut self, item: &TrainReport, _: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        if item.has_loss {
            let values: Vec<f32> = item.report.clone().try_into_data()?.iter().collect();
            self.state.update(values[0] as f64 / item.rows as f64, item.rows);
        }
        Ok(self.state.compute_update(FormatOptions::new(self.name()).precision(3)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(FormatOptions::new(self.name()).precision(3)))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for LossMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

/// Which ranking metric.
#[derive(Clone, Copy)]
pub enum Kind {
    Precision,
    PropensityScored,
}

/// P@k or PSP@k in percent. PSP@k is a ratio of sums over all rows, so it is computed from the whole epoch so far.
#[derive(Clone)]
pub struct RankingMetric {
    kind: Kind,
    k: usize,
    propensity: Arc<Propensity>,
    epoch: Evaluator,
    batch: f64,
}

impl RankingMetric {
    pub fn new(kind: Kind, k: usize, propensity: Arc<Propensity>) -> Self {
        Self {
            kind,
            k,
            epoch: Evaluator::new(METRIC_K, Some(propensity.clone())),
            propensity,
            batch: f64::NAN,
        }
    }

    fn read(&self, evaluator: &Evaluator) -> f64 {
        let metrics = evaluator.finish();
        let fraction = match self.kind {
            Kind::Precision => metrics.precision_at(self.k),
            Kind::PropensityScored => metrics.psp_at(self.k).unwrap_or(f64::NAN),
        };
        100.0 * fraction
    }

    fn entry(&self) -> SerializedEntry {
        let epoch = self.read(&self.epoch);
        let text = format!("epoch {epoch:.2} % - batch {:.2} %", self.batch);
        SerializedEntry::new(text, NumericEntry::Value(epoch).serialize())
    }
}

impl Adaptor<Ranked> for Ranked {
    fn adapt(&self) -> Ranked {
        self.clone()
    }
}

impl Metric for RankingMetric {
    type Input = Ranked;

    fn name(&self) -> MetricName {
        let name = match self.kind {
            Kind::Precision => "P",
            Kind::PropensityScored => "PSP",
        };
        Arc::new(format!("{name}@{}", self.k))
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some("%".into()),
            higher_is_better: true,
        }
        .into()
    }

    fn update(&mut self, item: &Ranked, _: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        let mut batch = Evaluator::new(METRIC_K, Some(self.propensity.clone()));
        item.count_in(&mut batch);
        self.batch = self.read(&batch);
        self.epoch.merge(batch);
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {
        self.epoch = Evaluator::new(METRIC_K, Some(self.propensity.clone()));
        self.batch = f64::NAN;
    }
}

impl Numeric for RankingMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.batch))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.final_value())
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Value(self.read(&self.epoch))
    }
}
