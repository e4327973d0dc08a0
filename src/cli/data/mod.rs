//! `elmo data`

mod inspect;
mod prepare;
mod synthesize;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Count what is in a data set, draw how often its labels occur, and list every fault of its files.
    Inspect(inspect::Arguments),
    /// Read and tokenise a data set ahead, so that a training starts at once.
    Prepare(prepare::Arguments),
    /// Make up a data set of any size, whose labels follow Zipf's law and can be learnt.
    Synthesize(synthesize::Arguments),
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Prepare(arguments) => prepare::run(arguments),
        Command::Synthesize(arguments) => synthesize::run(arguments),
    }
}
