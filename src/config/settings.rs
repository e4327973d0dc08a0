//! What was typed, in a file or on the command line, as a list of settings: key, value, and where it stands.

use super::habits;
use crate::{Error, Result, data::text::CR_ALONE};
use serde::Deserialize;
use std::ops::Range;
use toml::{
    Spanned, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// The key that names the data set, and with it the preset.
pub(super) const NAME: &str = "dataset.data.dataset";

/// What messages call the place of an argument.
pub(super) const COMMAND_LINE: &str = "command line";

/// One key with its value, as typed.
pub(super) struct Setting {
    /// Full path, as `dataset.training.epochs`.
    pub key: String,
    /// The key as it was typed: `dataset` is short for `dataset.data.dataset`.
    pub typed: String,
    /// What the value may be, the likeliest first: the key's own type decides.
    pub candidates: Vec<Value>,
    /// The value as it was typed, for messages.
    pub found: String,
    /// Where it stands: `command line`, `my.toml:12`.
    pub origin: String,
}

impl Setting {
    /// The value, where it is to be read as a text.
    pub fn text(&self) -> Option<&str> {
        self.candidates.last().and_then(Value::as_str)
    }
}

/// The settings of a TOML text, which messages call `origin`.
///
/// # Errors
/// [`Error::Config`] with the line, if it is not TOML.
pub(super) fn from_toml(text: &str, origin: &str) -> Result<Vec<Setting>> {
    let at = |span: Range<usize>| format!("{origin}:{}", line(text, span.start));
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        // Lines that end in CR alone are one for everybody else.
        let shown = text.lines().nth(line(text, span.start) - 1).unwrap_or("").trim();
        let (found, hint) = not_toml(text).unwrap_or(("a syntax error", error.message()));
        Error::Config {
            key: shown.split('\r').next().unwrap_or("").to_owned(),
            origin: at(span),
            expected: "TOML".into(),
            found: found.into(),
            hint: Some(hint.into()),
        }
    })?;
    let mut settings = Vec::new();
    flatten("", table.into_inner(), &at, &mut settings);
    Ok(settings)
}

/// What a text that is no TOML looks like, and what to do about it.
fn not_toml(text: &str) -> Option<(&'static str, &'static str)> {
    const SETTINGS: &str = "settings are in TOML, a line each: dataset.training.epochs = 3";
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next()?;
    let is_yaml = |line: &str| line.split_once(':').is_some_and(|(name, _)| !name.contains(['=', '"', '\'', ' ', '[']));
    match first {
        _ if first.contains('\r') => Some(CR_ALONE),
        _ if first.starts_with('{') => Some(("what looks like JSON", SETTINGS)),
        _ if first == "---" || is_yaml(first) => Some(("what looks like YAML", SETTINGS)),
        _ => None,
    }
}

/// The settings that `key=value` arguments make. `dataset=NAME` is short for `dataset.data.dataset=NAME`.
///
/// # Errors
/// [`Error::Usage`] for one that is none.
pub(super) fn from_arguments(arguments: &[String]) -> Result<Vec<Setting>> {
    let next = arguments.iter().skip(1).map(|next| Some(next.as_str())).chain([None]);
    arguments.iter().zip(next).map(|(argument, next)| from_argument(argument, next)).collect()
}

fn from_argument(argument: &str, next: Option<&str>) -> Result<Setting> {
    let setting = argument.split_once('=').filter(|_| !argument.starts_with('-'));
    let (key, value) = setting.ok_or_else(|| Error::Usage {
        argument: argument.into(),
        expected: "key=value".into(),
        found: if argument.starts_with('-') { "a flag" } else { "no `=`" }.into(),
        hint: habits::setting_meant(argument, next)
            .or_else(|| Some("for example dataset=food dataset.training.epochs=3".into())),
    })?;
    let mut candidates = Vec::new();
    match value {
        "true" | "True" => candidates.push(Value::Boolean(true)),
        "false" | "False" => candidates.push(Value::Boolean(false)),
        _ => {
            candidates.extend(value.parse().ok().map(Value::Integer));
            candidates.extend(value.parse().ok().map(Value::Float));
        }
    }
    // Last: a name may look like a number, but nothing that must be a number may be any text.
    candidates.push(Value::String(value.into()));
    Ok(Setting {
        key: if key == "dataset" { NAME } else { key }.to_owned(),
        typed: key.to_owned(),
        candidates,
        found: if value.is_empty() { "nothing" } else { value }.to_owned(),
        origin: COMMAND_LINE.into(),
    })
}

/// Turns nested tables into dotted keys. An empty table stays, so that its name gets checked too.
fn flatten(path: &str, table: DeTable<'_>, at: &impl Fn(Range<usize>) -> String, settings: &mut Vec<Setting>) {
    for (name, value) in table {
        let name_span = name.span();
        let name = name.into_inner();
        let key = if path.is_empty() { name.into_owned() } else { format!("{path}.{name}") };
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(&key, inner, at, settings),
            value => {
                let value = Value::deserialize(ValueDeserializer::from(Spanned::new(span, value)))
                    .expect("any parsed value is a value");
                settings.push(Setting {
                    typed: key.clone(),
                    key,
                    found: value.to_string(),
                    candidates: vec![value],
                    origin: at(name_span),
                });
            }
        }
    }
}

/// The line, from 1, of a byte of the text.
fn line(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_dotted_keys_with_lines() {
        let text = "log_fname = 'x'\n[dataset.training]\nepochs = 3\n\nencoder = { lr = 1e-3 }\n";
        let settings = from_toml(text, "my.toml").unwrap();
        let mut seen: Vec<_> = settings.iter().map(|s| (s.key.as_str(), s.origin.as_str())).collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                ("dataset.training.encoder.lr", "my.toml:5"),
                ("dataset.training.epochs", "my.toml:3"),
                ("log_fname", "my.toml:1"),
            ]
        );
    }

    #[test]
    fn bad_toml_names_the_line() {
        let error = from_toml("a = 1\nb = \n", "my.toml").err().unwrap();
        assert!(error.to_string().starts_with("my.toml:2: `b =`"), "{error}");
        let error = from_toml("a = 1\na = 2\n", "my.toml").err().unwrap();
        assert!(error.to_string().starts_with("my.toml:2:"), "{error}");
        for (text, part) in [
            ("{\"dataset\": \"food\"}\n", "found what looks like JSON\n  help: settings are in TOML"),
            ("# mine\ndataset:\n  training:\n    epochs: 3\n", "found what looks like YAML\n  help: settings"),
            ("a = 1\rb = 2\r", "my.toml:1: `a = 1`: expected TOML, found lines that end in CR alone\n  help: `tr"),
        ] {
            let error = from_toml(text, "my.toml").err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn only_the_first_equals_sign_separates() {
        let setting = from_argument("log_fname=a=b", None).unwrap();
        assert_eq!((setting.key.as_str(), setting.text()), ("log_fname", Some("a=b")));
    }
}
