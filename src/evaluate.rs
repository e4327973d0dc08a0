//! Evaluation of a trained model.

use std::{path::Path, sync::Arc};

use burn::{data::dataloader::DataLoader, tensor::Device, train::InferenceStep};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    assemble,
    checkpoint::{RunFolder, State, Which},
    config::Config,
    data::{Corpus, LabelMap, Split, TextTokenizer},
    device::Compute,
    encoder::{BertConfig, Encoder},
    error::{Error, Result},
    eval::{Evaluator, Metrics, Propensity},
    model::{EvalBatch, METRIC_K, XmcModel},
    train::{Interrupter, Loader, cache_dir},
};

/// A model read back from its run folder.
pub struct Trained {
    /// The settings of the run.
    pub config: Config,
    /// What the classifier's outputs mean.
    pub labels: LabelMap,
    /// Text to token ids.
    pub tokenizer: TextTokenizer,
    /// Where the model is.
    pub compute: Compute,
    /// The model, off the autodiff graph.
    pub model: XmcModel,
    /// Where the run stood when the checkpoint was written.
    pub state: State,
}

impl Trained {
    /// Reads a checkpoint of a run.
    ///
    /// # Errors
    /// [`Error::Run`] if the folder or the checkpoint is not what it should be, [`Error::Device`], [`Error::Memory`].
    pub fn load(folder: &RunFolder, which: Which, device: Option<&str>) -> Result<Self> {
        let config = folder.load_config()?;
        // Before anything large: a run without a checkpoint is found out at once.
        folder.state(which)?;
        let wants_bf16 = config.dataset.model.encoder.dtype == elmo_kernels::Format::Bf16;
        let compute = Compute::open(device, wants_bf16, config.dataset.training.seed)?;
        let labels = LabelMap::load(&folder.labels_path())?;
        let tokenizer = TextTokenizer::from_file(&folder.tokenizer_path())?;
        let bert = encoder_config(folder)?;
        let classifier = assemble::classifier(&config, labels.len(), bert.hidden_size, &compute);
        assemble::check_memory(&config, &bert, &classifier, false, &compute)?;
        let mut model = assemble::model(
            &config,
            Encoder::scratch(&bert, &compute.device),
            classifier.init(&compute.device),
            assemble::classifier_schedule(&config, 1),
        );
        let state = folder.load_checkpoint(&mut model, which)?;
        Ok(Self {
            config,
            labels,
            tokenizer,
            compute,
            model,
            state,
        })
    }
}

/// Reads the encoder's architecture as the run wrote it.
fn encoder_config(folder: &RunFolder) -> Result<BertConfig> {
    let path = folder.encoder_path();
    let written: Value = folder.load_json(&path)?;
    BertConfig::deserialize(&written)
        .ok()
        // A key that the file lacks would silently be that of another encoder.
        .filter(|bert| serde_json::to_value(bert).is_ok_and(|whole| whole == written))
        .filter(BertConfig::is_possible)
        .ok_or_else(|| Error::Run {
            path,
            message: "damaged: not the architecture of an encoder".into(),
            hint: Some("the file belongs to the run: restore it, or train again".into()),
        })
}

/// Evaluates a run on the test rows of its data set: the metrics, and what `result.json` holds.
///
/// The data set is looked for where the run found it, or in `dataset_path` if that is given.
///
/// # Errors
/// As [`Trained::load`], and those of the data set; [`Error::Run`] if its labels are not those of the run.
pub fn evaluate(
    folder: &RunFolder,
    which: Which,
    device: Option<&str>,
    dataset_path: Option<&Path>,
) -> Result<(Metrics, Value)> {
    let mut trained = Trained::load(folder, which, device)?;
    if let Some(path) = dataset_path {
        trained.config.dataset_path = path.to_owned();
    }
    let config = &trained.config;
    let dir = config.data_dir();
    let source = assemble::source(config, &dir);
    let cache = folder.path().parent().map(cache_dir);
    let corpus = Corpus::load(&source, &trained.tokenizer, cache.as_deref())?;
    if corpus.labels != trained.labels {
        return Err(Error::Run {
            path: folder.labels_path(),
            message: format!("the labels of {} are not those of the run", dir.display()),
            hint: Some("evaluate on the data set that the run was trained on".into()),
        });
    }
    let evaluation = &config.dataset.training.evaluation;
    let propensity = Propensity::new(&corpus.train_label_freq, corpus.train_rows, evaluation.a, evaluation.b);
    let metrics = on_split(
        &trained.model,
        &corpus.test,
        config.dataset.data.test_batch_size,
        trained.tokenizer.pad_id(),
        &trained.compute.device,
        Arc::new(propensity),
        &Interrupter::new(),
    )
    .expect("nobody else holds the interrupter");
    let result = result_json(&metrics, &trained.state);
    Ok((metrics, result))
}

/// Ranks the labels of every row of `split` and compares with the truth.
///
/// `None` if the interrupter stopped it.
pub fn on_split(
    model: &XmcModel,
    split: &Split,
    batch_size: usize,
    pad_id: u32,
    device: &Device,
    propensity: Arc<Propensity>,
    interrupter: &Interrupter,
) -> Option<Metrics> {
    let loader = Loader::evaluation(Arc::new(split.clone()), batch_size, pad_id, device.clone());
    on_loader(model, &loader, propensity, interrupter)
}

/// The same on the batches of a loader.
pub fn on_loader(
    model: &XmcModel,
    loader: &dyn DataLoader<EvalBatch>,
    propensity: Arc<Propensity>,
    interrupter: &Interrupter,
) -> Option<Metrics> {
    let mut evaluator = Evaluator::new(METRIC_K, Some(propensity));
    for batch in loader.iter() {
        let batch = batch.expect("the loaders of this crate have read their data");
        InferenceStep::step(model, batch).count_in(&mut evaluator);
        if interrupter.should_stop() {
            return None;
        }
    }
    Some(evaluator.finish())
}

/// What `result.json` and `evaluate --json` hold: every metric in percent, and which epoch it is of.
pub fn result_json(metrics: &Metrics, state: &State) -> Value {
    let mut value = metrics.to_json();
    value["epoch"] = json!(state.epoch);
    value
}
