//! What a data set asks of its metrics, and the accumulator that follows.

use std::sync::Arc;

use super::{Cutoffs, Evaluator, Group, Groups, Metrics, Propensity};

/// What rankings are scored by.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// The `k` of the metrics.
    pub cutoffs: Arc<Cutoffs>,
    /// For the propensity-scored metrics; none without them.
    pub propensity: Option<Arc<Propensity>>,
    /// For the metrics by label frequency; none without them.
    pub groups: Option<Arc<Groups>>,
}

/// The metrics of some rows against the labels of one [`Group`] alone.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupMetrics {
    /// Which labels.
    pub group: Group,
    /// The training rows that each of them has at least.
    pub least: u32,
    /// Of the same rankings, with no other label counted as true, over the rows that have such a label at all.
    pub metrics: Metrics,
}

/// Accumulates the metrics of a test set, row by row: of all labels, and of those of each group.
#[derive(Debug, Clone)]
pub struct Scorer {
    all: Evaluator,
    groups: Option<(Arc<Groups>, [Evaluator; 3])>,
    /// The labels of one row by group, kept to allocate once.
    parts: [Vec<u32>; 3],
}

impl Scorer {
    /// A scorer without rows.
    pub fn new(scoring: &Scoring) -> Self {
        let evaluator = || Evaluator::new(scoring.cutoffs.clone(), scoring.propensity.clone());
        Self {
            all: evaluator(),
            groups: scoring.groups.clone().map(|groups| (groups, Group::ALL.map(|_| evaluator()))),
            parts: Default::default(),
        }
    }

    /// Adds a row, as [`Evaluator::add`].
    pub fn add(&mut self, predicted: &[u32], truth: &[u32]) {
        self.all.add(predicted, truth);
        let Some((groups, evaluators)) = &mut self.groups else {
            return;
        };
        self.parts.iter_mut().for_each(Vec::clear);
        for &label in truth {
            self.parts[groups.of(label) as usize].push(label);
        }
        for (evaluator, part) in evaluators.iter_mut().zip(&self.parts).filter(|(_, part)| !part.is_empty()) {
            evaluator.add(predicted, part);
        }
    }

    /// The metrics of the rows so far.
    pub fn finish(&self) -> Metrics {
        let mut metrics = self.all.finish();
        if let Some((groups, evaluators)) = &self.groups {
            let of = |(group, evaluator): (Group, &Evaluator)| GroupMetrics {
                group,
                least: groups.least(group),
                metrics: evaluator.finish(),
            };
            metrics.by_frequency = Group::ALL.into_iter().zip(evaluators).map(of).collect();
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_its_own_labels_and_rows() {
        let scoring = Scoring {
            cutoffs: Arc::new(Cutoffs::new(&[1, 2])),
            propensity: None,
            groups: Some(Arc::new(Groups::new(vec![6, 3, 3, 1]))),
        };
        let mut scorer = Scorer::new(&scoring);
        scorer.add(&[0, 1], &[0, 1, 3]);
        scorer.add(&[3, 0], &[3]);
        let metrics = scorer.finish();
        assert_eq!((metrics.rows, metrics.precision_at(2)), (2, 0.75));
        let of = |group: Group| &metrics.by_frequency[group as usize].metrics;
        assert_eq!((of(Group::Head).rows, of(Group::Head).precision_at(2)), (1, 0.5));
        assert_eq!((of(Group::Torso).precision_at(1), of(Group::Torso).recall_at(2)), (0.0, 1.0));
        assert_eq!((of(Group::Tail).rows, of(Group::Tail).recall_at(1)), (2, 0.5));
        // Hits a row and group add up to all hits.
        let hits: f64 = metrics.by_frequency.iter().map(|g| g.metrics.precision_at(2) * g.metrics.rows as f64).sum();
        assert_eq!(hits, metrics.precision_at(2) * 2.0);
    }
}
