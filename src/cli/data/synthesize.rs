//! `elmo data synthesize`

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;

use crate::{
    cli::{interrupt::on_interrupt, progress, say, whole_number},
    data::Synthesis,
    error::Error,
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder to make the data set in.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Training rows.
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>(1..=u32::MAX.into()))]
    rows: u32,
    /// Labels.
    #[arg(long, value_name = "L", value_parser = whole_number::<u32>(1..=i32::MAX as u64))]
    labels: u32,
    /// Test rows; a tenth of the training rows by default.
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>(1..=u32::MAX.into()))]
    test_rows: Option<u32>,
    /// Labels of a row, on average.
    #[arg(long, value_name = "X", default_value_t = 3.0, allow_negative_numbers = true)]
    labels_per_row: f64,
    /// Words of a row beside those of its labels, on average.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = whole_number::<u32>(0..=10_000))]
    words: u32,
    /// The power by which the frequency of labels falls with their rank; 0 makes them equal.
    #[arg(long, value_name = "X", default_value_t = 0.8, allow_negative_numbers = true)]
    exponent: f64,
    /// The same seed makes the same files.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { out, rows, labels, test_rows, labels_per_row, words, exponent, seed } = arguments;
    for (name, value, range) in [("--labels-per-row", labels_per_row, 1.0..=50.0), ("--exponent", exponent, 0.0..=5.0)]
    {
        if !range.contains(&value) {
            return Err(Error::Usage {
                argument: name.into(),
                expected: format!("a number from {} to {}", range.start(), range.end()),
                found: value.to_string(),
                hint: None,
            }
            .into());
        }
    }
    let test_rows = test_rows.unwrap_or((rows / 10).max(1));
    let synthesis = Synthesis { rows, test_rows, labels, labels_per_row, words, exponent, seed };
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = stopped.clone();
    on_interrupt(move || stop.store(true, Ordering::Relaxed))?;
    synthesis.write(&out, &progress::printed(), || !stopped.load(Ordering::Relaxed))?;
    say(&format!("{}: {rows} training rows, {test_rows} test rows, {labels} labels", out.display()));
    Ok(())
}
