//! Checkpoints: what a run needs to be used, or to go on, after any step.
//!
//! A checkpoint is a folder that is written under another name, synced, and renamed. Then `index.json` is replaced,
//! which names the last checkpoint and the best one; only then do older ones go. `state.json` says where the run stood,
//! and has a fingerprint of every other file; the index has one of `state.json`.

use std::{collections::BTreeMap, fmt, fs, path::Path, str::FromStr};

use burn::tensor::TensorData;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::{
    FORMAT, RunFolder,
    fingerprint::{Fingerprint, damage, parse, read},
    migrate,
    state::{Found, STATE, State, Which},
    sync_folder, tensors, weights,
};
use crate::{
    device::Compute,
    error::{Error, Result},
    model::{ModelSpec, XmcModel},
};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

/// What an optimizer remembers, compensation included, by the parameter's path and the name of the thing, as
/// `encoder.norm.gamma.moment_1`.
pub type OptimizerState = BTreeMap<String, TensorData>;

/// All that a checkpoint keeps.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Encoder and classifier, weights and compensation. Off the autodiff graph.
    pub model: XmcModel,
    /// The encoder's optimizer; `None` if it is not kept. (The classifier has no state beside its weights.)
    pub optimizer: Option<OptimizerState>,
    /// Where the run stands.
    pub state: State,
}

/// `state.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    state: State,
    /// The other files of the checkpoint.
    files: BTreeMap<String, Fingerprint>,
}

/// `index.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    last: Entry,
    best: Entry,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    folder: Name,
    /// Fingerprint of its `state.json`.
    state: Fingerprint,
}

/// The name of a checkpoint's folder: `epoch-3` at the end of an epoch, `step-000001200` within one; `epoch-3-2` where
/// the index still needs the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Name {
    within_epoch: bool,
    /// Epochs, or steps.
    done: u64,
    /// Suffix that avoids a name in use.
    taken: u32,
}

impl Name {
    fn new(state: &State, taken: u32) -> Self {
        let within_epoch = state.progress.is_some();
        Self { within_epoch, done: if within_epoch { state.steps } else { state.epoch as u64 }, taken }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.within_epoch {
            true => write!(f, "step-{:09}", self.done)?,
            false => write!(f, "epoch-{}", self.done)?,
        }
        match self.taken {
            0 => Ok(()),
            taken => write!(f, "-{}", u64::from(taken) + 1),
        }
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, rest) = text.split_once('-').ok_or(())?;
        let (done, number) = rest.split_once('-').unwrap_or((rest, "1"));
        let name = Self {
            within_epoch: kind == "step",
            done: done.parse().map_err(drop)?,
            taken: number.parse::<u32>().ok().and_then(|n| n.checked_sub(1)).ok_or(())?,
        };
        // One spelling only: no sign, no other number of zeros.
        (name.to_string() == text).then_some(name).ok_or(())
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|()| format!("`{text}` is not the name of a checkpoint"))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

impl RunFolder {
    /// Writes a checkpoint as the last one, and as the best one if it is. Checkpoints that are neither go.
    ///
    /// # Errors
    /// [`Error::Training`] if a weight is not finite; [`Error::Io`], [`Error::Run`]. What was on disk before is still
    /// there then, and nothing else.
    pub fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        if self.format < FORMAT {
            return Err(damage(self.path(), "written by an older elmo: it can be used, and not be continued"));
        }
        let folder = self.checkpoints();
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let index = self.index()?;
        let best = match &index {
            Some(index) => Some(self.manifest(&index.best)?.state),
            None => None,
        };
        let known: Vec<&Name> = index.iter().flat_map(|index| [&index.last.folder, &index.best.folder]).collect();
        let name = (0..)
            .map(|taken| Name::new(&checkpoint.state, taken))
            .find(|name| !known.contains(&name))
            .expect("the index knows two names at most");

        let temporary = folder.join(format!(".{name}"));
        let path = folder.join(name.to_string());
        // What a crash left under these names: the index knows of neither.
        remove(&temporary)?;
        let written = self.write_checkpoint(&temporary, checkpoint).and_then(|state| {
            remove(&path)?;
            fs::rename(&temporary, &path).map_err(Error::io("write", &path))?;
            sync_folder(&folder)?;
            Ok(state)
        });
        let state = written.inspect_err(|_| {
            // The error that brought us here is the one worth reporting.
            let _ = remove(&temporary);
        })?;

        let last = Entry { folder: name, state };
        let best = match (index, best) {
            (Some(index), Some(best)) if !checkpoint.state.is_better(&best) => index.best,
            _ => last.clone(),
        };
        let keep = [last.folder.to_string(), best.folder.to_string()];
        self.save_json(&folder.join("index.json"), &Index { last, best })?;
        sync_folder(&folder)?;
        self.clear(&folder, &keep)
    }

    /// Removes the checkpoints that are not kept, and nothing else.
    fn clear(&self, folder: &Path, keep: &[String]) -> Result<()> {
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let path = entry.map_err(Error::io("read", folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_checkpoint = name.strip_prefix('.').unwrap_or(name).parse::<Name>().is_ok();
            if is_checkpoint && !keep.iter().any(|keep| keep == name) {
                // The training goes on whatever becomes of an old checkpoint.
                remove(&path).unwrap_or_else(|error| tracing::warn!("an old checkpoint stays: {error}"));
            }
        }
        Ok(())
    }

    /// Writes the files of a checkpoint into a new folder, and returns the fingerprint of its `state.json`.
    fn write_checkpoint(&self, folder: &Path, checkpoint: &Checkpoint) -> Result<Fingerprint> {
        fs::create_dir(folder).map_err(Error::io("create", folder))?;
        let mut files = BTreeMap::new();
        files.insert(MODEL.to_owned(), weights::save(&checkpoint.model, &folder.join(MODEL))?);
        if let Some(optimizer) = &checkpoint.optimizer {
            files.insert(OPTIMIZER.to_owned(), save_optimizer(optimizer, &folder.join(OPTIMIZER))?);
        }
        let manifest = Manifest { state: checkpoint.state.clone(), files };
        let fingerprint = self.save_json(&folder.join(STATE), &manifest)?;
        sync_folder(folder)?;
        Ok(fingerprint)
    }

    fn index(&self) -> Result<Option<Index>> {
        self.load_json_if_there(&self.checkpoints().join("index.json"))
    }

    fn manifest(&self, entry: &Entry) -> Result<Manifest> {
        let path = self.checkpoints().join(entry.folder.to_string()).join(STATE);
        let bytes = read(&path)?;
        if let Some(difference) = entry.state.difference(&Fingerprint::of(&bytes)) {
            return Err(damage(&path, format!("{difference} (as index.json has it)")));
        }
        parse(&path, &bytes)
    }

    fn find(&self, which: Which) -> Result<Found> {
        let found = if self.format < FORMAT {
            migrate::checkpoint(self, which)?
        } else if let Some(index) = self.index()? {
            let entry = match which {
                Which::Best => index.best,
                Which::Last => index.last,
            };
            let Manifest { state, files } = self.manifest(&entry)?;
            Some(Found { state, folder: self.checkpoints().join(entry.folder.to_string()), files: Some(files) })
        } else {
            None
        };
        found.ok_or_else(|| match self.had_checkpoint() {
            true => damage(&self.checkpoints().join("index.json"), "missing"),
            false => Error::Run {
                path: self.path().to_owned(),
                message: "no checkpoint: the run stopped before its first epoch ended".into(),
                hint: Some("train again".into()),
            },
        })
    }

    /// Whether anything is there that comes only with a checkpoint or after it.
    fn had_checkpoint(&self) -> bool {
        let names = fs::read_dir(self.checkpoints()).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names = names.filter_map(|name| name.to_str()?.parse::<Name>().ok());
        names.next().is_some() || self.result_path().exists() || self.metrics_path().exists()
    }

    /// Where the run stood at a checkpoint.
    ///
    /// # Errors
    /// [`Error::Run`] if there is none, or its files are damaged.
    pub fn state(&self, which: Which) -> Result<State> {
        Ok(self.find(which)?.state)
    }

    /// Reads the model of a checkpoint, which `spec` describes, off the autodiff graph; and where the run stood.
    /// Nothing random is drawn.
    ///
    /// # Errors
    /// [`Error::Run`] if there is none, if it is damaged or not such a model, or if weights are not finite;
    /// [`Error::Io`] if it may not be read.
    pub fn load_checkpoint(&self, spec: &ModelSpec, which: Which, compute: &Compute) -> Result<(XmcModel, State)> {
        let found = self.find(which)?;
        let (path, fingerprint) = found.file(MODEL)?;
        let file = weights::map(&path, fingerprint)?;
        let layout = match found.files {
            Some(_) => weights::rows,
            None => migrate::rows,
        };
        let model = weights::load(spec, &path, &file, layout, compute)?;
        model.classifier.set_steps(found.state.steps);
        Ok((model, found.state))
    }

    /// Reads what the optimizer of a checkpoint remembers; `None` if that was not kept.
    ///
    /// # Errors
    /// As [`load_checkpoint`](Self::load_checkpoint).
    pub fn load_optimizer(&self, which: Which) -> Result<Option<OptimizerState>> {
        let found = self.find(which)?;
        if !(found.files.as_ref()).is_some_and(|files| files.contains_key(OPTIMIZER)) {
            return Ok(None);
        }
        let (path, fingerprint) = found.file(OPTIMIZER)?;
        let file = weights::map(&path, fingerprint)?;
        let tensors = SafeTensors::deserialize(&file).map_err(|error| damage(&path, format!("damaged: {error}")))?;
        let tensors = tensors.iter().map(|(name, tensor)| {
            let dtype = tensors::dtype(tensor.dtype())
                .ok_or_else(|| damage(&path, format!("tensor `{name}` is of type {:?}", tensor.dtype())))?;
            let bytes = burn::tensor::Bytes::from_bytes_vec(tensor.data().to_vec());
            Ok((name.to_owned(), TensorData::from_bytes(bytes, tensor.shape().to_vec(), dtype)))
        });
        tensors.collect::<Result<_>>().map(Some)
    }
}

fn save_optimizer(optimizer: &OptimizerState, path: &Path) -> Result<Fingerprint> {
    let source = |(name, data): (&String, &TensorData)| {
        let dtype = tensors::name(data.dtype()).expect("optimizers remember numbers");
        let bytes = data.bytes().to_vec();
        let source = tensors::Source { dtype, shape: data.shape().to_vec(), write: Box::new(move |sink| sink(&bytes)) };
        (name.clone(), source)
    };
    tensors::write(path, optimizer.iter().map(source).collect())
}

/// Removes a folder if it is there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}
