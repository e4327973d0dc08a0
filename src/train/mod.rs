//! Training: from a configuration to a run folder.
//!
//! [`Training::prepare`] checks and loads everything and makes the run folder; [`Training::run`] drives burn-train's
//! learner over it and ends with the metrics of the best epoch on test.

mod loader;
mod metrics;
mod quiet;
mod schedule;
mod strategy;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use burn::train::Interrupter;
use burn::{
    data::dataloader::DataLoader,
    module::ParamGroup,
    optim::ModuleOptimizer,
    train::{Learner, SupervisedTraining, TrainingStrategy},
};
pub use loader::Loader;
pub use strategy::{EpochEvent, Event, Observer, StepEvent};

use crate::{
    assemble,
    checkpoint::{RunFolder, Which},
    config::{Config, EncoderOptimizer},
    data::{Corpus, TextTokenizer},
    device::Compute,
    error::{Error, Result},
    eval::{Metrics, Propensity},
    evaluate,
    model::XmcModel,
    optim::KahanAdam,
};
use metrics::{Kind, LossMetric, RankingMetric};
use strategy::Strategy;

/// What a training takes beside its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder in which run folders are made.
    pub runs: PathBuf,
    /// The device by name; the best one if `None`.
    pub device: Option<String>,
    /// Whether burn-train's dashboard may be shown. It is shown only in a terminal.
    pub dashboard: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            runs: "runs".into(),
            device: None,
            dashboard: false,
        }
    }
}

/// A training that is ready to run.
pub struct Training {
    config: Config,
    options: Options,
    compute: Compute,
    folder: RunFolder,
    corpus: Corpus,
    tokenizer: TextTokenizer,
    model: XmcModel,
    steps_an_epoch: u64,
    interrupter: Interrupter,
}

/// Where tokens are cached, beside the runs.
pub fn cache_dir(runs: &Path) -> PathBuf {
    runs.join(".cache")
}

impl Training {
    /// Opens the device, reads the data, builds the model and makes the run folder.
    ///
    /// # Errors
    /// Whatever a configuration, a data set or a machine can lack: [`Error`].
    pub fn prepare(config: Config, options: Options) -> Result<Self> {
        let wants_bf16 = config.dataset.model.encoder.dtype == elmo_kernels::Format::Bf16;
        let seed = config.dataset.training.seed;
        let compute = Compute::open(options.device.as_deref(), wants_bf16, seed)?;
        let dir = config.data_dir();
        let source = assemble::source(&config, &dir);
        let tokenizer = assemble::tokenizer(&config, &source)?;
        let corpus = Corpus::load(&source, &tokenizer, Some(&cache_dir(&options.runs)))?;

        let batches = corpus.train.len().div_ceil(config.dataset.data.batch_size) as u64;
        let steps = batches * config.dataset.training.epochs as u64;
        let bert = assemble::encoder_config(&config, &tokenizer)?;
        let classifier = assemble::classifier(&config, corpus.labels.len(), bert.hidden_size, &compute);
        assemble::check_memory(&config, &bert, &classifier, true, &compute)?;

        let device = compute.device.clone().autodiff();
        let encoder = assemble::encoder(&config, &bert, &device)?;
        let model = assemble::model(
            &config,
            encoder,
            classifier.init(&device),
            assemble::classifier_schedule(&config, steps),
        );
        let folder = RunFolder::create(&options.runs, config.log_fname.as_deref(), &config.dataset.data.dataset)?;
        // Absolute, so that the run can be evaluated from anywhere.
        let mut saved = config.clone();
        saved.dataset_path =
            std::path::absolute(&config.dataset_path).map_err(Error::io("find", &config.dataset_path))?;
        folder.save_config(&saved)?;
        folder.save_json(&folder.encoder_path(), &bert)?;
        tokenizer.save(&folder.tokenizer_path())?;
        corpus.labels.save(&folder.labels_path())?;
        Ok(Self {
            config,
            options,
            compute,
            folder,
            corpus,
            tokenizer,
            model,
            steps_an_epoch: batches,
            interrupter: Interrupter::new(),
        })
    }

    /// The run folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The model with its initial weights.
    pub fn model(&self) -> &XmcModel {
        &self.model
    }

    /// What is about to happen, for people.
    pub fn summary(&self) -> String {
        let classifier = self.model.classifier.config();
        format!(
            "{}\nmodel   encoder {:.1}M parameters in {}, classifier {} labels x {} in {}, {}\ndevice  {}\nrun     {}",
            self.corpus.report,
            self.model.encoder.parameter_count() as f64 / 1e6,
            assemble::float_format(&self.compute),
            classifier.labels,
            classifier.dim,
            classifier.precision,
            crate::error::bytes(classifier.bytes()),
            self.compute.name,
            self.folder.path().display(),
        )
    }

    /// A handle that stops the run after the current step.
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// Trains, keeps the last and the best epoch on disk, and evaluates the best one on test.
    ///
    /// # Errors
    /// [`Error::Training`] if the numbers stop being finite, [`Error::Interrupted`] if the user stopped it,
    /// [`Error::Io`] and [`Error::Run`] from the run folder. Checkpoints written before stay.
    pub fn run(self, observer: Observer) -> Result<Metrics> {
        let training = &self.config.dataset.training;
        let data = &self.config.dataset.data;
        let propensity = Arc::new(Propensity::new(
            &self.corpus.train_label_freq,
            self.corpus.train_rows,
            training.evaluation.a,
            training.evaluation.b,
        ));
        let pad_id = self.tokenizer.pad_id();
        let device = self.compute.device.clone();
        let train_loader = Loader::training(
            Arc::new(self.corpus.train),
            data.batch_size,
            pad_id,
            training.seed,
            device.clone().autodiff(),
        );
        let valid_loader = Loader::evaluation(
            Arc::new(self.corpus.valid),
            data.test_batch_size,
            pad_id,
            device.clone(),
        );
        let test_loader: Arc<dyn DataLoader<_>> = Arc::new(Loader::evaluation(
            Arc::new(self.corpus.test),
            data.test_batch_size,
            pad_id,
            device.clone(),
        ));
        let strategy = Arc::new(Strategy {
            folder: self.folder.clone(),
            device,
            test: test_loader.clone(),
            test_every: training.evaluation.test_evaluate_every,
            propensity: propensity.clone(),
            observer,
            error: Default::default(),
        });

        let mut learning = SupervisedTraining::new(self.folder.path(), Arc::new(train_loader), Arc::new(valid_loader))
            .num_epochs(training.epochs)
            .with_interrupter(self.interrupter.clone())
            .with_application_logger(None)
            .with_metric_logger(burn::train::logger::InMemoryMetricLogger::default())
            .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
            .metric_train_numeric(LossMetric::new());
        for kind in [Kind::Precision, Kind::PropensityScored] {
            for k in [1, 3, 5] {
                let metric = RankingMetric::new(kind, k, propensity.clone());
                learning = learning.metric_valid_numeric(metric);
            }
        }
        if training.encoder.grad_accum_step > 1 {
            learning = learning.grads_accumulation(training.encoder.grad_accum_step);
        }
        if !self.options.dashboard {
            learning = learning.renderer(Box::new(quiet::Quiet));
        }
        let updates = self.steps_an_epoch.div_ceil(training.encoder.grad_accum_step as u64) * training.epochs as u64;
        let schedule = schedule::EncoderSchedule::new(
            training.encoder.lr,
            assemble::schedule(training.encoder.lr_scheduler, training.encoder.warmup_steps, updates),
        );
        let learner = Learner::new(self.model, optimizer(&self.config), schedule);
        let result = learning.launch(learner);
        drop(result.renderer);

        if let Some(error) = strategy.take_error() {
            return Err(error);
        }
        if let Some(error) = result.error {
            return Err(Error::Training {
                message: error.to_string(),
                hint: None,
            });
        }
        if result.interrupted.is_some() {
            let path = self.folder.path().display();
            let hint = match self.folder.state(Which::Last) {
                Ok(state) => format!(
                    "epoch {} is on disk: elmo evaluate {path} --checkpoint last",
                    state.epoch
                ),
                Err(_) => "no epoch had ended, so there is no checkpoint".to_owned(),
            };
            return Err(Error::Interrupted { hint: Some(hint) });
        }

        // From the disk, so that `evaluate` sees the very same weights.
        let mut model = result.model;
        let state = self.folder.load_checkpoint(&mut model, Which::Best)?;
        let metrics = evaluate::on_loader(&model, &*test_loader, propensity, &self.interrupter).ok_or_else(|| {
            Error::Interrupted {
                hint: Some(format!(
                    "the training is complete: elmo evaluate {}",
                    self.folder.path().display()
                )),
            }
        })?;
        let result = evaluate::result_json(&metrics, &state);
        self.folder.save_json(&self.folder.result_path(), &result)?;
        Ok(metrics)
    }
}

/// Adam or AdamW for the encoder; biases and layer norms do not decay.
fn optimizer(config: &Config) -> ModuleOptimizer {
    let encoder = &config.dataset.training.encoder;
    let adam = match encoder.optimizer {
        EncoderOptimizer::Adam => KahanAdam::adam(),
        EncoderOptimizer::AdamW => KahanAdam::adamw(),
    };
    let decaying = KahanAdam {
        weight_decay: encoder.wd,
        kahan: encoder.kahan,
        ..adam
    };
    let plain = KahanAdam {
        weight_decay: 0.0,
        ..decaying.clone()
    };
    let without_decay = ParamGroup::from_any_predicates(vec!["bias", "gamma", "beta"]);
    ModuleOptimizer::from(decaying).with_group(without_decay, plain, None)
}
