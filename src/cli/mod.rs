//! The command line: arguments in, library calls, text out.

mod alive;
mod bench;
#[cfg(feature = "tui")]
mod dashboard;
mod data;
mod embed;
mod evaluate;
mod habits;
mod input;
mod interrupt;
mod output;
mod predict;
mod progress;
mod stop;
mod train;

use std::{
    fs::File,
    io::{IsTerminal, Write},
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::{
    Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{data::Format, error::Error, run::Which};

/// Trains extreme multi-label classifiers in 8 bits, evaluates them, and predicts with them.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where to compute: cpu, wgpu, vulkan, metal or cuda, with :n for the n-th (of wgpu and vulkan: the n-th discrete
    /// GPU). The best one of this build by default.
    #[arg(long, global = true, value_name = "NAME")]
    device: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model and evaluate it on test.
    Train(train::Arguments),
    /// Evaluate a trained model on the test rows of its data set.
    Evaluate(evaluate::Arguments),
    /// Find the labels of texts.
    Predict(predict::Arguments),
    /// Write the embeddings of texts into a NumPy array.
    Embed(embed::Arguments),
    /// Look at a data set, make one up, or read and tokenise one ahead.
    #[command(subcommand)]
    Data(data::Command),
    /// Measure the classifier alone: time and memory of its training step and of its search.
    Bench(bench::Arguments),
}

/// Which checkpoint of a run.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Checkpoint {
    /// The epoch with the highest P@1 on the validation rows.
    #[default]
    Best,
    /// The last finished epoch.
    Last,
}

impl From<Checkpoint> for Which {
    fn from(checkpoint: Checkpoint) -> Self {
        match checkpoint {
            Checkpoint::Best => Self::Best,
            Checkpoint::Last => Self::Last,
        }
    }
}

/// A run folder, as `elmo train` made it.
#[derive(Debug, clap::Args)]
struct Run {
    /// A run folder, such as runs/things-1.
    #[arg(value_name = "RUN")]
    folder: PathBuf,
    /// Which of its checkpoints.
    #[arg(long, value_enum, default_value_t)]
    checkpoint: Checkpoint,
}

/// Reads the name of a layout, for arguments.
fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).map(|name| {
        let format = Format::ALL.into_iter().find(|format| format.name() == name);
        format.expect("only names of layouts are let through")
    })
}

/// Settings with the layout that a flag names. The flag wins.
fn with_format(mut settings: Vec<String>, format: Option<Format>) -> Vec<String> {
    settings.extend(format.map(|format| format!("dataset.data.format={}", format.name())));
    settings
}

/// Reads a whole number within `range`, for arguments.
fn whole_number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            format!("expected a whole number from {least} to {most}")
        })
    }
}

/// The error for an argument that cannot be worked with.
fn wrong_argument(argument: &str, expected: &str, found: &str, hint: &str) -> Error {
    Error::Usage { argument: argument.into(), expected: expected.into(), found: found.into(), hint: Some(hint.into()) }
}

/// Runs the command that was typed. Exit codes: 0, 1 for a failure, 2 for a command typed or configured wrongly.
pub fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| match habits::explain(&error) {
        Some(explained) => {
            complain(&format!("error: {explained}"));
            std::process::exit(2);
        }
        None => error.exit(),
    });
    let device = arguments.device.as_deref();
    let result = match arguments.command {
        Command::Train(command) => train::run(command, device),
        Command::Evaluate(command) => evaluate::run(command, device),
        Command::Predict(command) => predict::run(command, device),
        Command::Embed(command) => embed::run(command, device),
        Command::Data(command) => data::run(command),
        Command::Bench(command) => bench::run(command, device),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Ours name their cause themselves; others need their chain.
            let (text, usage) = match error.downcast_ref::<Error>() {
                Some(error) => (error.to_string(), error.is_usage()),
                None => (format!("{error:#}"), false),
            };
            complain(&format!("error: {text}"));
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// `elmo predict ... | head` closes the pipe when it has seen enough: no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A line on standard output. A reader who has gone away must not end a training.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error, likewise.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What is logged before the run folder exists waits here for its `log.txt`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogTarget>>);

enum LogTarget {
    Waiting(Vec<u8>),
    File(File),
}

impl Default for LogTarget {
    fn default() -> Self {
        Self::Waiting(Vec::new())
    }
}

impl Log {
    /// Writes what has waited to `file`, and everything from now on.
    fn continue_in(&self, mut file: File) -> std::io::Result<()> {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let LogTarget::Waiting(waiting) = &*target {
            file.write_all(waiting)?;
        }
        *target = LogTarget::File(file);
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            LogTarget::Waiting(waiting) => waiting.write(bytes),
            LogTarget::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Warnings of the library go to standard error, and with everything worth a line to the log.
fn start_log() -> Log {
    use tracing_subscriber::{filter::LevelFilter, fmt, prelude::*};
    let log = Log::default();
    let console = fmt::layer()
        .without_time()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(only_ours(LevelFilter::WARN));
    let writer = log.clone();
    let file = fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || writer.clone())
        .with_filter(only_ours(LevelFilter::INFO));
    // Fails only where the program that embeds this library has set one already.
    let _ = tracing_subscriber::registry().with(console).with(file).try_init();
    log
}

/// Other crates' messages are not for users.
fn only_ours(level: tracing_subscriber::filter::LevelFilter) -> tracing_subscriber::filter::Targets {
    tracing_subscriber::filter::Targets::new().with_target("elmo", level)
}
