//! Layers of settings, one over the other. After each setting the whole is a configuration with the right types, so
//! that an error always belongs to the setting that was made last.

use super::{Config, effect, keys, presets, settings, settings::Setting, validate};
use crate::{Error, Result};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// The settings made so far.
pub(super) struct Layers {
    /// A value for every key, in nested tables.
    table: Table,
    /// Every key.
    keys: Vec<String>,
    /// Where a key was set, if not by the default.
    origins: BTreeMap<String, Origin>,
    warnings: Vec<String>,
}

struct Origin {
    place: String,
    by_user: bool,
}

impl Layers {
    /// The built-in default.
    pub fn new() -> Self {
        let keys = settings::from_toml(presets::DEFAULT, "config/default.toml")
            .expect("the built-in default is TOML")
            .into_iter()
            .map(|setting| setting.key)
            .collect();
        Self {
            table: presets::DEFAULT.parse().expect("the built-in default is TOML"),
            keys,
            origins: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Lays a setting over those made before. `by_user`: not by a preset.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] and, for a value of the wrong type, [`Error::Config`].
    pub fn set(&mut self, setting: Setting, by_user: bool) -> Result<()> {
        let Setting {
            key,
            candidates,
            found,
            origin,
        } = setting;
        if let Some(why) = keys::ignored(&key) {
            self.warnings.push(format!("{origin}: `{key}` has no effect: {why}"));
            return Ok(());
        }
        if !self.knows(&key) {
            return self.not_a_key(key, &candidates, found, origin);
        }
        let mut mismatch = None;
        for candidate in candidates {
            let mut table = self.table.clone();
            *slot(&mut table, &key) = candidate;
            match table.clone().try_into::<Config>() {
                Ok(_) => {
                    self.table = table;
                    self.origins.insert(key, Origin { place: origin, by_user });
                    return Ok(());
                }
                Err(error) => mismatch = Some(error),
            }
        }
        let error = mismatch.expect("a setting has a value");
        Err(Error::Config {
            origin,
            expected: expected(error.message()),
            hint: value_hint(&key, &found),
            key,
            found,
        })
    }

    /// The configuration, once all layers are there.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is out of range, not available, or in conflict with another.
    pub fn finish(mut self) -> Result<Config> {
        let mut config: Config = self
            .table
            .clone()
            .try_into()
            .expect("types were checked with every setting");
        validate::validate(&config, &self)?;
        self.warnings.extend(effect::warnings(&config, &self));
        config.warnings = self.warnings;
        Ok(config)
    }

    /// Whether there is such a key.
    pub fn knows(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known == key)
    }

    /// The value of a key, as in TOML.
    pub fn value(&self, key: &str) -> String {
        slot(&mut self.table.clone(), key).to_string()
    }

    /// Where a key got its value.
    pub fn origin(&self, key: &str) -> String {
        self.origins
            .get(key)
            .map_or("config/default.toml", |origin| &origin.place)
            .to_owned()
    }

    /// Whether a key got its value from anything but the default.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Whether the user set the key, in a file or on the command line.
    pub fn by_user(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| origin.by_user)
    }

    /// What to say of something that is no key: it may be a section, or a typo.
    fn not_a_key(&self, key: String, candidates: &[Value], found: String, origin: String) -> Result<()> {
        let all = || {
            let ignored = keys::IGNORED.iter().map(|(key, _)| *key);
            self.keys.iter().map(String::as_str).chain(ignored)
        };
        let is_section = all().any(|known| known.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.')));
        if !is_section {
            // `dataset` is a key of its own only on the command line.
            let short = (origin == settings::COMMAND_LINE).then_some("dataset");
            let hint = keys::did_you_mean(&keys::nearest(&key, short.into_iter().chain(all())))
                .unwrap_or_else(|| "config/default.toml lists every key".into());
            return Err(Error::UnknownKey {
                origin,
                key,
                hint: Some(hint),
            });
        }
        if candidates.iter().all(Value::is_table) {
            return Ok(());
        }
        let hint = if key == "dataset" {
            format!("to choose a data set: [dataset.data], and below it dataset = {found}")
        } else {
            format!("set one of its keys, {key}.NAME")
        };
        Err(Error::Config {
            origin,
            key,
            expected: "a section".into(),
            found,
            hint: Some(hint),
        })
    }
}

/// The place of a key that exists.
fn slot<'a>(table: &'a mut Table, key: &str) -> &'a mut Value {
    let Some((section, rest)) = key.split_once('.') else {
        return &mut table[key];
    };
    let section = table[section]
        .as_table_mut()
        .expect("every part but the last names a section");
    slot(section, rest)
}

/// What was expected, out of serde's message, in words that do not ask for knowledge of Rust.
fn expected(message: &str) -> String {
    match message.rsplit_once(", expected ").map(|(_, what)| what) {
        Some("usize" | "u64") => "a whole number, 0 or more".into(),
        Some("f64") => "a number".into(),
        Some("a boolean") => "true or false".into(),
        Some("a string" | "path string") => "a text".into(),
        Some(what) => what.into(),
        None => message.into(),
    }
}

/// What to use instead of a value that the reference knows and this version does not.
fn value_hint(key: &str, found: &str) -> Option<String> {
    if key.ends_with(".dtype") && found.trim_matches('"') == "float16" {
        return Some("float16 is not available in this version; bfloat16 takes as much memory".into());
    }
    if key.ends_with(".lr_scheduler") {
        return Some("multi-step and plateau schedules are not available in this version".into());
    }
    None
}
