//! The finished numbers, and how people and programs read them.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Cutoffs, GroupMetrics};

/// Metrics of a test set, as fractions (0.7021, not 70.21); each list has an element a cutoff, in their order.
///
/// Made by [`Evaluator::finish`](super::Evaluator::finish), where the definitions are.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The `k` of the metrics.
    pub cutoffs: Arc<Cutoffs>,
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
    /// The same by label frequency: head, torso, tail. Empty where training frequencies are not known.
    pub by_frequency: Vec<GroupMetrics>,
}

impl Metrics {
    /// P@k, a fraction.
    ///
    /// # Panics
    /// Unless `k` is one of the cutoffs; 1 to 5 always are.
    pub fn precision_at(&self, k: usize) -> f64 {
        self.precision[self.index(k)]
    }

    /// R@k, a fraction.
    ///
    /// # Panics
    /// Unless `k` is one of the cutoffs; 1 to 5 always are.
    pub fn recall_at(&self, k: usize) -> f64 {
        self.recall[self.index(k)]
    }

    /// PSP@k, a fraction; `None` without propensities.
    ///
    /// # Panics
    /// Unless `k` is one of the cutoffs; 1 to 5 always are.
    pub fn psp_at(&self, k: usize) -> Option<f64> {
        self.psp.as_ref().map(|psp| psp[self.index(k)])
    }

    fn index(&self, k: usize) -> usize {
        self.cutoffs.all().binary_search(&k).unwrap_or_else(|_| panic!("{k} is none of the cutoffs"))
    }

    /// Name and values of every metric that there is, an element a cutoff.
    pub fn lists(&self) -> impl Iterator<Item = (&'static str, &[f64])> {
        let lists = [
            ("P", Some(&self.precision)),
            ("nDCG", Some(&self.ndcg)),
            ("R", Some(&self.recall)),
            ("PSP", self.psp.as_ref()),
            ("PSnDCG", self.psndcg.as_ref()),
            ("PSR", self.psrecall.as_ref()),
        ];
        lists.into_iter().filter_map(|(name, values)| Some((name, values?.as_slice())))
    }

    /// Everything, for programs: `{"rows": 100, "P@1": 70.21, "PSP@1": .., "nDCG@1": .., ..}`.
    ///
    /// Percent in full precision, for every cutoff; propensity-scored keys only with propensities. By label frequency
    /// under `by_frequency`: `{"head": {"min_train_rows": 9, "rows": .., "P@1": .., ..}, "torso": .., "tail": ..}`.
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        json.insert("rows".into(), self.rows.into());
        for (name, values) in self.lists() {
            for (k, value) in self.cutoffs.all().iter().zip(values) {
                json.insert(format!("{name}@{k}"), (100.0 * value).into());
            }
        }
        if !self.by_frequency.is_empty() {
            let of = |group: &GroupMetrics| {
                let mut json = group.metrics.to_json();
                json["min_train_rows"] = group.least.into();
                (group.group.to_string(), json)
            };
            json.insert("by_frequency".into(), Value::Object(self.by_frequency.iter().map(of).collect()));
        }
        Value::Object(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(psp: bool) -> Metrics {
        let cutoffs = Cutoffs::new(&[100]);
        let values: Vec<f64> = cutoffs.all().iter().map(|k| 1.0 / *k as f64).collect();
        let weighted = || psp.then(|| values.clone());
        Metrics {
            cutoffs: Arc::new(cutoffs),
            rows: 3,
            precision: values.clone(),
            ndcg: values.clone(),
            recall: values.clone(),
            psp: weighted(),
            psndcg: weighted(),
            psrecall: weighted(),
            by_frequency: Vec::new(),
        }
    }

    #[test]
    fn json_is_percent_for_every_k() {
        let json = metrics(true).to_json();
        assert_eq!(json["rows"], 3);
        assert_eq!((&json["P@2"], &json["P@100"]), (&50.0.into(), &1.0.into()));
        assert_eq!(json["PSnDCG@2"], 50.0);
        assert_eq!(json.as_object().unwrap().len(), 1 + 6 * 6);
        let json = metrics(false).to_json();
        assert_eq!(json.as_object().unwrap().len(), 1 + 3 * 6);
    }

    #[test]
    fn groups_are_objects_of_their_own() {
        let mut all = metrics(false);
        let group = crate::eval::Group::Tail;
        all.by_frequency = vec![GroupMetrics { group, least: 0, metrics: metrics(false) }];
        let tail = &all.to_json()["by_frequency"]["tail"];
        assert_eq!((&tail["P@5"], &tail["min_train_rows"]), (&20.0.into(), &0.into()));
    }
}
