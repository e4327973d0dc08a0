//! `elmo train`

use std::{
    fs::File,
    io::{IsTerminal, stdout},
    path::PathBuf,
    sync::{Arc, Mutex, Once},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::interrupt::on_interrupt;
use crate::{
    config::Config,
    error::Error,
    eval::{Metrics, REPORTED_K},
    train::{EpochEvent, Event, Options, StepEvent, Training},
};

/// A progress line this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Settings: dataset=NAME, dataset_path=DIR, log_fname=NAME, or any key such as dataset.training.epochs=3.
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// A TOML file with settings; KEY=VALUE arguments override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where run folders are made.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Print plain lines, no dashboard. That is so anyway where the output is not a terminal.
    #[arg(long)]
    no_tui: bool,
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    let start = Instant::now();
    let (config, warnings) = Config::load(arguments.config.as_deref(), &arguments.settings)?;
    let log = super::start_log();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let dashboard = cfg!(feature = "tui") && !arguments.no_tui && stdout().is_terminal();
    let training = Training::prepare(
        config,
        Options {
            runs: arguments.runs,
            device: device.map(str::to_owned),
            dashboard,
            watch: super::progress::printed(),
        },
    )?;
    let folder = training.folder().clone();
    let path = folder.log_path();
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    log.continue_in(file).map_err(Error::io("write", &path))?;
    let summary = training.summary();
    super::say(&summary);
    tracing::info!("\n{summary}");

    let interrupter = training.interrupter();
    on_interrupt(move || {
        if interrupter.should_stop() {
            // The second Ctrl-C: at once. Checkpoints are complete or not there.
            std::process::exit(1);
        }
        super::complain("stopping after this step (Ctrl-C again: at once)");
        interrupter.stop(Some("interrupted by the user"));
    })?;

    let printed = Mutex::new(Instant::now());
    let first = Once::new();
    let metrics = training.run(Arc::new(move |event: &Event| {
        let line = match event {
            Event::Epoch(event) => Some(epoch_line(event)),
            Event::Step(event) => {
                // Reading data, building the model and, on a GPU, compiling its kernels.
                first.call_once(|| {
                    tracing::info!("first step done {:.1} s after the start", start.elapsed().as_secs_f64());
                });
                let mut printed = printed.lock().unwrap_or_else(|e| e.into_inner());
                (printed.elapsed() >= PROGRESS_INTERVAL).then(|| {
                    *printed = Instant::now();
                    step_line(event)
                })
            }
        };
        if let Some(line) = line {
            tracing::info!("{line}");
            if !dashboard {
                super::say(&line);
            }
        }
    }))?;
    let line = test_line(&metrics);
    tracing::info!("{line}");
    super::say(&line);
    Ok(())
}

/// The last line of `train`, and the line of `evaluate`.
pub(super) fn test_line(metrics: &Metrics) -> String {
    format!("test {}", metrics_line(metrics))
}

fn metrics_line(metrics: &Metrics) -> String {
    let percent = |fraction: f64| format!("{:.2}", 100.0 * fraction);
    let at = |f: &dyn Fn(usize) -> f64| REPORTED_K.map(|k| percent(f(k))).join(" / ");
    let mut line = format!("P@1/3/5 {}", at(&|k| metrics.precision_at(k)));
    if metrics.psp.is_some() {
        let psp = at(&|k| metrics.psp_at(k).unwrap_or_default());
        line += &format!("  PSP@1/3/5 {psp}");
    }
    line
}

fn loss(loss: Option<f64>) -> String {
    loss.map_or_else(|| "-".into(), |loss| format!("{loss:.3}"))
}

fn epoch_line(event: &EpochEvent) -> String {
    let rate = event.rows as f64 / event.training.as_secs_f64().max(1e-9);
    let valid = (event.metrics.as_ref()).map_or(String::new(), |metrics| format!("  valid {}", metrics_line(metrics)));
    let test = (event.test.as_ref()).map_or(String::new(), |metrics| format!("  test {}", metrics_line(metrics)));
    let memory = (event.device_bytes).map_or(String::new(), |bytes| {
        format!("  {} on the device", crate::error::bytes(bytes))
    });
    format!(
        "epoch {}/{}  loss {}{valid}{test}  {:.1} s ({rate:.0} rows/s){memory}",
        event.epoch,
        event.epochs,
        loss(event.loss),
        (event.training + event.validation).as_secs_f64(),
    )
}

fn step_line(event: &StepEvent) -> String {
    let done = event.rows as f64 / event.total_rows.max(1) as f64;
    let left = event.elapsed.as_secs_f64() * (1.0 - done) / done.max(1e-9);
    format!(
        "epoch {}/{}  {:3.0}%  loss {}  {left:.0} s left in this epoch",
        event.epoch,
        event.epochs,
        100.0 * done,
        loss(event.loss),
    )
}
