//! How good a model is on a data set, or the predictions of any system: the one code that ranks labels and counts hits.

mod scoring;
mod system;

use std::{convert::Infallible, ops::ControlFlow, path::Path, sync::Arc};

pub use scoring::{Changes, scoring};
pub use system::evaluate_predictions;

use serde_json::{Value, json};

use crate::{
    data::{Corpus, Frequencies, Source, Split, Truth, Watch, load_test},
    error::{Error, Result},
    eval::{Metrics, Scorer, Scoring},
    loader::{EvalBatch, Loader},
    model::XmcModel,
    run::{RunFolder, State, Which, cache_dir},
    setup,
    trained::Trained,
};

/// Metrics on the test rows, and the checkpoint that they are of.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The metrics.
    pub metrics: Metrics,
    /// Which checkpoint was asked for.
    pub which: Which,
    /// Where the run stood at it.
    pub state: State,
}

impl Evaluation {
    /// What `result.json` and `evaluate --json` hold: every metric in percent, and which epoch it is of.
    pub fn to_json(&self) -> Value {
        let mut value = self.metrics.to_json();
        value["epoch"] = json!(self.state.epoch);
        value
    }

    /// Which checkpoint, for people: "epoch 60, the best by P@1 on validation".
    pub fn checkpoint(&self) -> String {
        let what = match (self.which, self.state.validation) {
            (Which::Best, Some(_)) => "the best by P@1 on validation",
            _ => "the last",
        };
        format!("epoch {}, {what}", self.state.epoch)
    }
}

/// What is asked of an evaluation beside the run itself.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// The device by name; the best one if `None`.
    pub device: Option<&'a str>,
    /// Where the data sets lie, if not where the run found them.
    pub dataset_path: Option<&'a Path>,
    /// A folder with other test rows.
    pub data: Option<&'a Path>,
    /// What is not to be as in the run's configuration.
    pub changes: Changes,
}

/// Evaluates a run on the test rows of its data set, or on those of another folder.
///
/// The data set is looked for where the run found it, or in `dataset_path` if that is given. `watch` is told how far
/// reading it has come.
///
/// # Errors
/// As [`Trained::load`], and those of the data set; [`Error::Run`] if its labels are not those of the run.
pub fn evaluate(folder: &RunFolder, which: Which, request: &Request, watch: &Watch) -> Result<Evaluation> {
    let mut trained = Trained::load(folder, which, request.device)?;
    if let Some(path) = request.dataset_path {
        trained.config.dataset_path = path.to_owned();
    }
    request.changes.apply(&mut trained.config.dataset.training.evaluation);
    let (test, frequencies) = match request.data {
        Some(dir) => other_rows(&trained, dir, watch)?,
        None => own_rows(folder, &trained, watch)?,
    };
    let config = &trained.config;
    let scoring = scoring(&config.dataset.training.evaluation, frequencies.as_ref());
    let loader =
        Loader::evaluation(Arc::new(test), config.dataset.data.test_batch_size, trained.compute.device.clone());
    let Ok(metrics) = rank_all(&trained.model, &loader, &scoring, |_| ControlFlow::<Infallible>::Continue(()));
    Ok(Evaluation { metrics, which, state: trained.state })
}

/// The test rows that the run was made for.
fn own_rows(folder: &RunFolder, trained: &Trained, watch: &Watch) -> Result<(Split, Option<Frequencies>)> {
    let config = &trained.config;
    let dir = config.data_dir();
    let source = Source { keep_tokens: false, ..setup::source(config, &dir) };
    // The run may be `.`, which has no parent by its name.
    let place = (folder.path().canonicalize()).map_err(Error::io("find", folder.path()))?;
    let cache = place.parent().map(cache_dir);
    let wrong =
        |message: String, hint: &str| Error::Run { path: folder.path().to_owned(), message, hint: Some(hint.into()) };
    let as_trained = "evaluate on the data set that the run was trained on, with dataset.data.num_labels and \
                      dataset.data.label_sort in the run's config.toml as they were then: they decide too; \
                      --data reads the test rows of another one";
    let corpus = Corpus::load(&source, &trained.tokenizer, cache.as_deref(), watch).map_err(|error| match error {
        Error::Config { key, expected, found, .. } => {
            let hint = if key == "num_labels" { as_trained } else { "undo the change" };
            wrong(format!("config.toml: `dataset.data.{key}`: expected {expected}, found {found}"), hint)
        }
        other => other,
    })?;
    if corpus.labels != trained.labels {
        let (found, outputs) = (corpus.labels.len(), trained.labels.len());
        let what = match found == outputs {
            true => "the labels, or their order,".to_owned(),
            false => format!("the {found} labels"),
        };
        return Err(wrong(format!("{what} of {} are not the {outputs} of the run", dir.display()), as_trained));
    }
    let frequencies = Frequencies::of(&corpus);
    Ok((corpus.test, Some(frequencies)))
}

/// The test rows of another folder. How frequent a label is, and so what a hit on it counts, remains a matter of the
/// data set that the model was trained on; where that is not to be found, metrics do without.
fn other_rows(trained: &Trained, dir: &Path, watch: &Watch) -> Result<(Split, Option<Frequencies>)> {
    let own = trained.config.data_dir();
    let test = load_test(&setup::source(&trained.config, dir), &trained.tokenizer, &trained.labels, watch)?;
    let frequencies = match Truth::load(&setup::source(&trained.config, &own), watch) {
        Ok(truth) => Some(truth.frequencies.map(|id| trained.labels.index(id))),
        Err(error) => {
            tracing::warn!("no propensities and no label frequencies without the data set of the run: {error}");
            None
        }
    };
    Ok((test, frequencies))
}

/// The metrics of a model on the batches of a loader. After every batch `on_batch` is told how many rows are done;
/// what it breaks with is handed back.
///
/// # Errors
/// What `on_batch` broke with.
pub fn rank_all<B>(
    model: &XmcModel,
    loader: &Loader<EvalBatch>,
    scoring: &Scoring,
    mut on_batch: impl FnMut(usize) -> ControlFlow<B>,
) -> Result<Metrics, B> {
    let mut scorer = Scorer::new(scoring);
    let mut batches = loader.iter();
    while let Some(batch) = batches.next() {
        let ranked = model.rank(batch.inputs, &batch.filter, scoring.cutoffs.max());
        for (ranked, truth) in ranked.into_iter().zip(&batch.truth) {
            let labels: Vec<u32> = ranked.into_iter().map(|(label, _)| label).collect();
            scorer.add(&labels, truth);
        }
        if let ControlFlow::Break(reason) = on_batch(batches.rows_done()) {
            return Err(reason);
        }
    }
    Ok(scorer.finish())
}
