//! The run folder: what a run leaves on disk, and how it is read back.
//!
//! ```text
//! runs/things-1/
//!   run.json                   the version of the folder's format, and fingerprints of the next three
//!   model.json                 what the model is, apart from its weights
//!   labels.jsonl               the classifier's outputs: index, label id, title
//!   tokenizer.json             the tokenizer
//!   config.toml                every setting, resolved; may be edited within reason
//!   log.txt                    what happened
//!   metrics.jsonl              one line an epoch
//!   checkpoint/
//!     index.json               which checkpoints are the last and the best, with fingerprints of their state.json
//!     epoch-3/                 after an epoch; step-000001200/ within one
//!       model.safetensors      encoder and classifier
//!       optimizer.safetensors  what the optimizer remembers, in a checkpoint to go on from
//!       state.json             where the run stood, and fingerprints of the other files
//!   result.json                the metrics on test, once the run has finished
//! ```
//!
//! A crash at any moment leaves a folder that can be read: a checkpoint is written under another name, synced, and
//! renamed; then the index is replaced in one step; only then does an old checkpoint go.
//!
//! The format has a version, in `run.json`, which is looked at first. This program reads all versions up to its own
//! [`FORMAT`], and says so of a later one. Nothing in a file depends on the number of devices, on the time or on the
//! machine: equal runs write equal files (`log.txt` and the times in `metrics.jsonl` aside).

mod checkpoint;
mod fingerprint;
mod migrate;
mod state;
mod tensors;
mod weights;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

pub use checkpoint::{Checkpoint, OptimizerState};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
pub use state::{Progress, State, Which};

use crate::{
    atomic,
    config::Config,
    data::{LabelMap, TextTokenizer},
    error::{Error, Result},
    model::ModelSpec,
};
use fingerprint::{Fingerprint, damage, parse, read};

/// Where tokens are cached, beside the runs.
pub fn cache_dir(runs: &Path) -> PathBuf {
    runs.join(".cache")
}

/// The version of the folders that this program writes. Raised when an older program could not read them.
pub const FORMAT: u64 = 2;

/// `run.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u64,
    /// The version of the program that wrote it.
    elmo: String,
    /// The files that a run writes before its first epoch and nobody changes later.
    files: BTreeMap<String, Fingerprint>,
}

/// What a trained model is, apart from its weights and settings.
pub struct Description<'a> {
    /// Encoder and classifier.
    pub spec: &'a ModelSpec,
    /// What the classifier's outputs mean.
    pub labels: &'a LabelMap,
    /// Text to token ids.
    pub tokenizer: &'a TextTokenizer,
}

/// A run folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The version of its format.
    format: u64,
}

impl RunFolder {
    /// Whether [`create`](Self::create) can be expected to work, before the work that leads to it is done.
    ///
    /// # Errors
    /// [`Error::Run`] if `parent/name` exists, [`Error::Io`] if `parent` cannot be made or written to.
    pub fn check(parent: &Path, name: Option<&str>) -> Result<()> {
        // The folder may still have to be made: in the nearest one that is there.
        let absolute = std::path::absolute(parent).map_err(Error::io("find", parent))?;
        let there = absolute.ancestors().find(|folder| folder.symlink_metadata().is_ok());
        let there = there.unwrap_or(&absolute);
        if !there.is_dir() {
            return Err(Error::Run {
                path: there.to_owned(),
                message: "expected a folder for run folders, found a file".into(),
                hint: Some("`--runs` names a folder, or a name for a new one; the default is runs".into()),
            });
        }
        // Only an attempt tells whether it may be written.
        let trial = there.join(format!(".elmo-{}", std::process::id()));
        let made = fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial));
        made.map_err(Error::io("make a run folder in", there))?;
        let Some(path) = name.map(|name| parent.join(name)) else {
            return Ok(());
        };
        match path.symlink_metadata() {
            Ok(_) => Err(taken(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("create", path)(error)),
        }
    }

    /// Makes the folder `parent/name`, or the first free one of `parent/<stem>-1`, `-2`, ... if there is no name.
    ///
    /// # Errors
    /// [`Error::Run`] if `parent/name` exists: a run is never overwritten.
    pub fn create(parent: &Path, name: Option<&str>, stem: &str) -> Result<Self> {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        if let Some(name) = name {
            let path = parent.join(name);
            return match fs::create_dir(&path) {
                Ok(()) => Ok(Self::new(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(path)),
                Err(error) => Err(Error::io("create", &path)(error)),
            };
        }
        let mut number = 1;
        loop {
            let path = parent.join(format!("{stem}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self::new(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::io("create", &path)(error)),
            }
        }
    }

    fn new(path: PathBuf) -> Self {
        Self { path, format: FORMAT }
    }

    /// Opens a folder that a run left: looks at the version of its format, and at the files that no run changes.
    ///
    /// # Errors
    /// [`Error::Run`] if it is not one, if a later version wrote it, or if a file is damaged; [`Error::Io`] if it
    /// cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut this = Self::new(path.to_owned());
        let no_run = |message: &str, hint: &str| Error::Run {
            path: path.to_owned(),
            message: message.into(),
            hint: Some(hint.into()),
        };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(Error::io("read", path)(error));
            }
            _ => return Err(no_run("no such folder", "give the folder that `elmo train` named")),
        }
        // Only that it is there: the version must be known before it can be read.
        if let Err(error) = fs::metadata(this.config_path()) {
            return Err(match error.kind() {
                ErrorKind::NotFound => {
                    no_run("not a run folder: config.toml is missing", "a run folder holds config.toml and checkpoint/")
                }
                _ => Error::io("read", this.config_path())(error),
            });
        }
        let manifest = this.manifest_path();
        let Some(written) = this.load_json_if_there::<Value>(&manifest)? else {
            migrate::check(&this)?;
            this.format = 1;
            return Ok(this);
        };
        let format =
            written["format"].as_u64().ok_or_else(|| damage(&manifest, "damaged: `format` is not a number"))?;
        check_format(format, &manifest)?;
        let written =
            Manifest::deserialize(&written).map_err(|error| damage(&manifest, format!("damaged: {error}")))?;
        for file in [this.spec_path(), this.labels_path(), this.tokenizer_path()] {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let fingerprint =
                (written.files.get(name)).ok_or_else(|| damage(&manifest, format!("damaged: does not list {name}")))?;
            if let Some(difference) = fingerprint.difference(&Fingerprint::of_file(&file)?) {
                return Err(damage(&file, format!("{difference} (as run.json has it)")));
            }
        }
        Ok(this)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `log.txt`.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log.txt")
    }

    /// `labels.jsonl`.
    pub fn labels_path(&self) -> PathBuf {
        self.path.join("labels.jsonl")
    }

    /// `tokenizer.json`.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// `result.json`.
    pub fn result_path(&self) -> PathBuf {
        self.path.join("result.json")
    }

    fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    fn spec_path(&self) -> PathBuf {
        self.path.join("model.json")
    }

    fn manifest_path(&self) -> PathBuf {
        self.path.join("run.json")
    }

    fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// Writes what a run knows before its first step: the resolved settings, and the model's description.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn save_description(&self, config: &Config, description: &Description) -> Result<()> {
        let path = self.config_path();
        write(&path, config.to_toml().as_bytes())?;
        self.save_json(&self.spec_path(), description.spec)?;
        description.labels.save(&self.labels_path())?;
        description.tokenizer.save(&self.tokenizer_path())?;
        let mut files = BTreeMap::new();
        for file in [self.spec_path(), self.labels_path(), self.tokenizer_path()] {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, Fingerprint::of_file(&file)?);
        }
        let manifest = Manifest { format: FORMAT, elmo: env!("CARGO_PKG_VERSION").into(), files };
        self.save_json(&self.manifest_path(), &manifest)?;
        Ok(())
    }

    /// Reads the settings back. A key that is not there has its default: an older version did not know it yet.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Run`], which names the key, if a value is not what it can be, or the key is unknown.
    pub fn load_config(&self) -> Result<Config> {
        let path = self.config_path();
        let text = String::from_utf8(read(&path)?).map_err(|_| damage(&path, "damaged: not UTF-8 text"))?;
        let wrong = |message: String, hint: Option<String>| Error::Run {
            path: self.path.clone(),
            message,
            hint: hint
                .or_else(|| Some("the file belongs to the run: undo the change, restore it, or train again".into())),
        };
        if text.trim().is_empty() {
            return Err(wrong("config.toml: damaged: all keys are missing".into(), None));
        }
        Config::from_toml(&text, "config.toml").map_err(|error| match error {
            Error::UnknownKey { origin, key, hint } => {
                let hint = hint.map(|hint| format!("{hint}; if a newer elmo wrote the file: update"));
                wrong(format!("{origin}: unknown key `{key}`"), hint)
            }
            Error::Config { origin, key, expected, found, hint } => {
                wrong(format!("{origin}: `{key}`: expected {expected}, found {found}"), hint)
            }
            other => other,
        })
    }

    /// Reads the description of the run's model, which has these settings and this many labels.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Run`] if it is damaged, or the other files are not of such a model.
    pub fn load_spec(&self, config: &Config, labels: usize) -> Result<ModelSpec> {
        if self.format < FORMAT {
            return migrate::spec(self, config, labels);
        }
        let path = self.spec_path();
        let spec = ModelSpec::from_json(&self.load_json(&path)?).map_err(|message| damage(&path, message))?;
        if spec.classifier.labels != labels {
            let message = format!("a classifier of {} labels, and labels.jsonl has {labels}", spec.classifier.labels);
            return Err(damage(&path, message));
        }
        Ok(spec)
    }

    /// Adds a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append_metrics(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.metrics_path();
        let open = File::options().append(true).create(true).open(&path);
        open.and_then(|mut file| writeln!(file, "{line}")).map_err(Error::io("write", &path))
    }

    /// Writes a value as pretty JSON to a file of the folder.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn save_result(&self, value: &impl Serialize) -> Result<()> {
        self.save_json(&self.result_path(), value).map(drop)
    }

    /// Writes a value as pretty JSON, and returns the file's fingerprint.
    fn save_json(&self, path: &Path, value: &impl Serialize) -> Result<Fingerprint> {
        let mut text = serde_json::to_string_pretty(value).expect("plain data with string keys is valid JSON");
        text.push('\n');
        write(path, text.as_bytes())?;
        Ok(Fingerprint::of(text.as_bytes()))
    }

    fn load_json<T: DeserializeOwned>(&self, path: &Path) -> Result<T> {
        parse(path, &read(path)?)
    }

    /// As [`load_json`](Self::load_json); `None` if there is no such file.
    fn load_json_if_there<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            _ => self.load_json(path).map(Some),
        }
    }
}

/// Whether this program knows a version of the format, which stands in `path`.
fn check_format(format: u64, path: &Path) -> Result<()> {
    if (1..=FORMAT).contains(&format) {
        return Ok(());
    }
    let (message, hint) = match format {
        0 => ("damaged: there is no format 0".into(), "the file belongs to the run: restore it, or train again"),
        _ => (format!("written by a newer elmo (format {format}; this one reads up to {FORMAT})"), "update elmo"),
    };
    Err(Error::Run { path: path.to_owned(), message, hint: Some(hint.into()) })
}

fn taken(path: PathBuf) -> Error {
    Error::Run {
        path,
        message: "exists already, and runs are not overwritten".into(),
        hint: Some("choose another log_fname, or move the folder away".into()),
    }
}

/// Syncs a folder, so that a rename in it survives a crash.
fn sync_folder(folder: &Path) -> Result<()> {
    // Elsewhere folders cannot be opened.
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Error::io("write", folder))?;
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    atomic::write(path, |file| file.write_all(content).map_err(Error::io("write", path)))
}

#[cfg(test)]
mod tests;
