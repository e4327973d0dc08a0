//! The predictions of any system, scored as those of a model.

use std::path::Path;

use super::scoring;
use crate::{
    config::Evaluation,
    data::{Source, Truth, Watch},
    error::{Error, Place, Result},
    eval::{Metrics, Scorer, rank},
    predictions::Predictions,
};

/// The metrics of the predictions in a file on the test rows of a data set. Columns are label ids. As with a model,
/// filter pairs are left out, equal scores go to the lower id, and a score of 0 is a score like any other.
///
/// # Errors
/// [`Error::Io`] and [`Error::Data`], for predictions and data set; [`Error::Data`] where they do not fit each other.
pub fn evaluate_predictions(file: &Path, source: &Source, evaluation: &Evaluation, watch: &Watch) -> Result<Metrics> {
    // Before the data set, which takes longer to read.
    let predictions = Predictions::open(file)?;
    let truth = Truth::load(source, watch)?;
    let misfit = |expected: String, found: usize, hint: &str| Error::Data {
        place: Place::file(file),
        expected,
        found: found.to_string(),
        hint: Some(hint.into()),
    };
    if predictions.rows() != truth.rows() {
        let expected = format!("{} rows, those of test in {}", truth.rows(), source.dir.display());
        return Err(misfit(expected, predictions.rows(), "predictions have a row for every test row, in their order"));
    }
    if predictions.columns() < truth.labels {
        let expected = format!("{} columns or more, the labels of {}", truth.labels, source.dir.display());
        return Err(misfit(expected, predictions.columns(), "column i is the label with the id i, from 0"));
    }
    let scoring = scoring(evaluation, Some(&truth.frequencies));
    let mut scorer = Scorer::new(&scoring);
    let mut labels = Vec::new();
    predictions.for_each(|row, scored| {
        rank(scored, truth.filter(row), scoring.cutoffs.max());
        labels.clear();
        labels.extend(scored.iter().map(|(label, _)| *label));
        scorer.add(&labels, truth.positives(row));
    })?;
    Ok(scorer.finish())
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, fs};

    use serde_json::Value;

    use super::*;
    use crate::{config::Config, setup};

    /// A data set and predictions of it, from a fixture of pyxclib's metrics.
    fn write(case: &Value, dir: &Path) {
        let list =
            |value: &Value| -> Vec<u64> { value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect() };
        let row = |labels: &[u64]| format!("{{\"title\": \"a\", \"target_ind\": {labels:?}}}\n");
        let freq = list(&case["train_label_freq"]);
        let train: String = (0..case["train_num_rows"].as_u64().unwrap())
            .map(|at| {
                let labels: Vec<u64> = (0..).zip(&freq).filter(|(_, n)| at < **n).map(|(label, _)| label).collect();
                row(&labels)
            })
            .collect();
        let truth = case["truth"].as_array().unwrap();
        let test: String = truth.iter().map(|labels| row(&list(labels))).collect();
        let filter: String =
            (case["filter"].as_array().unwrap().iter()).map(|pair| format!("{} {}\n", pair[0], pair[1])).collect();
        let mut predictions = format!("{} {}\n", truth.len(), freq.len());
        for row in case["pred"].as_array().unwrap() {
            let entries: Vec<String> =
                row.as_array().unwrap().iter().map(|entry| format!("{}:{}", entry[0], entry[1])).collect();
            writeln!(predictions, "{}", entries.join(" ")).unwrap();
        }
        for (name, text) in
            [("trn.json", train), ("tst.json", test), ("filter_labels_test.txt", filter), ("p.txt", predictions)]
        {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn files_give_the_numbers_of_pyxclib() {
        for name in
            ["random_small", "random_small_amazon_ab", "filtered", "ties_small_rows", "fewer_than_k", "unseen_labels"]
        {
            let path = format!("{}/tests/fixtures/metrics/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let case: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            write(&case, dir.path());
            let mut config = Config::load(None, &["dataset.data.augment_label_data=false".into()]).unwrap().0;
            let evaluation = &mut config.dataset.training.evaluation;
            (evaluation.a, evaluation.b) = (case["A"].as_f64().unwrap(), case["B"].as_f64().unwrap());
            let evaluation = &config.dataset.training.evaluation;
            let source = setup::source(&config, dir.path());
            let file = dir.path().join("p.txt");
            let metrics = evaluate_predictions(&file, &source, evaluation, &Watch::default()).unwrap().to_json();
            let expected = &case["ties_low_index_first"];
            for (ours, theirs) in [
                ("P", "precision"),
                ("nDCG", "ndcg"),
                ("R", "recall"),
                ("PSP", "psprecision"),
                ("PSnDCG", "psndcg"),
                ("PSR", "psrecall"),
            ] {
                for k in 1..=5 {
                    let (found, expected) = (&metrics[format!("{ours}@{k}")], &expected[theirs][k - 1]);
                    let difference = found.as_f64().unwrap() - 100.0 * expected.as_f64().unwrap();
                    assert!(difference.abs() < 1e-4, "{name}, {ours}@{k}: {found} {expected}");
                }
            }

            fs::write(&file, "1 900\n0:1\n").unwrap();
            let error = evaluate_predictions(&file, &source, evaluation, &Watch::default()).unwrap_err().to_string();
            assert!(error.contains("those of test in"), "{error}");
            fs::write(&file, format!("{} 1\n", case["truth"].as_array().unwrap().len())).unwrap();
            let error = evaluate_predictions(&file, &source, evaluation, &Watch::default()).unwrap_err().to_string();
            assert!(error.contains("columns or more, the labels of"), "{error}");
        }
    }
}
