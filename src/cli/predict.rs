//! `elmo predict`

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::Result;
use clap::Args;

use super::{
    Run,
    alive::Alive,
    complain,
    input::{Line, Lines},
    output::{Output, refuse_same},
    whole_number, wrong_argument,
};
use crate::{
    error::Error,
    predict::{Prediction, is_blank, predict},
    run::RunFolder,
    trained::Trained,
};

/// Texts that are read, tokenised and answered together.
pub(super) const TEXTS_AT_ONCE: usize = 4096;

/// Lines without an answer that are named one by one.
pub(super) const WARNINGS: usize = 100;

#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("texts").required(true).args(["text", "input"]),
    override_usage = "elmo predict [OPTIONS] <RUN> <TEXT>...\n       elmo predict [OPTIONS] <RUN> --input <FILE>"
)]
pub struct Arguments {
    #[command(flatten)]
    run: Run,
    /// Texts to label; - reads them from standard input, one a line.
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
    /// A file with one text a line, plain or gzipped; - for standard input. Answers in JSON lines, one for every line:
    /// a line without a word, or that is not UTF-8, has no labels and is warned of.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Labels a text, 1 to 65535.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = whole_number::<u16>(1..=65_535),
        allow_negative_numbers = true)]
    top_k: u16,
    /// Write JSON lines to this file, which must not exist; - for standard output. It is there once it is complete: if
    /// the input breaks off, with the answers so far; after Ctrl-C not at all.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    super::start_log();
    let folder = RunFolder::open(&arguments.run.folder)?;
    let input = input(&arguments)?;
    // Before the model is loaded: a file that cannot be read or written is found out at once.
    if let (Some(input), Some(output)) = (&arguments.input, &arguments.output) {
        refuse_same(input, output)?;
    }
    let lines = input.as_deref().map(Lines::open).transpose()?;
    let mut output = Output::open(arguments.output.as_deref())?;

    let job = Arc::new(Job::default());
    // Answers on a terminal are a sign of life themselves.
    let shows_answers = arguments.output.is_none() && io::stdout().is_terminal();
    let _progress = progress(lines.as_ref(), job.clone(), shows_answers);
    let trained = Trained::load(&folder, arguments.run.checkpoint.into(), device)?;
    job.loaded.store(true, Ordering::Relaxed);
    let k = arguments.top_k.into();

    let Some(lines) = lines else {
        let predictions = predict(&trained, &arguments.text, k)?;
        for (number, prediction) in predictions.iter().enumerate() {
            if prediction.labels.is_empty() {
                tracing::warn!("TEXT {}: no word that the model knows, so no labels", number + 1);
            }
        }
        output.write(|sink| match arguments.output {
            Some(_) => write_json(sink, &predictions),
            None => write_text(sink, &predictions),
        })?;
        return output.finish();
    };
    match answer(lines, &trained, k, &mut output, &job) {
        Ok(()) => output.finish(),
        Err(Stopped::Sink(error)) => Err(error),
        Err(Stopped::Source(error)) => {
            let done = job.answered.load(Ordering::Relaxed);
            if done > 0 {
                output.finish()?;
                if let Some(path) = arguments.output {
                    complain(&format!("the {done} answers so far are in {}", path.display()));
                }
            }
            Err(error.into())
        }
    }
}

/// Where lines of texts come from, if not from the arguments themselves.
fn input(arguments: &Arguments) -> Result<Option<PathBuf>> {
    let texts = &arguments.text;
    if let Some(path) = &arguments.input {
        return Ok(Some(path.clone()));
    }
    if texts[..] == ["-"] {
        return Ok(Some("-".into()));
    }
    if texts.iter().any(|text| text == "-") {
        let hint = "give - alone, or put the texts into the file that standard input comes from";
        return Err(wrong_argument("-", "texts, or - for standard input", "both", hint).into());
    }
    if let Some(at) = texts.iter().position(|text| is_blank(text)) {
        let hint = "quote a text that has spaces; --input reads a file";
        return Err(wrong_argument(&format!("TEXT {}", at + 1), "some words", "an empty text", hint).into());
    }
    for text in texts.iter().filter(|text| Path::new(text).is_file()) {
        tracing::warn!("`{text}` is a text here; the file of that name is read with --input {text}");
    }
    Ok(None)
}

/// How far a prediction is, for its signs of life.
#[derive(Default)]
pub(super) struct Job {
    pub loaded: AtomicBool,
    /// Texts are being answered; else the next ones are waited for.
    pub busy: AtomicBool,
    pub answered: AtomicU64,
}

/// Signs of life of a job, until what it returns is dropped.
pub(super) fn progress(lines: Option<&Lines>, job: Arc<Job>, shows_answers: bool) -> Alive {
    let share = lines.map(Lines::share_read);
    Alive::start(move |elapsed| {
        let seconds = elapsed.as_secs_f64();
        if !job.loaded.load(Ordering::Relaxed) {
            return Some(format!("reading the model, {seconds:.0} s so far"));
        }
        if shows_answers || !job.busy.load(Ordering::Relaxed) {
            return None;
        }
        let done = job.answered.load(Ordering::Relaxed);
        let share = share.as_ref().and_then(|share| share());
        let share = share.map_or(String::new(), |share| format!(", {:.0}% of the input read", 100.0 * share));
        Some(format!("{done} texts answered{share}, {:.0} texts/s", done as f64 / seconds))
    })
}

/// Why the answers end before the lines do.
enum Stopped {
    /// The input or the model.
    Source(Error),
    /// The output.
    Sink(anyhow::Error),
}

fn answer(mut lines: Lines, trained: &Trained, k: usize, output: &mut Output, job: &Job) -> Result<(), Stopped> {
    let mut unanswered = 0;
    let ended = loop {
        let batch = match lines.next_batch(TEXTS_AT_ONCE) {
            Ok(batch) if batch.is_empty() => break Ok(()),
            Ok(batch) => batch,
            Err(error) => break Err(Stopped::Source(error)),
        };
        job.busy.store(true, Ordering::Relaxed);
        let texts: Vec<String> = batch.iter().map(|line| line.text.clone()).collect();
        let mut predictions = match predict(trained, &texts, k) {
            Ok(predictions) => predictions,
            Err(error) => break Err(Stopped::Source(error)),
        };
        for (line, prediction) in batch.iter().zip(&mut predictions) {
            let Some(why) = why_unanswered(line, prediction) else {
                continue;
            };
            prediction.labels.clear();
            unanswered += 1;
            if unanswered <= WARNINGS {
                tracing::warn!("{}: {why}, so no labels", lines.place(line.number));
            }
        }
        output.write(|sink| write_json(sink, &predictions)).map_err(Stopped::Sink)?;
        job.answered.fetch_add(batch.len() as u64, Ordering::Relaxed);
        job.busy.store(false, Ordering::Relaxed);
    };
    if unanswered > WARNINGS {
        tracing::warn!("{} lines in all have no labels", unanswered);
    }
    ended
}

fn why_unanswered(line: &Line, prediction: &Prediction) -> Option<String> {
    why_empty(line, prediction.labels.is_empty())
}

/// Why nothing can be said of a line, if that is so; `unknown`: the model knows none of its words.
pub(super) fn why_empty(line: &Line, unknown: bool) -> Option<String> {
    match line.invalid {
        Some(column) => Some(format!("expected text in UTF-8, found another byte at column {column}")),
        None if is_blank(&line.text) => Some("no text".into()),
        None if unknown => Some("no word that the model knows".into()),
        None => None,
    }
}

fn write_json(sink: &mut dyn Write, predictions: &[Prediction]) -> io::Result<()> {
    for prediction in predictions {
        serde_json::to_writer(&mut *sink, prediction)?;
        writeln!(sink)?;
    }
    Ok(())
}

fn write_text(sink: &mut dyn Write, predictions: &[Prediction]) -> io::Result<()> {
    for prediction in predictions {
        if predictions.len() > 1 {
            writeln!(sink, "{}", on_one_line(&prediction.text))?;
        }
        for label in &prediction.labels {
            let name = label.name.as_ref().map_or(label.id.to_string(), |name| on_one_line(name));
            writeln!(sink, "{:6.4}  {}  [{name}]", label.score, on_one_line(&label.title))?;
        }
    }
    Ok(())
}

/// The text with its line ends and other control characters escaped.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_stays_on_its_line() {
        let title = "food\nand\tdrink\r\u{1b}[1m\u{85}\u{2028} Käse \\n";
        let line = "food\\nand\\tdrink\\r\\u{1b}[1m\\u{85}\\u{2028} Käse \\n";
        assert_eq!(on_one_line(title), line);
    }
}
