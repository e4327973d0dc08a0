//! `elmo evaluate`

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::ValueEnum;

use super::{Checkpoint, whole_number};
use crate::{
    config::{Config, Protocol, presets},
    error::Error,
    eval::{GroupMetrics, Metrics},
    evaluate::{self, Changes, Request},
    run::RunFolder,
    setup,
};

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "elmo evaluate [OPTIONS] <RUN>\n       elmo evaluate [OPTIONS] --predictions <FILE> --data <DIR>"
)]
pub struct Arguments {
    /// A run folder, such as runs/things-1.
    #[arg(value_name = "RUN", required_unless_present = "predictions", conflicts_with = "predictions")]
    run: Option<PathBuf>,
    /// Which of its checkpoints.
    #[arg(long, value_enum, default_value_t, conflicts_with = "predictions")]
    checkpoint: Checkpoint,
    /// The folder with the data sets, if it has moved since the training.
    #[arg(long, value_name = "DIR", conflicts_with = "predictions")]
    dataset_path: Option<PathBuf>,
    /// The folder of a data set: evaluate on the test rows in it. Label ids are those that the run was trained with.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Score these predictions of any system instead of a run's: a matrix of test rows and label ids with scores, from
    /// scipy.sparse.save_npz in CSR, or as sparse text: `ROWS COLUMNS`, then a line a row of `label:score`.
    #[arg(long, value_name = "FILE", requires = "data")]
    predictions: Option<PathBuf>,
    /// With --predictions: the preset whose settings say how the data set is read; by default the one of the folder's
    /// name.
    #[arg(long, value_name = "NAME", requires = "predictions")]
    dataset: Option<String>,
    /// The k of the metrics, as 1,3,5,100. Those of the run by default; P@1 to P@5 are in --json anyway.
    #[arg(long, value_name = "K,...", value_delimiter = ',', value_parser = whole_number::<usize>(1..=65_535))]
    k: Option<Vec<usize>>,
    /// The propensity constants A,B of the data set, as 0.55,1.5.
    #[arg(long, value_name = "A,B", value_parser = constants)]
    propensity: Option<(f64, f64)>,
    /// Which training rows the propensities are of.
    #[arg(long, value_enum)]
    protocol: Option<ProtocolName>,
    /// Print one JSON object with every metric, in percent, and the epoch.
    #[arg(long)]
    json: bool,
}

/// Which training rows propensities are of.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolName {
    /// Those of the training file, as the literature has it.
    Published,
    /// Those that the original ELMO trains on: with label titles, where the data set's settings have them as rows.
    Reference,
}

fn constants(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|number: &f64| *number > 0.0 && *number <= 100.0);
    let both = text.split_once(',').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    both.ok_or_else(|| "expected two numbers above 0, at most 100, as 0.55,1.5".into())
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    super::start_log();
    let changes = Changes {
        ks: arguments.k,
        constants: arguments.propensity,
        protocol: arguments.protocol.map(|name| match name {
            ProtocolName::Published => Protocol::Published,
            ProtocolName::Reference => Protocol::Reference,
        }),
    };
    let watch = super::progress::printed();
    let (metrics, json, last) = match (&arguments.predictions, &arguments.run, &arguments.data) {
        (Some(predictions), _, Some(data)) => {
            let mut config = config_of(data, arguments.dataset)?;
            changes.apply(&mut config.dataset.training.evaluation);
            let source = setup::source(&config, data);
            let evaluation = &config.dataset.training.evaluation;
            let metrics = evaluate::evaluate_predictions(predictions, &source, evaluation, &watch)?;
            let last = format!("test {}", super::train::metrics_line(&metrics));
            (metrics.clone(), metrics.to_json(), last)
        }
        (_, run, data) => {
            let folder = RunFolder::open(run.as_deref().unwrap_or(Path::new(".")))?;
            let dataset_path = arguments.dataset_path.as_deref();
            let request = Request { device, dataset_path, data: data.as_deref(), changes };
            let evaluation = evaluate::evaluate(&folder, arguments.checkpoint.into(), &request, &watch)?;
            let (json, last) = (evaluation.to_json(), super::train::test_line(&evaluation));
            (evaluation.metrics, json, last)
        }
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{json}")?;
    } else {
        write!(out, "{}", table(&metrics))?;
        writeln!(out, "{last}")?;
    }
    Ok(())
}

/// The settings of the preset `name`, or of the one that the folder `data` has the name of; else the defaults.
fn config_of(data: &Path, name: Option<String>) -> Result<Config> {
    let folder = data.canonicalize().map_err(Error::io("read", data))?;
    let name = name.or_else(|| {
        let name = folder.file_name()?.to_str()?;
        let preset = presets().find(|preset| name.eq_ignore_ascii_case(preset)).map(str::to_owned);
        Some(preset.unwrap_or_else(|| {
            tracing::warn!(
                "no preset for {}: default settings, also of propensities; --dataset names one",
                data.display()
            );
            name.to_owned()
        }))
    });
    let mut settings: Vec<String> = name.iter().map(|name| format!("dataset={name}")).collect();
    settings.extend(folder.parent().and_then(Path::to_str).map(|parent| format!("dataset_path={parent}")));
    Ok(Config::load(None, &settings)?.0)
}

/// All metrics at the k that are shown, in percent, a line each; then the most usual ones by label frequency.
fn table(metrics: &Metrics) -> String {
    let cutoffs = &metrics.cutoffs;
    let line = |name: String, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>8}")).collect();
        format!("{name:<13}{cells}\n")
    };
    let mut text = line(format!("{} rows", metrics.rows), cutoffs.shown().iter().map(|k| format!("@{k}")).collect());
    let percent = |metrics: &Metrics, values: &[f64]| {
        let all = metrics.cutoffs.all().iter().zip(values);
        all.filter(|(k, _)| cutoffs.shown().contains(k)).map(|(_, value)| format!("{:.2}", 100.0 * value)).collect()
    };
    for (name, values) in metrics.lists() {
        text += &line(name.to_owned(), percent(metrics, values));
    }
    for GroupMetrics { group, metrics, .. } in &metrics.by_frequency {
        for (name, values) in [("P", &metrics.precision), ("R", &metrics.recall)] {
            text += &line(format!("{group:<6}{name}"), percent(metrics, values));
        }
    }
    let least: Vec<String> = (metrics.by_frequency.iter())
        .map(|of| match of.least {
            0 => format!("{} rarer, of {} rows", of.group, of.metrics.rows),
            least => format!("{} labels of {least} training rows or more, of {} rows", of.group, of.metrics.rows),
        })
        .collect();
    if !least.is_empty() {
        text += &format!("{}\n", least.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propensity_constants_are_two_numbers() {
        assert_eq!(constants("0.5, 0.4"), Ok((0.5, 0.4)));
        for text in ["", "0.5", "0,1", "a,1", "0.5,0.4,0.3", "nan,1"] {
            assert!(constants(text).is_err(), "{text}");
        }
    }
}
