//! `elmo train`

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;

#[cfg(feature = "tui")]
use std::io::{IsTerminal, stdout};

#[cfg(feature = "tui")]
use super::dashboard::Dashboard;
use super::{interrupt::on_interrupt, stop::Stop};
use crate::{
    config::Config,
    data::Format,
    error::Error,
    eval::Metrics,
    evaluate::Evaluation,
    train::{EpochEvent, Event, Options, Rows, Training},
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
    /// The layout of the data set's files, as dataset.data.format; the one that the folder has by default.
    #[arg(long, value_name = "NAME", value_parser = super::formats())]
    format: Option<Format>,
    /// Print plain lines, no dashboard. That is so anyway where the output is not a terminal.
    #[arg(long)]
    no_tui: bool,
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    let start = Instant::now();
    let settings = super::with_format(arguments.settings, arguments.format);
    let (config, warnings) = Config::load(arguments.config.as_deref(), &settings)?;
    let log = super::start_log();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let stop = Stop::default();
    let requested = stop.clone();
    on_interrupt(move || requested.request())?;
    let training = Training::prepare(
        config,
        Options { runs: arguments.runs, device: device.map(str::to_owned), watch: super::progress::printed() },
    )?;
    let folder = training.folder().clone();
    let path = folder.log_path();
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    log.continue_in(file).map_err(Error::io("write", &path))?;
    let summary = training.summary();
    super::say(&summary);
    tracing::info!("\n{summary}");
    stop.begin(training.interrupter(), folder.clone());

    #[cfg(feature = "tui")]
    let dashboard = match !arguments.no_tui && stdout().is_terminal() {
        // Plain lines where the terminal cannot be drawn on.
        true => Dashboard::start(folder.path().display().to_string(), stop.clone()).ok(),
        false => None,
    };
    #[cfg(feature = "tui")]
    let shown = dashboard.as_ref().map(Dashboard::shown);
    #[cfg(feature = "tui")]
    let shows_dashboard = shown.is_some();
    #[cfg(not(feature = "tui"))]
    let shows_dashboard = false;
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let warned = warnings.clone();
    let printed = Mutex::new(Instant::now());
    let first = Once::new();
    let result = training.run(Arc::new(move |event: &Event| {
        if let Event::Step(_) = event {
            // Reading data, building the model and, on a GPU, compiling its kernels.
            first.call_once(|| {
                tracing::info!("first step done {:.1} s after the start", start.elapsed().as_secs_f64());
            });
        }
        let line = match event {
            Event::Epoch(event) => Some(epoch_line(event)),
            Event::Warning(warning) => {
                match shows_dashboard {
                    // On standard error once the dashboard is gone.
                    true => lock(&warned).push(warning.clone()),
                    false => tracing::warn!("{warning}"),
                }
                shows_dashboard.then(|| format!("warning: {warning}"))
            }
            Event::Step(_) | Event::Ranked(_) => {
                let mut printed = lock(&printed);
                (printed.elapsed() >= PROGRESS_INTERVAL).then(|| {
                    *printed = Instant::now();
                    progress_line(event)
                })
            }
        };
        if let Some(line) = &line {
            tracing::info!("{line}");
            if !shows_dashboard {
                super::say(line);
            }
        }
        #[cfg(feature = "tui")]
        if let Some(shown) = &shown {
            shown.tell(event, line.as_deref());
        }
    }));
    #[cfg(feature = "tui")]
    drop(dashboard);
    for warning in lock(&warnings).iter() {
        super::complain(&format!("warning: {warning}"));
    }
    let line = test_line(&result?);
    tracing::info!("{line}");
    super::say(&line);
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last line of `train`, and the line of `evaluate`.
pub(super) fn test_line(evaluation: &Evaluation) -> String {
    format!("test {}  ({})", metrics_line(&evaluation.metrics), evaluation.checkpoint())
}

/// P@k and PSP@k at the k that are shown.
pub(super) fn metrics_line(metrics: &Metrics) -> String {
    let shown = metrics.cutoffs.shown();
    let joined = |texts: Vec<String>, by: &str| texts.join(by);
    let ks = joined(shown.iter().map(usize::to_string).collect(), "/");
    let at = |f: &dyn Fn(usize) -> f64| joined(shown.iter().map(|k| format!("{:.2}", 100.0 * f(*k))).collect(), " / ");
    let mut line = format!("P@{ks} {}", at(&|k| metrics.precision_at(k)));
    if metrics.psp.is_some() {
        let psp = at(&|k| metrics.psp_at(k).unwrap_or_default());
        line += &format!("  PSP@{ks} {psp}");
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
    let train = (event.train.as_ref()).map_or(String::new(), |metrics| format!("  train {}", metrics_line(metrics)));
    let memory =
        (event.device_bytes).map_or(String::new(), |bytes| format!("  {} on the device", crate::error::bytes(bytes)));
    format!(
        "epoch {}/{}  loss {}{valid}{test}{train}  {:.1} s ({rate:.0} rows/s){memory}",
        event.epoch,
        event.epochs,
        loss(event.loss),
        (event.training + event.validation).as_secs_f64(),
    )
}

fn progress_line(event: &Event) -> String {
    let left = |rows: usize, total: usize, elapsed: Duration| {
        let done = rows as f64 / total.max(1) as f64;
        (100.0 * done, elapsed.as_secs_f64() * (1.0 - done) / done.max(1e-9))
    };
    match event {
        Event::Step(step) => {
            let (percent, seconds) = left(step.rows, step.total_rows, step.elapsed);
            let loss = loss(step.loss);
            format!(
                "epoch {}/{}  {percent:3.0}%  loss {loss}  {seconds:.0} s left in this epoch",
                step.epoch, step.epochs
            )
        }
        Event::Ranked(ranked) => {
            let (percent, seconds) = left(ranked.rows, ranked.total_rows, ranked.elapsed);
            let what = match ranked.of {
                Rows::Validation => "validation",
                Rows::Test => "test",
                Rows::Training => "training rows",
            };
            format!("{what}  {percent:3.0}%  {seconds:.0} s left")
        }
        Event::Epoch(_) | Event::Warning(_) => String::new(),
    }
}
