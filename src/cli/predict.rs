//! `elmo predict`

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Args;

use super::Run;
use crate::{
    error::{Error, Place},
    model::Trained,
    predict::{Prediction, predict},
    run::RunFolder,
};

/// Texts that are read, tokenised and answered together.
const TEXTS_AT_ONCE: usize = 4096;

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
    super::start_log();
    let folder = RunFolder::open(&arguments.run.folder)?;
    let from_stdin = arguments.text == ["-"];
    if !from_stdin && arguments.text.iter().any(|text| text == "-") {
        let hint = "give - alone, or put the texts into the file that standard input comes from";
        return Err(wrong_text("-", "texts, or - for standard input", "both", hint).into());
    }
    let input = match &arguments.input {
        Some(path) => Some(path.clone()),
        None => from_stdin.then(|| PathBuf::from("-")),
    };
    if let Some(at) = arguments.text.iter().position(|text| text.trim().is_empty()) {
        let key = format!("TEXT {}", at + 1);
        let hint = "quote a text that has spaces; --input reads a file";
        return Err(wrong_text(&key, "some words", "an empty text", hint).into());
    }
    // Before the model is loaded: a file that cannot be read or written is found out at once.
    let reader = input.as_deref().map(open).transpose()?;
    let mut output = Output::open(arguments.output.as_deref())?;
    let sink = &mut output.sink;
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
                write_json(sink, &predict(&trained, &texts, k)?)?;
            }
        }
        _ => {
            let predictions = predict(&trained, &arguments.text, k)?;
            match arguments.output {
                Some(_) => write_json(sink, &predictions)?,
                None => write_text(sink, &predictions)?,
            }
        }
    }
    output.finish()
}

fn wrong_text(key: &str, expected: &str, found: &str, hint: &str) -> Error {
    Error::Config {
        origin: "command line".into(),
        key: key.into(),
        expected: expected.into(),
        found: found.into(),
        hint: Some(hint.into()),
    }
}

/// Standard output, or a file that gets its name when it is complete.
struct Output {
    sink: Box<dyn Write>,
    /// The file while it is written, and its name.
    file: Option<(PathBuf, PathBuf)>,
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            let sink = Box::new(BufWriter::new(io::stdout().lock()));
            return Ok(Self { sink, file: None });
        };
        let special = path.exists() && !path.is_file() && !path.is_dir();
        if path.exists() && !special {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(Error::io("create", path)(exists).into());
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        // A device or a named pipe is written as it is.
        let (target, file) = match special {
            true => (path.to_owned(), None),
            false => {
                let part = PathBuf::from(part);
                (part.clone(), Some((part, path.to_owned())))
            }
        };
        let sink = File::create(&target).map_err(Error::io("create", &target))?;
        Ok(Self {
            sink: Box::new(BufWriter::new(sink)),
            file,
        })
    }

    fn finish(mut self) -> Result<()> {
        self.sink.flush()?;
        if let Some((part, path)) = self.file.take() {
            fs::rename(&part, &path).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((part, _)) = self.file.take() {
            // What went wrong before is what the user should read.
            let _ = fs::remove_file(part);
        }
    }
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
            writeln!(sink, "{:6.4}  {}  [{}]", label.score, label.title, label.id)?;
        }
    }
    Ok(())
}
