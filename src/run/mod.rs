//! The run folder: what a run leaves on disk, and how it is read back.
//!
//! ```text
//! runs/things-1/
//!   config.toml      every key, resolved
//!   log.txt          what happened
//!   metrics.jsonl    one line an epoch
//!   labels.jsonl     the classifier's outputs: index, label id, title
//!   tokenizer.json   the tokenizer
//!   encoder.json     the encoder's architecture
//!   checkpoint/
//!     index.json     which epochs are the last and the best
//!     epoch-3/       model.safetensors, state.json
//!   result.json      the metrics on test, once the run has finished
//! ```
//!
//! A crash at any moment leaves a folder that can be read: a checkpoint is written under another name, synced, and
//! renamed; then the index is replaced in one step; only then does an old checkpoint go.

mod weights;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    atomic,
    config::Config,
    device::Compute,
    encoder::EncoderConfig,
    error::{Error, Result},
    model::{ModelSpec, XmcModel},
};

/// Where tokens are cached, beside the runs.
pub fn cache_dir(runs: &Path) -> PathBuf {
    runs.join(".cache")
}

/// Raised when a folder of an earlier version can no longer be read.
const VERSION: u32 = 1;

/// Which checkpoint to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The epoch with the highest P@1 on the validation rows; the last one if nothing was held out.
    Best,
    /// The last finished epoch.
    Last,
}

/// Where a run stood after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The epoch that had finished, from 1.
    pub epoch: usize,
    /// Steps the classifier had taken.
    pub steps: u64,
    /// P@1 on the validation rows, as a fraction; `None` if nothing was held out.
    pub validation: Option<f64>,
    version: u32,
}

impl State {
    /// The state after `epoch`.
    pub fn new(epoch: usize, steps: u64, validation: Option<f64>) -> Self {
        Self {
            epoch,
            steps,
            validation,
            version: VERSION,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Index {
    last: State,
    best: State,
}

/// A run folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
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
                Ok(()) => Ok(Self { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(path)),
                Err(error) => Err(Error::io("create", &path)(error)),
            };
        }
        let mut number = 1;
        loop {
            let path = parent.join(format!("{stem}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::io("create", &path)(error)),
            }
        }
    }

    /// Opens a folder that a run left.
    ///
    /// # Errors
    /// [`Error::Run`] if it is not one.
    pub fn open(path: &Path) -> Result<Self> {
        let this = Self { path: path.to_owned() };
        if !path.is_dir() {
            return Err(this.damaged("no such folder", "give the folder that `elmo train` named"));
        }
        if !this.config_path().is_file() {
            let hint = "a run folder holds config.toml and checkpoint/";
            return Err(this.damaged("not a run folder: config.toml is missing", hint));
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

    /// `encoder.json`.
    pub fn encoder_path(&self) -> PathBuf {
        self.path.join("encoder.json")
    }

    /// `result.json`.
    pub fn result_path(&self) -> PathBuf {
        self.path.join("result.json")
    }

    fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    fn epoch_path(&self, epoch: usize) -> PathBuf {
        self.checkpoints().join(format!("epoch-{epoch}"))
    }

    fn damaged(&self, message: impl Into<String>, hint: &str) -> Error {
        Error::Run {
            path: self.path.clone(),
            message: message.into(),
            hint: Some(hint.to_owned()),
        }
    }

    /// Writes the resolved configuration.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn save_config(&self, config: &Config) -> Result<()> {
        write(&self.config_path(), config.to_toml().as_bytes())
    }

    /// Reads the configuration back.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Run`] if it is not what a run writes, with every key.
    pub fn load_config(&self) -> Result<Config> {
        let path = self.config_path();
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let damaged = |message: String| Error::Run {
            path: path.clone(),
            message,
            hint: Some("the file belongs to the run: restore it, or train again".into()),
        };
        let config = Config::from_toml(&text, "damaged").map_err(|e| damaged(e.to_string()))?;
        let keys = |text: &str| toml::from_str::<toml::Table>(text).map(|table| paths(&table));
        if keys(&text).ok() != keys(&config.to_toml()).ok() {
            return Err(damaged("damaged: keys are missing".into()));
        }
        Ok(config)
    }

    /// Adds a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append_metrics(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.path.join("metrics.jsonl");
        let open = File::options().append(true).create(true).open(&path);
        open.and_then(|mut file| writeln!(file, "{line}"))
            .map_err(Error::io("write", &path))
    }

    /// Writes a value as pretty JSON.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn save_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).expect("plain data with string keys is valid JSON");
        text.push('\n');
        write(path, text.as_bytes())
    }

    /// Reads a JSON file of the folder.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Run`] if it is damaged.
    pub fn load_json<T: DeserializeOwned>(&self, path: &Path) -> Result<T> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        serde_json::from_str(&text).map_err(|error| Error::Run {
            path: path.to_owned(),
            message: format!("damaged: {error}"),
            hint: Some("restore the file, or train again".into()),
        })
    }

    /// Saves the model as the last epoch, and as the best one if it is. Checkpoints that are neither go.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Run`]. What was on disk before is still there then.
    pub fn save_checkpoint(&self, model: &XmcModel, state: State) -> Result<()> {
        let folder = self.checkpoints();
        let temporary = folder.join(format!(".epoch-{}", state.epoch));
        if temporary.exists() {
            // Left by a crash.
            fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
        weights::save(model, &temporary.join("model.safetensors"))?;
        self.save_json(&temporary.join("state.json"), &state)?;
        sync_folder(&temporary)?;
        let path = self.epoch_path(state.epoch);
        fs::rename(&temporary, &path).map_err(Error::io("write", &path))?;
        sync_folder(&folder)?;

        let best = match self.index()? {
            Some(index) if !is_better(&state, &index.best) => index.best,
            _ => state.clone(),
        };
        let keep = [state.epoch, best.epoch];
        let index = Index { last: state, best };
        self.save_json(&folder.join("index.json"), &index)?;
        sync_folder(&folder)?;
        for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let entry = entry.map_err(Error::io("read", &folder))?.path();
            let stale = entry.is_dir() && keep.iter().all(|epoch| entry != self.epoch_path(*epoch));
            if stale {
                fs::remove_dir_all(&entry).map_err(Error::io("remove", &entry))?;
            }
        }
        Ok(())
    }

    fn index(&self) -> Result<Option<Index>> {
        let path = self.checkpoints().join("index.json");
        path.is_file().then(|| self.load_json(&path)).transpose()
    }

    /// Where the run stood at a checkpoint.
    ///
    /// # Errors
    /// [`Error::Run`] if no epoch has finished, or another version wrote it.
    pub fn state(&self, which: Which) -> Result<State> {
        let Some(index) = self.index()? else {
            return Err(self.damaged(
                "no checkpoint: the run stopped before its first epoch ended",
                "train again",
            ));
        };
        let state = match which {
            Which::Best => index.best,
            Which::Last => index.last,
        };
        if state.version != VERSION {
            let message = format!("its version is {}, expected {VERSION}", state.version);
            return Err(self.damaged(message, "use the elmo that wrote it"));
        }
        Ok(state)
    }

    /// Reads the model of a checkpoint, which `spec` describes, and says where the run stood.
    ///
    /// # Errors
    /// [`Error::Run`] if there is none, or it is not such a model.
    pub fn load_checkpoint(&self, spec: &ModelSpec, which: Which, compute: &Compute) -> Result<(XmcModel, State)> {
        let state = self.state(which)?;
        let path = self.epoch_path(state.epoch).join("model.safetensors");
        let model = weights::load(spec, &path, compute)?;
        model.classifier.set_steps(state.steps);
        Ok((model, state))
    }

    /// Reads the encoder's architecture as the run wrote it.
    ///
    /// # Errors
    /// [`Error::Run`] if it is damaged.
    pub fn load_encoder(&self) -> Result<EncoderConfig> {
        let path = self.encoder_path();
        let mut written: Value = self.load_json(&path)?;
        if let Some(fields) = written.as_object_mut() {
            // The first version knew BERT only, and did not say so.
            fields.entry("model_type").or_insert_with(|| "bert".into());
        }
        EncoderConfig::deserialize(&written)
            .ok()
            .filter(|encoder| encoder.check().is_ok())
            .ok_or_else(|| Error::Run {
                path,
                message: "damaged: not the architecture of an encoder".into(),
                hint: Some("the file belongs to the run: restore it, or train again".into()),
            })
    }
}

fn taken(path: PathBuf) -> Error {
    Error::Run {
        path,
        message: "exists already, and runs are not overwritten".into(),
        hint: Some("choose another log_fname, or move the folder away".into()),
    }
}

/// The first of equals stays the best; without validation rows the last epoch is. An epoch whose validation was
/// interrupted is not better than one that has been validated.
fn is_better(new: &State, best: &State) -> bool {
    match (new.validation, best.validation) {
        (Some(new), Some(best)) => new > best,
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

/// All key paths of a table.
fn paths(table: &toml::Table) -> BTreeSet<String> {
    table
        .iter()
        .flat_map(|(key, value)| match value {
            toml::Value::Table(inner) => paths(inner).into_iter().map(|path| format!("{key}.{path}")).collect(),
            _ => vec![key.clone()],
        })
        .collect()
}

/// Makes a rename in `folder` last.
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
