//! `elmo data prepare`

use std::{path::PathBuf, time::Instant};

use anyhow::Result;

use crate::{
    cli::{formats, progress, say, with_format},
    config::Config,
    data::{Corpus, Format},
    run::cache_dir,
    setup,
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Settings, as `elmo train` takes them: those of the data set and of the tokenizer count.
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// A TOML file with settings; KEY=VALUE arguments override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where run folders will be made: the tokens are put into its `.cache`.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// The layout of the data set's files, as dataset.data.format; the one that the folder has by default.
    #[arg(long, value_name = "NAME", value_parser = formats())]
    format: Option<Format>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let start = Instant::now();
    crate::cli::start_log();
    let settings = with_format(arguments.settings, arguments.format);
    let (config, warnings) = Config::load(arguments.config.as_deref(), &settings)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    setup::check_encoder_folder(&config)?;
    let (dir, cache, watch) = (config.data_dir(), cache_dir(&arguments.runs), progress::printed());
    let source = setup::source(&config, &dir);
    let tokenizer = setup::tokenizer(&config, &source, Some(&cache), &watch)?;
    let corpus = Corpus::load(&source, &tokenizer, Some(&cache), &watch)?;
    say(&corpus.report.to_string());
    say(&format!("cache   {}, ready after {:.1} s", cache.display(), start.elapsed().as_secs_f64()));
    Ok(())
}
