//! Run folders of version 1: no `run.json`, no `model.json`, no fingerprints.
//!
//! ```text
//! config.toml        the model's settings, but for the encoder's sizes
//! encoder.json       the encoder's architecture
//! checkpoint/
//!   index.json       the states of the last and of the best epoch
//!   epoch-3/         model.safetensors, the classifier as one tensor a buffer; state.json, never read
//! ```
//!
//! They are read, and never written.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{
    RunFolder, Which, check_format,
    fingerprint::{damage, open},
    state::{Found, State},
    weights::Rows,
};
use crate::{classifier::Stored, config::Config, encoder::EncoderConfig, error::Result, model::ModelSpec};

#[derive(Deserialize)]
struct Index {
    last: Epoch,
    best: Epoch,
}

#[derive(Deserialize)]
struct Epoch {
    epoch: usize,
    steps: u64,
    #[serde(default)]
    validation: Option<f64>,
    version: u64,
}

fn encoder_path(folder: &RunFolder) -> PathBuf {
    folder.path().join("encoder.json")
}

/// Whether a folder without `run.json` is one of version 1, with the files that no run changes.
///
/// # Errors
/// [`Error::Run`](crate::Error::Run), which names the file that is missing.
pub(super) fn check(folder: &RunFolder) -> Result<()> {
    if folder.spec_path().exists() {
        return Err(damage(&folder.manifest_path(), "missing"));
    }
    let encoder = encoder_path(folder);
    if !encoder.exists() {
        return Err(damage(&encoder, "missing (and run.json and model.json, if the run is not of an older elmo)"));
    }
    [encoder, folder.labels_path(), folder.tokenizer_path()].iter().try_for_each(|file| open(file).map(drop))
}

/// The model of a run with these settings and this many labels.
pub(super) fn spec(folder: &RunFolder, config: &Config, labels: usize) -> Result<ModelSpec> {
    let path = encoder_path(folder);
    let encoder: EncoderConfig = folder.load_json(&path)?;
    Ok(ModelSpec::new(config, encoder, labels))
}

/// A checkpoint; `None` if no epoch had ended.
pub(super) fn checkpoint(folder: &RunFolder, which: Which) -> Result<Option<Found>> {
    let path = folder.checkpoints().join("index.json");
    let Some(index) = folder.load_json_if_there::<Index>(&path)? else {
        return Ok(None);
    };
    let found = match which {
        Which::Best => index.best,
        Which::Last => index.last,
    };
    if found.version != 1 {
        check_format(found.version, &path)?;
        return Err(damage(&path, format!("damaged: version {} in a folder of version 1", found.version)));
    }
    Ok(Some(Found {
        folder: folder.checkpoints().join(format!("epoch-{}", found.epoch)),
        state: State::new(found.epoch, found.steps, found.validation),
        files: None,
    }))
}

/// The rows of a classifier: in the tensors `classifier.NAME.0`, `.1` and so on, each of which has whole rows.
pub(super) fn rows<'a>(
    tensors: &SafeTensors<'a>,
    stored: Stored,
    [rows, row_words]: [usize; 2],
) -> Result<Rows<'a>, String> {
    let prefix = match stored {
        Stored::Weights => "classifier.weights.",
        Stored::Compensation => "classifier.compensation.",
    };
    let row_bytes = 4 * row_words;
    let mut left = rows * row_bytes;
    let mut found = Rows::new(row_words);
    // Where there is nothing to store, a buffer had a single word all the same.
    for number in 0.. {
        let name = format!("{prefix}{number}");
        let Ok(tensor) = tensors.tensor(&name) else {
            if left > 0 {
                return Err(format!("tensor `{name}` is missing"));
            }
            break;
        };
        let bytes = tensor.data();
        let is_filler = tensor.shape() == [1] && stored == Stored::Compensation && left == 0;
        if tensor.dtype() != Dtype::U32
            || !is_filler && (bytes.is_empty() || bytes.len() > left || !bytes.len().is_multiple_of(row_bytes))
        {
            return Err(format!(
                "tensor `{name}` is {} bytes of {:?}, expected whole rows of {row_bytes} bytes of U32, {left} bytes at \
                 most",
                bytes.len(),
                tensor.dtype()
            ));
        }
        left -= if is_filler { 0 } else { bytes.len() };
        found.push(name, bytes);
    }
    Ok(found)
}
