//! The finished numbers, and how people and programs read them.

use serde_json::{Map, Value};

/// Metrics of a test set, as fractions (0.7021, not 70.21); element `k - 1` of each list is the metric at `k`.
///
/// Made by [`Evaluator::finish`](super::Evaluator::finish), where the definitions are.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Test rows, those without labels included.
    pub rows: u64,
    /// P@k: share of the first `k` places that are hits.
    pub precision: Vec<f64>,
    /// nDCG@k: as precision, with earlier hits worth more, relative to the best possible order.
    pub ndcg: Vec<f64>,
    /// R@k: share of a row's labels that are among the first `k`.
    pub recall: Vec<f64>,
    /// PSP@k: precision with hits weighted by inverse propensity. `None`, like the next two, without propensities.
    pub psp: Option<Vec<f64>>,
    /// PSnDCG@k.
    pub psndcg: Option<Vec<f64>>,
    /// PSR@k.
    pub psrecall: Option<Vec<f64>>,
}

impl Metrics {
    /// P@k, a fraction.
    ///
    /// # Panics
    /// Unless `k` is from 1 to the largest that the evaluator was made for.
    pub fn precision_at(&self, k: usize) -> f64 {
        self.precision[k - 1]
    }

    /// PSP@k, a fraction; `None` without propensities.
    ///
    /// # Panics
    /// Unless `k` is from 1 to the largest that the evaluator was made for.
    pub fn psp_at(&self, k: usize) -> Option<f64> {
        self.psp.as_ref().map(|psp| psp[k - 1])
    }

    /// Everything, for programs: `{"rows": 100, "P@1": 70.21, "PSP@1": .., "nDCG@1": .., ..}`.
    ///
    /// Percent in full precision, for every `k`; propensity-scored keys only with propensities.
    pub fn to_json(&self) -> Value {
        let lists = [
            ("P", Some(&self.precision)),
            ("nDCG", Some(&self.ndcg)),
            ("R", Some(&self.recall)),
            ("PSP", self.psp.as_ref()),
            ("PSnDCG", self.psndcg.as_ref()),
            ("PSR", self.psrecall.as_ref()),
        ];
        let mut json = Map::new();
        json.insert("rows".into(), self.rows.into());
        for (name, values) in lists {
            for (index, value) in values.into_iter().flatten().enumerate() {
                json.insert(format!("{name}@{}", index + 1), (100.0 * value).into());
            }
        }
        Value::Object(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(k_max: usize, psp: bool) -> Metrics {
        let values: Vec<f64> = (1..=k_max).map(|k| 1.0 / k as f64).collect();
        let weighted = || psp.then(|| values.clone());
        Metrics {
            rows: 3,
            precision: values.clone(),
            ndcg: values.clone(),
            recall: values.clone(),
            psp: weighted(),
            psndcg: weighted(),
            psrecall: weighted(),
        }
    }

    #[test]
    fn json_is_percent_for_every_k() {
        let json = metrics(3, true).to_json();
        assert_eq!(json["rows"], 3);
        assert_eq!(json["P@2"], 50.0);
        assert_eq!(json["PSnDCG@2"], 50.0);
        assert_eq!(json.as_object().unwrap().len(), 1 + 6 * 3);
        let json = metrics(3, false).to_json();
        assert_eq!(json.as_object().unwrap().len(), 1 + 3 * 3);
    }
}
