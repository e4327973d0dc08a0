//! Evaluation of a trained model.

use std::{convert::Infallible, ops::ControlFlow, path::Path, sync::Arc};

use burn::data::dataloader::{DataLoader, Progress};
use serde_json::{Value, json};

use crate::{
    data::{Corpus, Watch},
    error::{Error, Result},
    eval::{Evaluator, METRIC_K, Metrics, Propensity},
    loader::{EvalBatch, Loader},
    model::{Trained, XmcModel},
    run::{RunFolder, State, Which, cache_dir},
    setup,
};

/// Evaluates a run on the test rows of its data set: the metrics, and what `result.json` holds.
///
/// The data set is looked for where the run found it, or in `dataset_path` if that is given. `watch` is told how far
/// reading it has come.
///
/// # Errors
/// As [`Trained::load`], and those of the data set; [`Error::Run`] if its labels are not those of the run.
pub fn evaluate(
    folder: &RunFolder,
    which: Which,
    device: Option<&str>,
    dataset_path: Option<&Path>,
    watch: &Watch,
) -> Result<(Metrics, Value)> {
    let mut trained = Trained::load(folder, which, device)?;
    if let Some(path) = dataset_path {
        trained.config.dataset_path = path.to_owned();
    }
    let config = &trained.config;
    let dir = config.data_dir();
    let source = setup::source(config, &dir);
    let cache = folder.path().parent().map(cache_dir);
    let corpus = Corpus::load(&source, &trained.tokenizer, cache.as_deref(), watch)?;
    if corpus.labels != trained.labels {
        return Err(Error::Run {
            path: folder.labels_path(),
            message: format!("the labels of {} are not those of the run", dir.display()),
            hint: Some("evaluate on the data set that the run was trained on".into()),
        });
    }
    let evaluation = &config.dataset.training.evaluation;
    let propensity = Propensity::new(&corpus.train_label_freq, corpus.train_rows, evaluation.a, evaluation.b);
    let loader = Loader::evaluation(
        Arc::new(corpus.test),
        config.dataset.data.test_batch_size,
        trained.tokenizer.pad_id(),
        trained.compute.device.clone(),
    );
    let Ok(metrics) = rank_all(&trained.model, &loader, Arc::new(propensity), |_, _| {
        ControlFlow::<Infallible>::Continue(())
    });
    let result = result_json(&metrics, &trained.state);
    Ok((metrics, result))
}

/// The metrics of a model on the batches of a loader. Each ranked batch also goes to `on_batch`, with how far it is;
/// what `on_batch` breaks with is handed back.
///
/// # Errors
/// What `on_batch` broke with.
pub fn rank_all<B>(
    model: &XmcModel,
    loader: &dyn DataLoader<EvalBatch>,
    propensity: Arc<Propensity>,
    mut on_batch: impl FnMut(Ranked, Progress) -> ControlFlow<B>,
) -> Result<Metrics, B> {
    let mut evaluator = Evaluator::new(METRIC_K, Some(propensity));
    let mut batches = loader.iter();
    while let Some(batch) = batches.next() {
        let batch = batch.expect("the loaders of this crate have read their data");
        let ranked = Ranked::new(model, batch);
        ranked.count_in(&mut evaluator);
        if let ControlFlow::Break(reason) = on_batch(ranked, batches.progress()) {
            return Err(reason);
        }
    }
    Ok(evaluator.finish())
}

/// Ranked labels and the truth of a batch.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// Every row's best labels, best first.
    pub predicted: Vec<Vec<u32>>,
    /// Every row's labels, ascending.
    pub truth: Vec<Vec<u32>>,
}

impl Ranked {
    /// Ranks the labels of a batch, as many as the metrics need.
    pub fn new(model: &XmcModel, batch: EvalBatch) -> Self {
        let ranked = model.rank(batch.inputs, &batch.filter, METRIC_K);
        Self {
            predicted: (ranked.into_iter())
                .map(|row| row.into_iter().map(|(label, _)| label).collect())
                .collect(),
            truth: batch.truth,
        }
    }

    /// Adds every row to the metrics of `evaluator`.
    pub fn count_in(&self, evaluator: &mut Evaluator) {
        for (predicted, truth) in self.predicted.iter().zip(&self.truth) {
            evaluator.add(predicted, truth);
        }
    }
}

/// What `result.json` and `evaluate --json` hold: every metric in percent, and which epoch it is of.
pub fn result_json(metrics: &Metrics, state: &State) -> Value {
    let mut value = metrics.to_json();
    value["epoch"] = json!(state.epoch);
    value
}
