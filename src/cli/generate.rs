//! What is made of the command line itself: completions and man pages.

use std::{path::PathBuf, process::ExitCode};

use clap::Command;
use clap_complete::Shell;

use super::{Failure, say::show};

#[derive(clap::Args)]
pub struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args)]
pub struct Man {
    /// Write `offpeak.1` and a page of every command there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn completions(mut command: Command, args: &Completions) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "offpeak", &mut text);
    show(String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(command: Command, args: &Man) -> Result<ExitCode, Failure> {
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(command, dir)?;
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            show(String::from_utf8_lossy(&text))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
