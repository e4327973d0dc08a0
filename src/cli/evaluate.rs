//! `elmo evaluate`

use std::{io::Write, path::PathBuf};

use anyhow::Result;

use super::Run;
use crate::{evaluate, run::RunFolder};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    run: Run,
    /// The folder with the data sets, if it has moved since the training.
    #[arg(long, value_name = "DIR")]
    dataset_path: Option<PathBuf>,
    /// Print one JSON object with every metric, in percent, and the epoch.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, device: Option<&str>) -> Result<()> {
    super::start_log();
    let folder = RunFolder::open(&arguments.run.folder)?;
    let evaluation = evaluate::evaluate(
        &folder,
        arguments.run.checkpoint.into(),
        device,
        arguments.dataset_path.as_deref(),
        &super::progress::printed(),
    )?;
    let line = match arguments.json {
        true => evaluation.to_json().to_string(),
        false => super::train::test_line(&evaluation),
    };
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
