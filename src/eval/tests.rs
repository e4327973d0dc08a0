//! Against pyxclib's own numbers; `tests/fixtures/metrics` holds its inputs and results.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};

use super::*;

/// pyxclib's discounts are F32.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Index {
    files: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    k: usize,
    pred: Vec<Vec<(u32, f32)>>,
    truth: Vec<Vec<u32>>,
    filter: Vec<(usize, u32)>,
    #[serde(rename = "A")]
    a: f64,
    #[serde(rename = "B")]
    b: f64,
    train_num_rows: usize,
    train_label_freq: Vec<u32>,
    inv_propensity: Vec<f64>,
    rows_tie_free: bool,
    xclib_numba: Expected,
    ties_low_index_first: Expected,
    precision_min_over_ties: Vec<f64>,
    precision_max_over_ties: Vec<f64>,
}

#[derive(Deserialize)]
struct Expected {
    precision: Vec<f64>,
    ndcg: Vec<f64>,
    recall: Vec<f64>,
    psprecision: Vec<f64>,
    psndcg: Vec<f64>,
    psrecall: Vec<f64>,
}

#[derive(Deserialize)]
struct PropensityCase {
    #[serde(rename = "A")]
    a: f64,
    #[serde(rename = "B")]
    b: f64,
    num_train_rows: usize,
    freq: Vec<u32>,
    inv_propensity: Vec<f64>,
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics");
    let text = fs::read_to_string(PathBuf::from(folder).join(name)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn cases() -> Vec<Case> {
    let files = read::<Index>("index.json").files;
    let cases: Vec<Case> = files.iter().filter(|name| *name != "propensity.json").map(|name| read(name)).collect();
    assert_eq!(cases.len(), 16);
    cases
}

impl Case {
    fn propensity(&self) -> Propensity {
        Propensity::new(&self.train_label_freq, self.train_num_rows, self.a, self.b)
    }

    fn evaluator(&self) -> Evaluator {
        Evaluator::new(Arc::new(Cutoffs::new(&[self.k])), Some(Arc::new(self.propensity())))
    }

    /// Predicted and true labels of every row.
    fn rows(&self) -> Vec<(Vec<u32>, &[u32])> {
        let mut filters = BTreeMap::<usize, Vec<u32>>::new();
        for &(row, label) in &self.filter {
            filters.entry(row).or_default().push(label);
        }
        filters.values_mut().for_each(|labels| labels.sort());
        let rows = self.pred.iter().zip(&self.truth).enumerate();
        rows.map(|(row, (pred, truth))| {
            let mut candidates = pred.clone();
            // Of pyxclib: a filtered score is set to 0, and then zeros are dropped, whoever's they are.
            if !self.filter.is_empty() {
                candidates.retain(|&(_, score)| score != 0.0);
            }
            let filter = filters.get(&row).map_or(&[][..], Vec::as_slice);
            rank(&mut candidates, filter, self.k);
            let predicted = candidates.into_iter().map(|(label, _)| label).collect();
            (predicted, truth.as_slice())
        })
        .collect()
    }

    fn metrics(&self) -> Metrics {
        let mut evaluator = self.evaluator();
        for (predicted, truth) in self.rows() {
            evaluator.add(&predicted, truth);
        }
        evaluator.finish()
    }
}

fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() <= tolerance, "{what}: {a} is not {e}");
    }
}

fn assert_metrics(metrics: &Metrics, expected: &Expected, tolerance: f64, name: &str) {
    let pairs = [
        ("P", Some(&metrics.precision), &expected.precision),
        ("nDCG", Some(&metrics.ndcg), &expected.ndcg),
        ("R", Some(&metrics.recall), &expected.recall),
        ("PSP", metrics.psp.as_ref(), &expected.psprecision),
        ("PSnDCG", metrics.psndcg.as_ref(), &expected.psndcg),
        ("PSR", metrics.psrecall.as_ref(), &expected.psrecall),
    ];
    for (metric, actual, expected) in pairs {
        let what = format!("{name}, {metric}");
        assert_close(actual.unwrap(), expected, tolerance, &what);
    }
}

#[test]
fn agrees_with_the_plain_definition() {
    for case in cases() {
        // The same rule for ties, and F64 throughout: only the order of additions differs.
        assert_metrics(&case.metrics(), &case.ties_low_index_first, 1e-12, &case.name);
    }
}

#[test]
fn agrees_with_pyxclib_where_no_tie_decides() {
    for case in cases().iter().filter(|case| case.rows_tie_free) {
        assert_metrics(&case.metrics(), &case.xclib_numba, TOLERANCE, &case.name);
    }
}

#[test]
fn lies_in_the_range_that_ties_leave() {
    for case in cases() {
        let metrics = case.metrics();
        for k in 1..=case.k {
            let (min, max) = (case.precision_min_over_ties[k - 1] - 1e-12, case.precision_max_over_ties[k - 1] + 1e-12);
            let precision = metrics.precision_at(k);
            assert!((min..=max).contains(&precision), "{}, P@{k}", case.name);
        }
    }
}

#[test]
fn propensities_agree_with_pyxclib() {
    for case in read::<Vec<PropensityCase>>("propensity.json") {
        let propensity = Propensity::new(&case.freq, case.num_train_rows, case.a, case.b);
        let inverse: Vec<f64> = (0..).take(case.freq.len()).map(|l| propensity.inverse(l)).collect();
        assert_close(&inverse, &case.inv_propensity, 1e-10, "inverse propensity");
    }
    for case in cases() {
        let propensity = case.propensity();
        let labels = (0..).take(case.inv_propensity.len());
        let inverse: Vec<f64> = labels.map(|l| propensity.inverse(l)).collect();
        assert_close(&inverse, &case.inv_propensity, 1e-10, &case.name);
    }
}

#[test]
fn propensities_of_next_to_no_rows_are_neutral() {
    for rows in 0..3 {
        assert_eq!(Propensity::new(&[0, 1], rows, 0.55, 1.5).inverse(0), 1.0);
    }
}

#[test]
fn parts_merge_to_the_whole() {
    let case: Case = read("medium.json");
    let whole = case.metrics();
    let mut parts: Vec<Evaluator> = (0..4).map(|_| case.evaluator()).collect();
    for (row, (predicted, truth)) in case.rows().into_iter().enumerate() {
        parts[row % 4].add(&predicted, truth);
    }
    let mut merged = parts.pop().unwrap();
    parts.into_iter().for_each(|part| merged.merge(part));

    assert_eq!(merged.rows(), 300);
    let merged = merged.finish();
    assert_eq!(merged.precision, whole.precision, "counted, so exactly equal");
    assert_close(&merged.ndcg, &whole.ndcg, 1e-14, "nDCG");
    assert_close(&merged.psp.unwrap(), &whole.psp.unwrap(), 1e-14, "PSP");
}

#[test]
fn rows_without_labels_or_predictions_count_as_zero() {
    let propensity = Arc::new(Propensity::new(&[3, 1, 0], 20, 0.55, 1.5));
    let mut evaluator = Evaluator::new(Arc::new(Cutoffs::new(&[2])), Some(propensity));
    assert_eq!(evaluator.finish().to_json()["PSP@1"], 0.0, "no rows at all");

    evaluator.add(&[0, 1], &[]);
    assert_eq!(evaluator.finish().psp_at(2), Some(0.0), "no labels at all");
    evaluator.add(&[], &[2]);
    evaluator.add(&[1], &[1]);
    evaluator.add(&[2, 1, 0], &[0, 2]);

    let metrics = evaluator.finish();
    assert_eq!(metrics.rows, 4);
    assert_eq!(metrics.precision[..2], [2.0 / 4.0, 2.0 / 8.0]);
    assert_eq!(metrics.recall[..2], [1.5 / 4.0, 1.5 / 4.0]);
}

#[test]
fn without_propensities_there_are_no_weighted_metrics() {
    let mut evaluator = Evaluator::new(Arc::new(Cutoffs::new(&[1])), None);
    evaluator.add(&[4], &[4]);
    let metrics = evaluator.finish();
    assert_eq!((metrics.precision_at(1), metrics.psp_at(1)), (1.0, None));
}

#[test]
fn a_cutoff_does_not_depend_on_the_others() {
    let case: Case = read("medium.json");
    let of = |ks: &[usize]| {
        let mut evaluator = Evaluator::new(Arc::new(Cutoffs::new(ks)), Some(Arc::new(case.propensity())));
        for (row, truth) in case.pred.iter().zip(&case.truth) {
            let predicted: Vec<u32> = row.iter().map(|(label, _)| *label).collect();
            evaluator.add(&predicted, truth);
        }
        evaluator.finish().to_json()
    };
    let (sparse, dense) = (of(&[7, 12, 2000]), of(&(1..=2000).collect::<Vec<_>>()));
    for (key, value) in sparse.as_object().unwrap() {
        let (value, same) = (value.as_f64().unwrap(), dense[key].as_f64().unwrap());
        assert!((value - same).abs() < 1e-10, "{key}: {value} {same}");
    }
    // Beyond the last prediction there is nothing more to find.
    assert_eq!(dense["R@1000"], dense["R@2000"]);
}
