//! Layers of settings, one over the other: which value a key has, and where it got it.

use super::{
    Config, habits, ignored,
    keys::{self, KEYS, Key},
    presets,
    settings::{COMMAND_LINE, Setting},
};
use crate::{Error, Result};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// The settings made so far.
pub(super) struct Layers {
    /// A value for every key, in nested tables.
    table: Table,
    /// How a key was set, if not by the default.
    origins: BTreeMap<&'static str, Origin>,
    /// One line for every key that was set and means nothing here.
    pub warnings: Vec<String>,
}

struct Origin {
    place: String,
    /// The key and the value as they were typed.
    typed: String,
    found: String,
    by_user: bool,
}

impl Layers {
    /// The built-in default.
    pub fn new() -> Self {
        Self {
            table: presets::DEFAULT.parse().expect("the built-in default is TOML"),
            origins: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Lays a setting over those made before. `by_user`: not by a preset. Its range is not looked at yet, as a later
    /// setting may replace it.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] and, for a value of the wrong type, [`Error::Config`].
    pub fn set(&mut self, setting: Setting, by_user: bool) -> Result<()> {
        if let Some(why) = ignored::reason(&setting.key) {
            self.warnings.push(format!("{}: `{}` has no effect: {why}", setting.origin, setting.typed));
            return Ok(());
        }
        let Some(key) = Key::named(&setting.key) else {
            return not_a_key(setting);
        };
        let value = key.typed(&setting.candidates);
        let Setting { origin: place, typed, found, .. } = setting;
        self.origins.insert(key.name, Origin { place, typed, found, by_user });
        match value {
            Some(value) => *slot(&mut self.table, key.name) = value,
            None => return Err(self.refused(key)),
        }
        Ok(())
    }

    /// The error for a key whose value is none that it may have.
    pub fn refused(&self, key: &Key) -> Error {
        let found = self.found(key.name);
        let hint = key.help(&found);
        self.error(key.name, key.name, key.to_string(), hint)
    }

    /// The error for the value of `key`, made where `place`, also a key, was set.
    pub fn error(&self, key: &str, place: &str, expected: String, hint: Option<String>) -> Error {
        Error::Config {
            origin: self.origin(place),
            key: self.origins.get(key).map_or(key, |origin| &origin.typed).to_owned(),
            expected,
            found: self.found(key),
            hint,
        }
    }

    /// The configuration.
    ///
    /// # Panics
    /// If a value is none that its key may have.
    pub fn config(&self) -> Config {
        let table = self.table.clone();
        table.try_into().expect("every key has a value that it may have")
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> &Value {
        let mut parts = key.split('.');
        let first = &self.table[parts.next().unwrap_or(key)];
        parts.fold(first, |section, part| &section[part])
    }

    /// The value of a key, as it was typed.
    fn found(&self, key: &str) -> String {
        let typed = self.origins.get(key).map(|origin| origin.found.clone());
        typed.unwrap_or_else(|| self.value(key).to_string())
    }

    /// Where a key got its value.
    pub fn origin(&self, key: &str) -> String {
        let origin = self.origins.get(key);
        origin.map_or("config/default.toml", |origin| &origin.place).to_owned()
    }

    /// Whether a key got its value from anything but the default.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Whether the user set the key, in a file or on the command line.
    pub fn by_user(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| origin.by_user)
    }
}

/// What to say of something that is no key: it may be a section, or a typo.
fn not_a_key(setting: Setting) -> Result<()> {
    let Setting { key, candidates, found, origin, typed } = setting;
    let all = || KEYS.iter().map(|key| key.name).chain(ignored::names());
    let is_section = all().any(|known| known.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.')));
    if !is_section {
        // `dataset` is a key of its own only on the command line.
        let short = (origin == COMMAND_LINE).then_some("dataset");
        let hint = habits::argument_meant(&typed, &found)
            .or_else(|| keys::did_you_mean(&keys::nearest(&key, short.into_iter().chain(all()))))
            .unwrap_or_else(|| "config/default.toml lists every key".into());
        return Err(Error::UnknownKey { origin, key: typed, hint: Some(hint) });
    }
    if candidates.iter().all(Value::is_table) {
        return Ok(());
    }
    let hint = match key.as_str() {
        "dataset" => format!("to choose a data set: [dataset.data], and below it dataset = {found}"),
        _ => format!("set one of its keys, {key}.NAME"),
    };
    Err(Error::Config { origin, key: typed, expected: "a section".into(), found, hint: Some(hint) })
}

/// The place of a key that exists.
fn slot<'a>(table: &'a mut Table, key: &str) -> &'a mut Value {
    let Some((section, rest)) = key.split_once('.') else {
        return &mut table[key];
    };
    let section = table[section].as_table_mut();
    slot(section.expect("every part but the last names a section"), rest)
}
