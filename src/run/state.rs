//! Where a run stood when a checkpoint was written.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::fingerprint::{Fingerprint, damage};
use crate::{error::Result, loader::Position};

/// The file of a checkpoint that holds its state.
pub(super) const STATE: &str = "state.json";

/// Which checkpoint to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one with the highest P@1 on the validation rows, the latest of equals; the last one if nothing was held out.
    Best,
    /// The last one.
    Last,
}

/// Where a run stood when a checkpoint was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Epochs that had finished.
    pub epoch: usize,
    /// Steps that the classifier had taken. They key the random bits of its rounding and of the encoder's dropout.
    pub steps: u64,
    /// P@1 on the validation rows, as a fraction; `None` if nothing was held out.
    #[serde(default)]
    pub validation: Option<f64>,
    /// What a training that goes on from here needs beside weights and optimizer; `None` if it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// How far a training had come within an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps of the encoder's learning-rate schedule.
    pub schedule: u64,
    /// Position in the data.
    pub position: Position,
    /// Counters of random bits other than [`State::steps`], by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// The metrics of the unfinished epoch so far, as whoever counts them writes them.
    #[serde(default)]
    pub metrics: serde_json::Value,
}

impl State {
    /// The state after `epoch`, from which the model can be used.
    pub fn new(epoch: usize, steps: u64, validation: Option<f64>) -> Self {
        Self { epoch, steps, validation, progress: None }
    }

    /// Whether this is better than the best so far. Of equals the later one is: it has learned more. An epoch whose
    /// validation was interrupted is not better than one that has been validated.
    pub(super) fn is_better(&self, best: &Self) -> bool {
        match (self.validation, best.validation) {
            (Some(new), Some(best)) => new >= best,
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }
}

/// A checkpoint on disk.
pub(super) struct Found {
    pub state: State,
    pub folder: PathBuf,
    /// Fingerprints of its files; `None` in folders of version 1, which kept none.
    pub files: Option<BTreeMap<String, Fingerprint>>,
}

impl Found {
    /// The path of a file and its fingerprint, if there is to be one.
    pub fn file(&self, name: &str) -> Result<(PathBuf, Option<&Fingerprint>)> {
        let path = self.folder.join(name);
        match &self.files {
            None => Ok((path, None)),
            Some(files) => match files.get(name) {
                Some(fingerprint) => Ok((path, Some(fingerprint))),
                None => Err(damage(&self.folder.join(STATE), format!("does not list {name}"))),
            },
        }
    }
}
