//! `elmo data inspect`

use std::{io::Write, path::PathBuf};

use anyhow::{Result, bail};

use crate::{
    cli::{formats, progress, with_format},
    config::Config,
    data::{self, Format, Source, TextTokenizer},
    setup,
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of the data set.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Settings of how it is read, such as dataset.data.label_column=NAME.
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The layout of its files, as dataset.data.format; the one that the folder has by default.
    #[arg(long, value_name = "NAME", value_parser = formats())]
    format: Option<Format>,
    /// Count tokens too: the folder of an encoder, or a tokenizer.json.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// How many faults are listed; all are counted.
    #[arg(long, value_name = "N", default_value_t = 20)]
    faults: usize,
}

pub fn run(arguments: Arguments) -> Result<()> {
    crate::cli::start_log();
    let settings = with_format(arguments.settings, arguments.format);
    let (config, warnings) = Config::load(None, &settings)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let tokenizer = arguments.tokenizer.as_deref().map(TextTokenizer::from_file).transpose()?;
    // The name decides whether the content is read, and is that of the folder, as for a training.
    let name = arguments.dir.canonicalize().unwrap_or_else(|_| arguments.dir.clone());
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    let source = Source {
        name: &name,
        augment_label_data: false,
        use_filter_eval: true,
        ..setup::source(&config, &arguments.dir)
    };
    let inspection = data::inspect(&source, tokenizer.as_ref(), arguments.faults, &progress::printed())?;
    writeln!(std::io::stdout(), "{inspection}")?;
    match inspection.fault_count {
        0 => Ok(()),
        1 => bail!("the data set has a fault, which is listed above\n  help: a training stops at it"),
        n => bail!(
            "the data set has {n} faults, of which the first are listed above\n  help: a training stops at the first"
        ),
    }
}
