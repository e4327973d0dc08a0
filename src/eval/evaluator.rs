//! The streaming accumulator behind the metrics.

use std::sync::Arc;

use super::{Cutoffs, Metrics, Propensity};

/// Accumulates the metrics of a test set, row by row, at every `k` of its [`Cutoffs`].
///
/// With `y_j` = 1 where the label at rank `j` is a hit, `Y` the labels of the row, and means over *all* rows:
///
/// * `P@k    = mean(sum_{j<=k} y_j / k)`, also for rows with fewer than `k` predictions
/// * `R@k    = mean(sum_{j<=k} y_j / |Y|)`
/// * `nDCG@k = mean(sum_{j<=k} y_j d_j / sum_{j<=min(k,|Y|)} d_j)`, discount `d_j = 1 / log2(j + 1)`
/// * `PSP@k`, `PSnDCG@k`, `PSR@k`: every `y_j` times the inverse propensity of its label, and the mean divided by
///   the same mean for the best possible order of each row. A ratio of means, not a mean of ratios, so the
///   per-row denominators above stay in both and do not cancel.
///
/// A row without labels is 0 in every mean; leave such rows out before if they should not count. Source: pyxclib,
/// `xclib/evaluation/xc_metrics.py`, which rounds the discounts to F32 (its nDCG differs by up to 1e-7); these are F64.
///
/// Precision is counted in integers, so it does not depend on the order in which rows are added or parts merged.
/// The others are sums in F64: with another order they differ in the last of some 15 digits.
#[derive(Debug, Clone)]
pub struct Evaluator {
    cutoffs: Arc<Cutoffs>,
    rows: u64,
    /// Hits among the first `k` places, over all rows. This and the lists below have an element a cutoff.
    hits: Vec<u64>,
    ndcg: Vec<f64>,
    recall: Vec<f64>,
    weighted: Option<Weighted>,
    discounts: Discounts,
}

impl Evaluator {
    /// An evaluator at these `k`; with propensities it also accumulates the propensity-scored metrics.
    pub fn new(cutoffs: Arc<Cutoffs>, propensity: Option<Arc<Propensity>>) -> Self {
        let count = cutoffs.all().len();
        Self {
            rows: 0,
            hits: vec![0; count],
            ndcg: vec![0.0; count],
            recall: vec![0.0; count],
            weighted: propensity.map(|propensity| Weighted::new(count, propensity)),
            discounts: Discounts::new(cutoffs.max()),
            cutoffs,
        }
    }

    /// Adds one row. `predicted`: distinct labels, best first, as [`rank`](super::rank) leaves them; those beyond
    /// the largest `k` are ignored. `truth`: the labels of the row, sorted and unique.
    pub fn add(&mut self, predicted: &[u32], truth: &[u32]) {
        debug_assert!(truth.is_sorted_by(|a, b| a < b), "true labels must be sorted and unique");
        self.rows += 1;
        if truth.is_empty() {
            return;
        }
        let is_hit = |label: &u32| truth.binary_search(label).is_ok();
        let (mut hits, mut gain, mut seen) = (0_u32, 0.0, 0);
        for (at, &k) in self.cutoffs.all().iter().enumerate() {
            let end = k.min(predicted.len());
            for (label, discount) in predicted[seen..end].iter().zip(&self.discounts.each[seen..end]) {
                if is_hit(label) {
                    hits += 1;
                    gain += discount;
                }
            }
            seen = end;
            self.hits[at] += u64::from(hits);
            self.ndcg[at] += gain / self.discounts.ideal(k, truth.len());
            self.recall[at] += f64::from(hits) / truth.len() as f64;
        }
        if let Some(weighted) = &mut self.weighted {
            weighted.add(predicted, truth, self.cutoffs.all(), &self.discounts);
        }
    }

    /// Adds the rows of `other`, as if they had been added here.
    ///
    /// # Panics
    /// When the two differ in their cutoffs, or only one has propensities.
    pub fn merge(&mut self, other: Evaluator) {
        assert_eq!(self.cutoffs, other.cutoffs, "different cutoffs");
        self.rows += other.rows;
        for (sum, part) in self.hits.iter_mut().zip(&other.hits) {
            *sum += part;
        }
        add_all(&mut self.ndcg, &other.ndcg);
        add_all(&mut self.recall, &other.recall);
        match (&mut self.weighted, other.weighted) {
            (Some(sum), Some(part)) => sum.merge(&part),
            (None, None) => {}
            _ => panic!("one evaluator has propensities, the other has none"),
        }
    }

    /// Rows added so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The metrics of the rows so far. All are 0 when no row had a label. Takes no time to speak of, so that it may be
    /// asked after every batch: whoever wants several metrics of the same rows needs one evaluator.
    pub fn finish(&self) -> Metrics {
        let rows = self.rows.max(1) as f64;
        let mean = |sums: &[f64]| sums.iter().map(|sum| sum / rows).collect();
        let places = self.cutoffs.all().iter().map(|k| rows * *k as f64);
        let precision = self.hits.iter().zip(places).map(|(&hits, places)| hits as f64 / places).collect();
        let weighted = self.weighted.as_ref();
        Metrics {
            cutoffs: self.cutoffs.clone(),
            rows: self.rows,
            precision,
            ndcg: mean(&self.ndcg),
            recall: mean(&self.recall),
            psp: weighted.map(|w| ratio(&w.actual.precision, &w.best.precision)),
            psndcg: weighted.map(|w| ratio(&w.actual.ndcg, &w.best.ndcg)),
            psrecall: weighted.map(|w| ratio(&w.actual.recall, &w.best.recall)),
            by_frequency: Vec::new(),
        }
    }
}

/// The propensity-scored sums of the predicted order and, to divide by, of the best possible one.
#[derive(Debug, Clone)]
struct Weighted {
    propensity: Arc<Propensity>,
    actual: Sums,
    best: Sums,
    /// Weights of one row by rank, kept to allocate once.
    gains: Vec<f64>,
}

impl Weighted {
    fn new(cutoffs: usize, propensity: Arc<Propensity>) -> Self {
        Self { propensity, actual: Sums::new(cutoffs), best: Sums::new(cutoffs), gains: Vec::new() }
    }

    fn add(&mut self, predicted: &[u32], truth: &[u32], cutoffs: &[usize], discounts: &Discounts) {
        let k_max = discounts.each.len();
        let Self { propensity, gains, .. } = self;

        gains.clear();
        gains.extend(predicted.iter().take(k_max).map(|&label| {
            let hit = truth.binary_search(&label).is_ok();
            if hit { propensity.inverse(label) } else { 0.0 }
        }));
        self.actual.add(gains, truth.len(), cutoffs, discounts);

        gains.clear();
        gains.extend(truth.iter().map(|&label| propensity.inverse(label)));
        gains.sort_unstable_by(|a, b| b.total_cmp(a));
        gains.truncate(k_max);
        self.best.add(gains, truth.len(), cutoffs, discounts);
    }

    fn merge(&mut self, other: &Self) {
        self.actual.merge(&other.actual);
        self.best.merge(&other.best);
    }
}

/// Sums over rows, an element a cutoff. The `1 / k` of precision is left out: it cancels in the ratio.
#[derive(Debug, Clone)]
struct Sums {
    precision: Vec<f64>,
    ndcg: Vec<f64>,
    recall: Vec<f64>,
}

impl Sums {
    fn new(cutoffs: usize) -> Self {
        Self { precision: vec![0.0; cutoffs], ndcg: vec![0.0; cutoffs], recall: vec![0.0; cutoffs] }
    }

    /// Adds a row of `labels` true labels whose gain at rank `j` is `gains[j]`, 0 beyond the end.
    fn add(&mut self, gains: &[f64], labels: usize, cutoffs: &[usize], discounts: &Discounts) {
        let (mut plain, mut discounted, mut seen) = (0.0, 0.0, 0);
        for (at, &k) in cutoffs.iter().enumerate() {
            let end = k.min(gains.len());
            for (gain, discount) in gains[seen..end].iter().zip(&discounts.each[seen..end]) {
                plain += gain;
                discounted += gain * discount;
            }
            seen = end;
            self.precision[at] += plain;
            self.ndcg[at] += discounted / discounts.ideal(k, labels);
            self.recall[at] += plain / labels as f64;
        }
    }

    fn merge(&mut self, other: &Self) {
        add_all(&mut self.precision, &other.precision);
        add_all(&mut self.ndcg, &other.ndcg);
        add_all(&mut self.recall, &other.recall);
    }
}

/// `1 / log2(j + 1)` for ranks `j = 1..=k_max`, and its running sum: the DCG when every place is a hit.
#[derive(Debug, Clone)]
struct Discounts {
    each: Vec<f64>,
    running: Vec<f64>,
}

impl Discounts {
    fn new(k_max: usize) -> Self {
        let each: Vec<f64> = (0..k_max).map(|k| (k as f64 + 2.0).log2().recip()).collect();
        let mut sum = 0.0;
        let running = each
            .iter()
            .map(|discount| {
                sum += discount;
                sum
            })
            .collect();
        Self { each, running }
    }

    /// The largest DCG at `k` of a row with `labels > 0` true labels.
    fn ideal(&self, k: usize, labels: usize) -> f64 {
        self.running[k.min(labels) - 1]
    }
}

fn add_all(sums: &mut [f64], parts: &[f64]) {
    for (sum, part) in sums.iter_mut().zip(parts) {
        *sum += part;
    }
}

/// Element by element; 0 where no row had a label, and so both are 0.
fn ratio(actual: &[f64], best: &[f64]) -> Vec<f64> {
    actual.iter().zip(best).map(|(actual, best)| if *best > 0.0 { actual / best } else { 0.0 }).collect()
}
