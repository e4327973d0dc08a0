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
//! A data set of one's own, `DIR/mine/{trn,tst,lbl}.json`, is named by `dataset_path=DIR dataset=mine`, or in a file:
//! ```toml
//! dataset_path = "DIR"
//! [dataset.data]
//! dataset = "mine"
//! [dataset.training]
//! epochs = 20
//! ```

mod dataset;
mod effect;
mod habits;
mod ignored;
mod keys;
mod layers;
mod model;
mod optional;
mod presets;
mod settings;
mod training;
mod validate;

pub use dataset::{Data, Dataset};
pub use habits::setting_meant;
pub use model::{Activations, Bottleneck, Encoder, Implementation, Model, Scratch, Xmc};
pub use presets::presets;
pub use training::{
    Course, EncoderOptimizer, EncoderTraining, Evaluation, Fp8, LossFn, Protocol, Schedule, Training, XmcOptimizer,
    XmcTraining,
};

use crate::{Error, Result, data::text::read_to_string};
use layers::Layers;
use serde::{Deserialize, Serialize};
use settings::{NAME, Setting};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A configuration in which every key has a value. Keys without a default of their own are `None` unless they are set;
/// all defaults stand in `config/default.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Folder that holds the data sets.
    pub dataset_path: PathBuf,
    /// Name of the run folder. `None`: the data set's name and a number.
    #[serde(with = "optional")]
    pub log_fname: Option<String>,
    /// The data, the model and its training.
    pub dataset: Dataset,
}

impl Config {
    /// The configuration that a `--config` file and `key=value` arguments ask for; and a warning for every key that was
    /// set and has no effect, with the reason.
    ///
    /// # Errors
    /// - [`Error::Io`] if the file cannot be read;
    /// - [`Error::UnknownKey`] for a key that does not exist, with those nearest to it;
    /// - [`Error::Usage`] for an argument that is no `key=value`;
    /// - [`Error::Config`] if the file is not TOML, and for a value that is of the wrong type, out of range or not
    ///   available in this version, with the place where it was set.
    pub fn load(file: Option<&Path>, arguments: &[String]) -> Result<(Self, Vec<String>)> {
        let in_file = match file {
            Some(path) => {
                let text = read_to_string(path)?;
                settings::from_toml(&text, &path.display().to_string())?
            }
            None => Vec::new(),
        };
        let in_arguments = settings::from_arguments(arguments)?;

        let mut layers = Layers::new();
        let name = data_set(&in_file, &in_arguments)?;
        if let Some(preset) = presets::preset(&name) {
            let place = format!("config/dataset/{name}.toml");
            for setting in settings::from_toml(preset, &place)? {
                layers.set(setting, false)?;
            }
        }
        for setting in in_file.into_iter().chain(in_arguments) {
            layers.set(setting, true)?;
        }
        Self::checked(layers)
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
        Ok(Self::checked(layers)?.0)
    }

    /// What the layers add up to, and its warnings.
    fn checked(mut layers: Layers) -> Result<(Self, Vec<String>)> {
        validate::ranges(&layers)?;
        let config = layers.config();
        validate::conflicts(&config, &layers)?;
        let mut warnings = std::mem::take(&mut layers.warnings);
        warnings.extend(effect::warnings(&config, &layers));
        Ok((config, warnings))
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
}

/// The name of the data set: the last one given, in the file or after it on the command line.
///
/// A name on the command line is that of a preset, of a folder that is there, or the one in the file. Any other is more
/// likely a typo, and training on defaults is not what was meant.
fn data_set(in_file: &[Setting], in_arguments: &[Setting]) -> Result<String> {
    let last = |key: &str| {
        let settings = in_arguments.iter().rev().chain(in_file.iter().rev());
        let mut settings = settings.filter(|setting| setting.key == key);
        settings.find_map(Setting::text)
    };
    let Some(typed) = in_arguments.iter().rfind(|setting| setting.key == NAME) else {
        return Ok(last(NAME).unwrap_or(presets::FIRST).to_owned());
    };
    let name = last(NAME).unwrap_or_default();
    let root = Path::new(last("dataset_path").unwrap_or("datasets"));
    let folder = last("dataset.data.folder").filter(|folder| !folder.eq_ignore_ascii_case(optional::NONE));
    if presets::preset(name).is_some()
        || root.join(folder.unwrap_or(name)).is_dir()
        || in_file.iter().any(|setting| setting.key == NAME && setting.text() == Some(name))
        // Refused where the ranges are checked.
        || !keys::is_name(name)
    {
        return Ok(name.to_owned());
    }
    let folders = fs::read_dir(root).into_iter().flatten().flatten();
    let known: Vec<String> = folders
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| keys::is_name(name) && presets::preset(name).is_none())
        .chain(presets().map(str::to_owned))
        .collect();
    Err(Error::Config {
        origin: settings::COMMAND_LINE.into(),
        key: typed.typed.clone(),
        expected: format!(
            "one of {}, or the name of a folder in {}",
            presets().collect::<Vec<_>>().join(", "),
            root.display()
        ),
        found: name.to_owned(),
        hint: keys::did_you_mean(&keys::nearest(name, known.iter().map(String::as_str))).or_else(|| {
            match root.ends_with(name) {
                true => {
                    let above = root.parent().filter(|above| !above.as_os_str().is_empty());
                    let above = above.unwrap_or(Path::new(".")).display();
                    Some(format!("dataset_path is the folder above it: dataset_path={above} dataset={name}"))
                }
                false => Some("dataset_path=DIR says in which folder the data sets lie".into()),
            }
        }),
    })
}

#[cfg(test)]
mod tests;
