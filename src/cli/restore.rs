//! `offpeak restore`: a data directory of a backup.

use std::{fs::File, io, path::PathBuf, process::ExitCode};

use super::{DataDir, Failure, say::say};
use crate::store;

#[derive(clap::Args)]
pub struct Args {
    /// The backup; `-` reads it from standard input.
    file: PathBuf,
    #[command(flatten)]
    to: DataDir,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let dir = args.to.settings()?.data_dir;
    let end = match args.file.as_os_str() == "-" {
        true => store::restore(&dir, io::stdin().lock()),
        false => {
            let file = File::open(&args.file)
                .map_err(|error| Failure::Other(format!("{}: {error}", args.file.display())))?;
            store::restore(&dir, file)
        }
    };
    let end = end.map_err(|error| Failure::Other(error.to_string()))?;
    say(format_args!(
        "restored {} records, and {} changes that came while they were read, into {}. Start the server with the master key of \
         the one that was backed up: with another, or without one, it does not start.",
        end.pairs,
        end.commits,
        dir.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
