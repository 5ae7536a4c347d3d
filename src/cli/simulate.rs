//! `offpeak simulate`: what each policy would have paid and missed.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    Failure,
    say::{say, show},
};
use crate::{
    backtest::{
        Settings,
        latency::Law,
        plot,
        report::{Markdown, Report},
        run as play,
        trace::Trace,
        workload::{WORKLOADS, Workload},
    },
    config::Config,
    ledger::Prices,
};

#[derive(clap::Args)]
pub struct Args {
    /// A generated workload: steady, bursty, midnight, mixed, stall, correlated, apart, stops,
    /// slow-live, flex, no-flex, slack-5m, slack-15m, slack-30m, slack-1h, slack-2h, slack-8h,
    /// slack-24h.
    #[arg(long, value_name = "NAME", default_value = "mixed")]
    workload: String,
    /// Two runs with the same seed and the same requests print the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many requests are generated, over a day: as it comes 20,000, but 1,000,000 at midnight
    /// and 200,000 for slow-live.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    requests: Option<u32>,
    /// A trace of your own, one JSON object a line (docs/simulate.md).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["workload", "requests", "all"])]
    trace: Option<PathBuf>,
    /// How the provider behaves: published, apart, stops, slow-live, flex, stall, or a TOML or
    /// JSON file (docs/simulate.md), a server's `/offpeak/v1/turnaround` among them. Goes over
    /// what the workload brings.
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    latency: Option<String>,
    /// Offpeak's settings, over the defaults, as for `offpeak serve`: `[packing]`, `[ladder]` and
    /// `[rescue]` are what counts here.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "all")]
    json: bool,
    /// Draw the result.
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    svg: Option<PathBuf>,
    /// Every workload, as the Markdown table of docs/simulate.md.
    #[arg(long)]
    all: bool,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (settings, prices) = settings(args)?;
    if args.all {
        let mut table = Markdown::default();
        for workload in &WORKLOADS {
            let trace = generated(workload, args, &prices)?;
            table.push(
                workload,
                &play(
                    workload.name,
                    &trace,
                    &(workload.law)(),
                    &settings,
                    args.seed,
                ),
            );
        }
        show(table.text())?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = report(args, &prices, &settings)?;
    if let Some(path) = &args.svg {
        std::fs::write(path, plot::svg(&report)).map_err(|error| at(path, error))?;
    }
    if args.json {
        say(serde_json::to_string(&report).map_err(other)?)?;
    } else {
        show(report.table())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &Args) -> Result<(Settings, Prices), Failure> {
    let flags: [(&str, String); 0] = [];
    let config = Config::load(args.config.as_deref(), std::env::vars_os(), &flags)?;
    let settings = Settings::new(
        config.section("packing")?,
        &config.section("ladder")?,
        &config.section("rescue")?,
    );
    Ok((settings, crate::app::prices(&config)?))
}

fn report(args: &Args, prices: &Prices, settings: &Settings) -> Result<Report, Failure> {
    let (name, trace, usual) = match &args.trace {
        Some(path) => {
            let file = File::open(path).map_err(|error| at(path, error))?;
            let trace = Trace::read(BufReader::new(file), prices);
            (
                "trace",
                trace.map_err(|error| at(path, error))?,
                Law::default(),
            )
        }
        None => {
            let known = || WORKLOADS.map(|workload| workload.name).join(", ");
            let workload = Workload::named(&args.workload).ok_or_else(|| {
                Failure::Other(format!(
                    "no workload `{}`; there are {}",
                    args.workload,
                    known()
                ))
            })?;
            let trace = generated(workload, args, prices)?;
            (workload.name, trace, (workload.law)())
        }
    };
    let law = match &args.latency {
        None => usual,
        Some(name) => law(name)?,
    };
    Ok(play(name, &trace, &law, settings, args.seed))
}

fn generated(workload: &Workload, args: &Args, prices: &Prices) -> Result<Trace, Failure> {
    let requests = args.requests.unwrap_or(workload.requests);
    (workload.trace(args.seed, requests, prices)).map_err(other)
}

/// A preset, or a file.
fn law(name: &str) -> Result<Law, Failure> {
    if let Some(law) = Law::preset(name) {
        return Ok(law);
    }
    let path = Path::new(name);
    let text = std::fs::read_to_string(path).map_err(|error| {
        let presets = Law::PRESETS.join(", ");
        Failure::Other(format!("{name}: {error} (nor is it one of {presets})"))
    })?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let law = if is_json {
        Law::from_json(&text)
    } else {
        Law::from_toml(&text)
    };
    law.map_err(|error| at(path, error))
}

fn at(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Other(format!("{}: {error}", path.display()))
}

fn other(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::backtest::{latency::Law, workload::WORKLOADS};

    #[test]
    fn the_help_names_every_workload_and_preset() {
        let help = Args::augment_args(clap::Command::new("simulate"));
        let help = help.clone().render_long_help().to_string();
        let words: Vec<&str> = help.split([' ', ',', '.', '\n']).collect();
        let names = WORKLOADS.iter().map(|workload| workload.name);
        for name in names.chain(Law::PRESETS) {
            assert!(words.contains(&name), "{name}");
        }
    }
}
