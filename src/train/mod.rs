//! Training: from a configuration to a run folder.
//!
//! [`Training::prepare`] checks and loads everything and makes the run folder; [`Training::run`] trains, and ends with
//! the metrics of the best epoch on test. What happens on the way goes to an [`Observer`].

mod epochs;
mod event;
mod interrupter;
mod learner;
mod loss;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

pub use epochs::interrupted;
pub use event::{EpochEvent, Event, Observer, RankedEvent, Rows, StepEvent};
pub use interrupter::Interrupter;

use crate::{
    config::Config,
    data::{Corpus, Frequencies, Progress, Split, Watch},
    device::Compute,
    encoder::Activations,
    error::{Error, Result},
    evaluate::{Evaluation, scoring},
    loader::{Loader, Position},
    model::{Job, ModelSpec, XmcModel, encoder_config, pretrained_encoder},
    run::{Description, RunFolder, Which, cache_dir},
    setup,
};
use epochs::Epochs;
pub(crate) use learner::optimizer;
pub use learner::{EncoderUpdate, Learner, Learning, Rate};

/// What a training takes beside its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder in which run folders are made.
    pub runs: PathBuf,
    /// The device by name; the best one if `None`.
    pub device: Option<String>,
    /// Who is told how far reading the data has come.
    pub watch: Watch,
}

impl Default for Options {
    fn default() -> Self {
        Self { runs: "runs".into(), device: None, watch: Watch::default() }
    }
}

/// Does work that cannot say how far it is; `watch` is told all the while that it goes on.
fn telling<T>(watch: &Watch, doing: &'static str, file: &Path, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        scope.spawn(move || {
            while is_done.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                watch.tell(&Progress { doing, file, done: 0, total: 0, rows: 0 });
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// A training that is ready to run.
pub struct Training {
    config: Config,
    compute: Compute,
    folder: RunFolder,
    corpus: Corpus,
    spec: ModelSpec,
    model: XmcModel,
    interrupter: Interrupter,
}

impl Training {
    /// Opens the device, reads the data, builds the model and makes the run folder.
    ///
    /// # Errors
    /// Whatever a configuration, a data set or a machine can lack: [`Error`].
    pub fn prepare(config: Config, options: Options) -> Result<Self> {
        // What can be known at once is checked before anything slow.
        RunFolder::check(&options.runs, config.log_fname.as_deref())?;
        setup::check_encoder_folder(&config)?;
        pretrained_encoder(&config)?;
        let compute = setup::device(&config, options.device.as_deref())?;
        let dir = config.data_dir();
        let source = setup::source(&config, &dir);
        let cache = cache_dir(&options.runs);
        let tokenizer = setup::tokenizer(&config, &source, Some(&cache), &options.watch)?;
        let encoder = encoder_config(&config, &tokenizer)?;
        let corpus = Corpus::load(&source, &tokenizer, Some(&cache), &options.watch)?;

        let spec = ModelSpec::new(&config, encoder, corpus.labels.len());
        let job = Job::new(&config, true).fitted(&config, &spec, &compute);
        spec.check_memory(job, &compute)?;
        let weights = setup::pretrained_weights(&config)?;
        let mut model =
            telling(&options.watch, "making the weights for", &dir, || spec.init(weights.as_deref(), &compute))?;
        model.encoder = model.encoder.with_activations(job.activations);
        let folder = RunFolder::create(&options.runs, config.log_fname.as_deref(), &config.dataset.data.dataset)?;
        // Absolute, so that the run can be evaluated from anywhere.
        let mut saved = config.clone();
        saved.dataset_path =
            std::path::absolute(&config.dataset_path).map_err(Error::io("find", &config.dataset_path))?;
        let description = Description { spec: &spec, labels: &corpus.labels, tokenizer: &tokenizer };
        folder.save_description(&saved, &description)?;
        Ok(Self { config, compute, folder, corpus, spec, model, interrupter: Interrupter::default() })
    }

    /// The run folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// What is about to happen, for people.
    pub fn summary(&self) -> String {
        let classifier = self.model.classifier.config();
        format!(
            "{}\nmodel   encoder {:.1}M parameters in {}, classifier {} labels x {} in {}, {}\n{}loss    {}\ndevice  {}\nrun     {}",
            self.corpus.report,
            self.model.encoder.parameter_count() as f64 / 1e6,
            self.compute.float_format(),
            classifier.labels,
            classifier.dim,
            classifier.precision,
            crate::error::bytes(classifier.bytes()),
            match self.model.encoder.activations() {
                Activations::Balanced => "",
                Activations::Least =>
                    "memory  of each layer its input is kept, and the layer computed again (dataset.model.encoder.activations)\n",
            },
            match self.loss_every() {
                0 => "not computed (dataset.training.loss_every is 0)".to_owned(),
                1 => "the mean over every row of an epoch".to_owned(),
                n => format!("the mean over the rows of every {n}th step"),
            },
            self.compute.name,
            self.folder.path().display(),
        )
    }

    /// A handle that stops the run after the current step.
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// Batches of an epoch.
    fn batches(&self) -> usize {
        self.corpus.train.len().div_ceil(self.config.dataset.data.batch_size)
    }

    fn loss_every(&self) -> usize {
        loss::period(self.config.dataset.training.loss_every, self.batches())
    }

    fn learning(&self) -> Learning {
        let training = &self.config.dataset.training;
        let (encoder, xmc) = (&training.encoder, &training.xmc);
        let (steps, updates) = self.steps();
        Learning {
            optimizer: learner::optimizer(encoder),
            encoder_rate: Rate::new(encoder.lr, encoder.course(), updates),
            classifier_rate: Rate::new(xmc.lr, xmc.course(), steps),
            loss_every: self.loss_every() as u64,
            accumulation: encoder.grad_accum_step,
            max_norm: (encoder.max_grad_norm > 0.0).then_some(encoder.max_grad_norm),
        }
    }

    /// Steps of the classifier and of the encoder's optimizer.
    fn steps(&self) -> (u64, u64) {
        let training = &self.config.dataset.training;
        let updates = self.batches().div_ceil(training.encoder.grad_accum_step);
        let epochs = training.epochs as u64;
        (self.batches() as u64 * epochs, updates as u64 * epochs)
    }

    /// Trains, keeps the last and the best epoch on disk, and evaluates the best one on test.
    ///
    /// # Errors
    /// [`Error::Training`] if the numbers stop being finite, [`Error::Interrupted`] if the user stopped it,
    /// [`Error::Io`] and [`Error::Run`] from the run folder. Checkpoints written before stay.
    pub fn run(self, observer: Observer) -> Result<Evaluation> {
        let (learning, (steps, updates)) = (self.learning(), self.steps());
        for warning in self.config.warm_up_warnings(steps, updates) {
            observer(&Event::Warning(warning));
        }
        let training = &self.config.dataset.training;
        let data = &self.config.dataset.data;
        let device = self.compute.device.clone();
        let evaluation = |split| Loader::evaluation(Arc::new(split), data.test_batch_size, device.clone());
        let scoring = scoring(&training.evaluation, Some(&Frequencies::of(&self.corpus)));
        let (train_every, learned) = match training.evaluation.train_evaluate {
            true => (training.evaluation.train_evaluate_every, self.corpus.train.without_titles()),
            false => (0, Split::from_rows(&[], &[])),
        };
        let epochs = Epochs {
            epochs: training.epochs,
            scoring,
            learned: evaluation(learned),
            train_every,
            train: Loader::training(
                Arc::new(self.corpus.train),
                data.batch_size,
                training.seed,
                device.clone().autodiff(),
            ),
            valid: evaluation(self.corpus.valid),
            test: evaluation(self.corpus.test),
            test_every: training.evaluation.test_evaluate_every,
            folder: self.folder.clone(),
            device: device.clone(),
            observer,
            interrupter: self.interrupter,
        };
        let mut learner = Learner::new(self.model, learning);
        epochs.run(&mut learner, Position::default())?;

        // From the disk, so that `evaluate` sees the very same weights; those in memory go first.
        drop(learner);
        let which = Which::Best;
        let (model, state) = self.folder.load_checkpoint(&self.spec, which, &self.compute)?;
        let metrics = epochs.rank(&model, Rows::Test).map_err(|()| Error::Interrupted {
            hint: Some(format!(
                "the training is complete, its evaluation is not: elmo evaluate {}",
                self.folder.path().display()
            )),
        })?;
        let evaluation = Evaluation { metrics, which, state };
        self.folder.save_result(&evaluation.to_json())?;
        Ok(evaluation)
    }
}
