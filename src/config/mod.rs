//! The configuration of a run: what was typed, laid over what is built in, and checked.
//!
//! Four layers, of which a later one wins:
//! 1. `config/default.toml`: every key, with its meaning and its default;
//! 2. the preset of the data set, `config/dataset/NAME.toml`, chosen by `dataset=NAME` (`things` if nothing is);
//! 3. a TOML file of the user, `--config FILE`;
//! 4. `key=value` arguments, as `dataset.training.epochs=3`.
//!
//! Keys and values have the names of the reference implementation, so its command lines work here.
//!
//! A data set of one's own needs a file that names it. With `DIR/mine/{trn,tst,lbl}.json`:
//! ```toml
//! dataset_path = "DIR"
//! [dataset.data]
//! dataset = "mine"
//! [dataset.training]
//! epochs = 20
//! ```

mod dataset;
mod effect;
mod keys;
mod layers;
mod model;
mod optional;
mod presets;
mod settings;
mod training;
mod validate;

pub use dataset::{Data, Dataset};
pub use model::{Bottleneck, Encoder, Implementation, Model, PoolMode, Scratch, Xmc};
pub use presets::presets;
pub use training::{
    EncoderOptimizer, EncoderTraining, Evaluation, Fp8, LossFn, Schedule, Training, XmcOptimizer, XmcTraining,
};

use crate::{Error, Result};
use layers::Layers;
use serde::{Deserialize, Serialize};
use settings::{NAME, Setting};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A configuration in which every key has a value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Folder that holds the data sets. Default `datasets`.
    pub dataset_path: PathBuf,
    /// Name of the run folder. Default: the data set's name and a number.
    #[serde(with = "optional")]
    pub log_fname: Option<String>,
    /// The data, the model and its training.
    pub dataset: Dataset,
    #[serde(skip)]
    warnings: Vec<String>,
}

/// Equal if they ask for the same run: how they came about, and so the warnings, does not count.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.dataset_path == other.dataset_path && self.log_fname == other.log_fname && self.dataset == other.dataset
    }
}

impl Config {
    /// The configuration that a `--config` file and `key=value` arguments ask for.
    ///
    /// # Errors
    /// - [`Error::Io`] if the file cannot be read;
    /// - [`Error::UnknownKey`] for a key that does not exist, with those nearest to it;
    /// - [`Error::Config`] if the file is not TOML, and for a value that is of the wrong type, out of range or not
    ///   available in this version, with the place where it was set.
    pub fn load(file: Option<&Path>, arguments: &[String]) -> Result<Self> {
        let in_file = match file {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
                settings::from_toml(&text, &path.display().to_string())?
            }
            None => Vec::new(),
        };
        let in_arguments = arguments
            .iter()
            .map(|argument| settings::from_argument(argument))
            .collect::<Result<Vec<_>>>()?;

        let name = data_set(&in_file, &in_arguments)?;
        let mut layers = Layers::new();
        if let Some(preset) = presets::preset(&name) {
            let place = format!("config/dataset/{name}.toml");
            for setting in settings::from_toml(preset, &place)? {
                layers.set(setting, false)?;
            }
        }
        for setting in in_file.into_iter().chain(in_arguments) {
            layers.set(setting, true)?;
        }
        layers.finish()
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote; `origin` is what messages call it, as the path of the file.
    ///
    /// No preset is consulted: a run stays what it was when presets change. A key that an earlier version did not
    /// have yet gets its default.
    ///
    /// # Errors
    /// As [`load`](Self::load), without reading a file.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self> {
        let mut layers = Layers::new();
        for setting in settings::from_toml(text, origin)? {
            layers.set(setting, false)?;
        }
        layers.finish()
    }

    /// Every key with its value, to be read by [`from_toml`](Self::from_toml).
    ///
    /// # Panics
    /// If `dataset_path` is not UTF-8 or a number exceeds `i64`, which TOML cannot hold. Neither comes from
    /// [`load`](Self::load).
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration fits TOML")
    }

    /// Folder of the data set's files: `dataset_path` / `folder`, or the data set's name where there is no `folder`.
    pub fn data_dir(&self) -> PathBuf {
        let data = &self.dataset.data;
        self.dataset_path.join(data.folder.as_ref().unwrap_or(&data.dataset))
    }

    /// One line for every key that was set and has no effect, with the reason.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The name of the data set: the last one given, in the file or after it on the command line.
///
/// A name without a preset must stand in the file, next to what else is to be said of a data set of one's own. On the
/// command line it is more likely a typo, and training on defaults is not what was meant.
fn data_set(in_file: &[Setting], in_arguments: &[Setting]) -> Result<String> {
    let last = |settings: &[Setting], key: &str| {
        let setting = settings.iter().rev().find(|setting| setting.key == key)?;
        setting.text().map(str::to_owned)
    };
    let own = last(in_file, NAME);
    let Some(name) = last(in_arguments, NAME) else {
        return Ok(own.unwrap_or_else(|| presets::FIRST.to_owned()));
    };
    if own.as_ref() == Some(&name) || presets::preset(&name).is_some() {
        return Ok(name);
    }
    let root = last(in_arguments, "dataset_path").or_else(|| last(in_file, "dataset_path"));
    let folder = Path::new(root.as_deref().unwrap_or("datasets")).join(&name);
    let hint = if validate::is_name(&name) && folder.is_dir() {
        format!(
            "{} is no preset; to train on it, put these two lines into a file and give it with --config:\n    \
             [dataset.data]\n    dataset = {name:?}",
            folder.display()
        )
    } else {
        keys::did_you_mean(&keys::nearest(&name, presets()))
            .unwrap_or_else(|| "a data set of your own is named in a file, given with --config".into())
    };
    Err(Error::Config {
        origin: settings::COMMAND_LINE.into(),
        key: "dataset".into(),
        expected: format!("one of {}", presets().collect::<Vec<_>>().join(", ")),
        found: name,
        hint: Some(hint),
    })
}

#[cfg(test)]
mod tests;
