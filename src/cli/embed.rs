//! `elmo embed`

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{
    Run,
    input::Lines,
    output::{Output, refuse_same},
    predict::{Job, TEXTS_AT_ONCE, WARNINGS, progress, why_empty},
    wrong_argument,
};
use crate::{
    embed::{self, Numbers},
    error::Error,
    run::RunFolder,
    trained::Trained,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: Run,
    /// A file with one text a line, plain or gzipped; - for standard input. A line without a word, or that is not
    /// UTF-8, has an embedding of zeros and is warned of.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The array to write, a row a line of the input: a new file, which is there once it is complete.
    #[arg(long, value_name = "FILE.npy")]
    output: PathBuf,
    /// How its numbers are stored.
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
}

/// Types of numbers.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Dtype {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes.
    F16,
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    super::start_log();
    let folder = RunFolder::open(&arguments.run.folder)?;
    refuse_same(&arguments.input, &arguments.output)?;
    let lines = Lines::open(&arguments.input)?;
    let mut output = open(&arguments.output)?;
    let job = Arc::new(Job::default());
    let _progress = progress(Some(&lines), job.clone(), false);
    let trained = Trained::load(&folder, arguments.run.checkpoint.into(), device)?;
    job.loaded.store(true, Ordering::Relaxed);

    let numbers = match arguments.dtype {
        Dtype::F32 => Numbers::F32,
        Dtype::F16 => Numbers::F16,
    };
    let dim = embed::dim(&trained);
    // How many rows there are is known when they have been written.
    output.write(|sink| sink.write_all(&numbers.header(0, dim)))?;
    let rows = write_rows(lines, &trained, numbers, &mut output, &job)?;
    output.replace_start(&numbers.header(rows, dim))?;
    output.finish()
}

/// A file: the number of rows stands at its beginning.
fn open(path: &Path) -> Result<Output> {
    let refused = |found: &str| {
        let hint = "the number of rows is written at the beginning, when all of them are there";
        wrong_argument("--output", "a new file", found, hint)
    };
    if path == Path::new("-") {
        return Err(refused("standard output").into());
    }
    let output = Output::open(Some(path))?;
    match output.is_file() {
        true => Ok(output),
        false => Err(refused(&format!("{}, a device or a pipe", path.display())).into()),
    }
}

/// Embeds the lines; how many they are.
fn write_rows(mut lines: Lines, trained: &Trained, numbers: Numbers, output: &mut Output, job: &Job) -> Result<u64> {
    let zeros = vec![0.0; embed::dim(trained)];
    let (mut bytes, mut rows, mut empty) = (Vec::new(), 0, 0);
    loop {
        let batch = lines.next_batch(TEXTS_AT_ONCE)?;
        if batch.is_empty() {
            break;
        }
        job.busy.store(true, Ordering::Relaxed);
        let texts: Vec<String> = batch.iter().map(|line| line.text.clone()).collect();
        let embeddings = embed::embed(trained, &texts)?;
        bytes.clear();
        for (line, embedding) in batch.iter().zip(&embeddings) {
            let why = why_empty(line, embedding.is_none());
            if let Some(why) = &why {
                empty += 1;
                if empty <= WARNINGS {
                    tracing::warn!("{}: {why}, so its embedding is 0", lines.place(line.number));
                }
            }
            let row = embedding.as_ref().filter(|_| why.is_none()).unwrap_or(&zeros);
            numbers.put(row, &mut bytes).map_err(|value| Error::Data {
                place: lines.place(line.number),
                expected: "an embedding that f16 can hold, up to 65504".into(),
                found: value.to_string(),
                hint: Some("--dtype f32 holds it".into()),
            })?;
        }
        output.write(|sink| sink.write_all(&bytes))?;
        rows += batch.len() as u64;
        job.answered.store(rows, Ordering::Relaxed);
        job.busy.store(false, Ordering::Relaxed);
    }
    if empty > WARNINGS {
        tracing::warn!("{empty} lines in all have an embedding of 0");
    }
    Ok(rows)
}
