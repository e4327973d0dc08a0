//! `elmo predict`

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Args;

use super::Run;
use crate::{
    checkpoint::RunFolder,
    error::{Error, Place},
    evaluate::Trained,
    predict::{Prediction, predict},
};

/// Texts that are read, tokenised and answered together.
const TEXTS_AT_ONCE: usize = 4096;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("texts").required(true).args(["text", "input"]))]
pub struct Arguments {
    #[command(flatten)]
    run: Run,
    /// Texts to label; - reads them from standard input, one a line.
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
    /// A file with one text a line; - for standard input. Answers in JSON lines.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Labels a text.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top_k: u16,
    /// Write JSON lines to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    super::log_to(None);
    let folder = RunFolder::open(&arguments.run.folder)?;
    let from_stdin = arguments.text == ["-"];
    let input = match &arguments.input {
        Some(path) => Some(path.clone()),
        None => from_stdin.then(|| PathBuf::from("-")),
    };
    // Before the model is loaded: a file that cannot be read or written is found out at once.
    let reader = input.as_deref().map(open).transpose()?;
    let mut sink: Box<dyn Write> = match &arguments.output {
        Some(path) => {
            let file = File::create_new(path).map_err(Error::io("create", path))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let trained = Trained::load(&folder, arguments.run.checkpoint.into(), device)?;
    let k = arguments.top_k as usize;

    match (reader, &input) {
        (Some(reader), Some(path)) => {
            let mut lines = reader.lines().enumerate();
            loop {
                let mut texts = Vec::new();
                for (number, line) in lines.by_ref().take(TEXTS_AT_ONCE) {
                    let number = number + 1;
                    let line = line.map_err(|error| unreadable(path, number, error))?;
                    if line.trim().is_empty() {
                        tracing::warn!("{}: no text, so no labels", Place::line(path, number));
                    }
                    texts.push(line);
                }
                if texts.is_empty() {
                    break;
                }
                write_json(&mut sink, &predict(&trained, &texts, k)?)?;
            }
        }
        _ => {
            if let Some(at) = arguments
                .text
                .iter()
                .position(|text| text.trim().is_empty())
            {
                return Err(Error::Config {
                    origin: "command line".into(),
                    key: format!("TEXT {}", at + 1),
                    expected: "some words".into(),
                    found: "an empty text".into(),
                    hint: Some("quote a text that has spaces; --input reads a file".into()),
                }
                .into());
            }
            let predictions = predict(&trained, &arguments.text, k)?;
            match arguments.output {
                Some(_) => write_json(&mut sink, &predictions)?,
                None => write_text(&mut sink, &predictions)?,
            }
        }
    }
    sink.flush()?;
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    Ok(Box::new(BufReader::new(file)))
}

fn unreadable(path: &Path, line: usize, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::InvalidData {
        return Error::Data {
            place: Place::line(path, line),
            expected: "text in UTF-8".into(),
            found: "other bytes".into(),
            hint: None,
        };
    }
    Error::io("read", path)(error)
}

fn write_json(sink: &mut dyn Write, predictions: &[Prediction]) -> Result<()> {
    for prediction in predictions {
        serde_json::to_writer(&mut *sink, prediction).map_err(io::Error::from)?;
        writeln!(sink)?;
    }
    Ok(())
}

fn write_text(sink: &mut dyn Write, predictions: &[Prediction]) -> Result<()> {
    for prediction in predictions {
        if predictions.len() > 1 {
            writeln!(sink, "{}", prediction.text)?;
        }
        for label in &prediction.labels {
            writeln!(sink, "{:6.4}  {}", label.score, label.title)?;
        }
    }
    Ok(())
}
