//! `offpeak store`: the database of a server that does not run.

use std::process::ExitCode;

use super::{
    DataDir, Failure,
    say::{say, show},
};
use crate::{
    app::SystemClock,
    store::{self, Report, Salvaged},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read everything and tell what can be read. Exit code 1: something is missing.
    Check(Look),
    /// Make a new database of what can be read of a damaged one, which is kept beside it.
    Salvage(Look),
}

#[derive(clap::Args)]
struct Look {
    #[command(flatten)]
    at: DataDir,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// What is wrong with a database that can be looked at.
const DAMAGED: u8 = 1;
/// Records that a report for people names.
const NAMED: usize = 20;

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let failed = |error: store::SalvageError| Failure::Other(error.to_string());
    match &args.command {
        Command::Check(look) => {
            let report = store::check(&look.at.settings()?.data_dir).map_err(failed)?;
            match look.json {
                true => say(json(&report))?,
                false => show(text(&report))?,
            }
            Ok(match report.sound {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(DAMAGED),
            })
        }
        Command::Salvage(look) => {
            let dir = look.at.settings()?.data_dir;
            let done = store::salvage(&dir, SystemClock::new().now()).map_err(failed)?;
            match look.json {
                true => say(json(&done))?,
                false => show(format_args!("{}{}", text(&done.found), told(&done)))?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn json<T: serde::Serialize>(report: &T) -> String {
    // Plain data with text keys has no way to fail.
    serde_json::to_string_pretty(report).expect("plain data serialises")
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for (kind, count) in &report.records {
        text += &format!("{count:>12}  {kind}\n");
    }
    text += &format!("{:>12}  records that can be read", report.readable());
    text += &match report.expected {
        Some(expected) => format!(", of {expected} that there should be\n"),
        None => ", and it is not known how many there should be\n".into(),
    };
    for gap in &report.gaps {
        text += &format!(
            "{} bytes of the log cannot be read, at offset {}\n",
            gap.bytes, gap.offset
        );
    }
    let counts = [
        (report.missing_commits, "acknowledged commits are missing"),
        (report.lost_pages, "pages cannot be read"),
        (report.lost_changes, "changes of pages cannot be read"),
        (report.unreadable.len() as u64, "records cannot be read"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!("{count} {what}\n");
    }
    for record in report.unreadable.iter().take(NAMED) {
        text += &format!("  {}: {}\n", record.record, record.why);
    }
    if !report.roots {
        text += "the roots of the vault are not there: without them no stored key opens, unless \
                 an earlier version wrote this database\n";
    }
    if report.acknowledged.is_none() {
        text += "how many commits were acknowledged is not known\n";
    }
    text += match report.sound {
        true => "everything is there\n",
        false => "the database is damaged\n",
    };
    text
}

fn told(done: &Salvaged) -> String {
    let repairs = &done.repairs;
    format!(
        "\n{} open requests go on ({} of them queued anew), {} have their answers, {} end with \
         storage_damaged.\n{} records were made anew, {} belonged to nothing.\nThe damaged \
         database is kept in {}, what could not be read of its records in {}.\n",
        repairs.open,
        repairs.requeued,
        repairs.finished,
        repairs.ended,
        repairs.restored,
        repairs.removed,
        done.kept.display(),
        done.unreadable.display(),
    )
}
