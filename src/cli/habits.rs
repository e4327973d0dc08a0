//! What to say to those who type what other programs take.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::{config, error::Error};

/// Names that other programs have for an argument, by command, and ours.
const MEANT: &[(&str, &[&str], &str)] = &[
    ("", &["cpu"], "the device is given with --device cpu"),
    ("", &["gpu", "cuda"], "the device is given with --device cuda"),
    ("train", &["c", "f", "file", "settings"], "a file with settings is given with --config FILE"),
    ("train", &["o", "out", "output", "output-dir", "save-dir"], "--runs DIR says where run folders are made"),
    ("train", &["resume", "checkpoint"], "a training starts anew; nothing is resumed in this version"),
    ("train", &["quiet", "q", "verbose", "v"], "--no-tui prints plain lines"),
    ("evaluate", &["data", "data-dir", "dataset", "datasets"], "--dataset-path DIR says where the data sets lie"),
    ("evaluate", &["output", "o", "format"], "--json prints every metric; `> FILE` keeps it"),
    ("predict", &["k", "top", "topk", "n"], "the number of labels is given with --top-k K"),
    ("predict", &["f", "i", "file", "in", "texts"], "a file with one text a line is given with --input FILE"),
    ("predict", &["o", "out", "json"], "--output FILE writes JSON lines; --input prints them"),
    ("predict", &["t", "text"], "texts follow the run folder: elmo predict RUN TEXT"),
    ("bench", &["dataset", "data", "name"], "sizes by name are given with --shape NAME"),
    ("bench", &["num-labels", "l"], "--labels N"),
    ("bench", &["batch-size", "b"], "--batch N"),
    ("bench", &["hidden-size", "features", "d"], "--dim N"),
    ("bench", &["top-k", "topk"], "--k K"),
    ("bench", &["iterations", "iters", "samples", "n"], "--steps N"),
    ("bench", &["dtype"], "--precision NAME says how weights are stored"),
    ("bench", &["output", "out", "o"], "--csv FILE"),
];

/// For evaluation and prediction, which take no settings.
const OF_THE_RUN: &str = "its settings are those that the run was trained with, in its config.toml";

/// An error of the arguments in our words, where these help more than the parser's.
pub fn explain(error: &clap::Error) -> Option<Error> {
    let argument = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    let Some(ContextValue::String(argument)) = error.get(argument) else {
        return None;
    };
    // A setting is no command that was typed wrongly, however near it is to one.
    if error.get(ContextKind::SuggestedSubcommand).is_some() && !argument.contains('=') {
        return None;
    }
    let typed: Vec<String> = std::env::args().skip(1).collect();
    explain_argument(argument, &typed, error.get(ContextKind::SuggestedArg).is_some())
}

/// `suggested`: the parser knows an argument of a like name.
fn explain_argument(argument: &str, typed: &[String], suggested: bool) -> Option<Error> {
    const COMMANDS: [&str; 5] = ["train", "evaluate", "predict", "data", "bench"];
    let command = typed.iter().find(|word| COMMANDS.contains(&word.as_str()));
    let command = command.map_or("", String::as_str);
    // With its value where it was typed as one word.
    let at = typed.iter().position(|word| word.split('=').next() == Some(argument) || word == argument);
    let (word, next) = match at {
        Some(at) => (typed[at].as_str(), typed.get(at + 1).map(String::as_str)),
        None => (argument, None),
    };
    let usage = |expected: &str, hint: String| Error::Usage {
        argument: word.into(),
        expected: expected.into(),
        found: if word.starts_with('-') { "a flag" } else { "something else" }.into(),
        hint: Some(hint),
    };
    let of_command = |expected: &str, hint: String| usage(&format!("{expected} of `elmo {command}`"), hint);
    let bare = word.trim_start_matches('-').split('=').next().unwrap_or(word).replace('_', "-").to_lowercase();
    let meant = MEANT.iter().find(|(of, names, _)| {
        let applies = of.is_empty() || *of == command;
        applies && word.starts_with('-') && names.contains(&bare.as_str())
    });
    if let (Some((_, _, hint)), false) = (meant, command.is_empty()) {
        return Some(of_command("an argument", (*hint).into()));
    }
    if suggested {
        return None;
    }
    let setting = || config::setting_meant(word, next);
    let is_setting = word.contains('=') || setting().is_some();
    match command {
        "" if word.contains('=') || setting().is_some() => {
            Some(usage("a command", format!("to train: elmo train {word}")))
        }
        "" if Path::new(word).join("config.toml").is_file() => {
            Some(usage("a command", format!("elmo evaluate {word}, or elmo predict {word} TEXT")))
        }
        "train" => {
            let hint =
                setting().unwrap_or_else(|| "settings are key=value; elmo train --help lists the arguments".into());
            Some(usage("key=value or an argument of `elmo train`", hint))
        }
        "evaluate" if word.trim_start_matches('-').replace('-', "_").starts_with("dataset_path=") => {
            let (_, folder) = word.split_once('=')?;
            Some(of_command("an argument", format!("--dataset-path {folder}")))
        }
        "evaluate" | "predict" if is_setting => Some(of_command("an argument", OF_THE_RUN.into())),
        "bench" if is_setting => Some(of_command(
            "an argument",
            "sizes are given as --shape NAME or --labels N --dim N --batch N; elmo bench --help lists the others"
                .into(),
        )),
        "" => Some(usage("a command", "the commands are train, evaluate, predict, data and bench".into())),
        _ => Some(of_command("an argument", format!("elmo {command} --help lists them"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_is_named() {
        for (line, part) in [
            ("train --seed 1", "settings are key=value: dataset.training.seed=1"),
            ("train --seed=1", "settings are key=value: dataset.training.seed=1"),
            ("train -c my.toml", "--config"),
            ("train -z", "elmo train --help"),
            ("train --gpu", "--device cuda"),
            ("--gpu train", "--device cuda"),
            ("evaluate run --batch-size 64", "config.toml"),
            ("evaluate run dataset_path=there", "--dataset-path there"),
            ("evaluate run dataset.data.max_len=3", "config.toml"),
            ("predict run --k 3", "--top-k"),
            ("predict run --seed 3", "config.toml"),
            ("bench --batch-size 64", "--batch N"),
            ("bench dataset=food", "--shape"),
            ("dataset=food", "elmo train dataset=food"),
            ("data inspect docs --qqqqq", "elmo data --help"),
            ("evaluate --qqqqq", "elmo evaluate --help"),
        ] {
            let typed: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let argument = typed.iter().rfind(|word| word.starts_with('-') || word.contains('=')).unwrap();
            let argument = match argument.starts_with('-') {
                true => argument.split('=').next().unwrap(),
                false => argument,
            };
            let error = explain_argument(argument, &typed, false).unwrap().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
