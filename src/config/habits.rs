//! What is typed by those who know other programs, and what to type here instead.

use super::keys::{KEYS, nearest};
use super::presets;
use std::path::Path;

/// Names that other programs have for a key, by its last part. A name that begins as this one does is meant too.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("learning_rate", "lr"),
    ("weight_decay", "wd"),
    ("warmup", "warmup_steps"),
    ("bs", "batch_size"),
    ("num_epochs", "epochs"),
    ("num_train_epochs", "epochs"),
    ("max_length", "max_len"),
    ("max_seq_length", "max_len"),
    ("data", "dataset_path"),
    ("data_dir", "dataset_path"),
    ("data_path", "dataset_path"),
    ("model", "encoder_model"),
    ("name", "log_fname"),
    ("run_name", "log_fname"),
    ("val_fraction", "validation_fraction"),
];

/// The setting that is meant by `typed`, which has no `=` or begins with `-`; `next` is the argument after it.
pub fn setting_meant(typed: &str, next: Option<&str>) -> Option<String> {
    let bare = typed.trim_start_matches('-');
    if bare.len() == typed.len() {
        return without_value(typed, next);
    }
    let (name, value) = match bare.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (bare, next.filter(|next| !next.starts_with('-') && !next.contains('='))),
    };
    let value = value.unwrap_or("VALUE");
    let settings: Vec<String> = keys_meant(name).iter().map(|key| format!("{key}={value}")).collect();
    (!settings.is_empty()).then(|| format!("settings are key=value: {}", settings.join(" or ")))
}

/// An argument that is neither a setting nor a flag.
fn without_value(typed: &str, next: Option<&str>) -> Option<String> {
    if presets::preset(typed).is_some() {
        return Some(format!("a data set is named with dataset={typed}"));
    }
    let path = Path::new(typed);
    if path.extension().is_some_and(|extension| extension == "toml") || path.is_file() {
        return Some(format!("a file with settings is given with --config {typed}"));
    }
    let is_key = typed == "dataset" || KEYS.iter().any(|key| key.name == typed);
    if is_key {
        let value = next.filter(|next| *next != "=").unwrap_or("VALUE");
        return Some(format!("write it as one argument, without spaces: {typed}={value}"));
    }
    let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
    path.is_dir().then(|| match folder.as_os_str().is_empty() {
        true => format!("a data set is named with dataset_path=. dataset={name}"),
        false => format!("a data set is named with dataset_path={} dataset={name}", folder.display()),
    })
}

/// The keys whose name, or the last part of it, is this one or close to it.
fn keys_meant(name: &str) -> Vec<&'static str> {
    let name = name.replace('-', "_");
    if name == "dataset" {
        return vec!["dataset"];
    }
    let plain = name.to_lowercase();
    let ours = OTHER_NAMES.iter().find(|(other, _)| *other == plain);
    let name = ours.map_or(name.as_str(), |(_, ours)| ours);
    let names = || KEYS.iter().map(|key| key.name);
    let exact: Vec<_> = names().filter(|key| *key == name || key.rsplit('.').next() == Some(name)).take(3).collect();
    match exact.is_empty() {
        true => nearest(name, names()),
        false => exact,
    }
}

/// What to type instead of `key=value`, where `key` is no key but an argument of the program.
pub(super) fn argument_meant(key: &str, value: &str) -> Option<String> {
    match key.trim_start_matches('-').replace('_', "-").as_str() {
        name @ ("config" | "runs" | "device") => Some(format!("this is an argument of the program: --{name} {value}")),
        "no-tui" => Some("this is an argument of the program: --no-tui".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_programs_call_a_setting_is_found() {
        for (typed, next, meant) in [
            ("--seed", Some("1"), "settings are key=value: dataset.training.seed=1"),
            ("--epochs=3", None, "settings are key=value: dataset.training.epochs=3"),
            ("--batch-size", Some("64"), "settings are key=value: dataset.data.batch_size=64"),
            (
                "--lr",
                Some("0.1"),
                "settings are key=value: dataset.training.encoder.lr=0.1 or dataset.training.xmc.lr=0.1",
            ),
            ("--epoch", Some("--lr"), "settings are key=value: dataset.training.epochs=VALUE"),
            ("--dataset", Some("food"), "settings are key=value: dataset=food"),
            ("-seed", Some("1"), "settings are key=value: dataset.training.seed=1"),
            ("--data-dir", Some("x"), "settings are key=value: dataset_path=x"),
            ("my.toml", None, "a file with settings is given with --config my.toml"),
            ("food", None, "a data set is named with dataset=food"),
            ("dataset.training.seed", Some("1"), "write it as one argument, without spaces: dataset.training.seed=1"),
        ] {
            assert_eq!(setting_meant(typed, next).as_deref(), Some(meant));
        }
        assert_eq!(setting_meant("--qqqqqq", Some("1")), None);
    }
}
