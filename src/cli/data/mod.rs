//! `elmo data`

mod inspect;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Count what is in a data set, draw how often its labels occur, and list every fault of its files.
    Inspect(inspect::Arguments),
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Inspect(arguments) => inspect::run(arguments),
    }
}
