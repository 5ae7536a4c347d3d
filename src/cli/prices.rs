//! `offpeak prices`: what answers are billed by.

use std::{path::PathBuf, process::ExitCode};

use super::{
    Failure,
    say::{say, tell},
};
use crate::{
    app::{SystemClock, prices},
    config::Config,
    ledger::{Quote, litellm},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a file of prices of LiteLLM's list, for `prices.file`.
    Import(Import),
    /// What a model costs in each lane, in USD per million tokens.
    Show(Show),
}

#[derive(clap::Args)]
struct Import {
    /// `model_prices_and_context_window_backup.json` of the PyPI package `litellm`.
    #[arg(value_name = "FILE")]
    list: PathBuf,
    /// Where to write it to, in place of the standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Whose models, by the list's names for providers; where two models have one name,
    /// that of the provider that stands first.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_values_t = litellm::PROVIDERS.map(str::to_owned))]
    providers: Vec<String>,
}

#[derive(clap::Args)]
struct Show {
    #[arg(value_name = "MODEL")]
    model: String,
    /// The settings that the server runs with: `prices.file` counts.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Import(args) => import(args),
        Command::Show(args) => show(args),
    }
}

fn import(args: &Import) -> Result<ExitCode, Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::Other(format!("{}: {error}", args.list.display()));
    let list = std::fs::read_to_string(&args.list).map_err(|error| failed(&error))?;
    let now = SystemClock::new().now().to_string();
    let today = now.split('T').next().unwrap_or_default();
    let providers: Vec<&str> = args.providers.iter().map(String::as_str).collect();
    let imported = litellm::import(&list, &providers, today).map_err(|error| failed(&error))?;
    for left_out in &imported.left_out {
        tell(format_args!(
            "left out: {}: {}",
            left_out.model, left_out.why
        ));
    }
    match &args.out {
        None => super::say::show(imported.toml)?,
        Some(path) => {
            std::fs::write(path, &imported.toml)
                .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?;
            say(format_args!(
                "{}: the prices of {} models",
                path.display(),
                imported.models
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(args: &Show) -> Result<ExitCode, Failure> {
    let flags: [(&str, String); 0] = [];
    let config = Config::load(args.config.as_deref(), std::env::vars_os(), &flags)?;
    let prices = prices(&config)?;
    let Some((name, quotes)) = prices.quotes(&args.model) else {
        let why = "has no price: its answers are counted in tokens, and as unpriced";
        return Err(Failure::Other(format!("{} {why}", args.model)));
    };
    match args.json {
        true => {
            let shown = serde_json::json!({
                "object": "offpeak.prices",
                "model": name,
                "usd_per_million_tokens": quotes,
            });
            say(&shown)?;
        }
        false => super::say::show(table(name, &quotes))?,
    }
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [&str; 6] = [
    "lane",
    "input",
    "cached",
    "cache write",
    "kept longer",
    "output",
];

fn table(model: &str, quotes: &[Quote]) -> String {
    let mut text = format!("{model}, in USD per million tokens\n");
    let mut above = None;
    text.push_str(&line(COLUMNS));
    for quote in quotes {
        if quote.above_tokens != above {
            above = quote.above_tokens;
            let tokens = above.unwrap_or_default();
            text.push_str(&format!("above {tokens} tokens of input, all of them:\n"));
        }
        let lane = match quote.api {
            Some(api) => format!("{} ({api} only)", quote.lane),
            None => quote.lane.to_owned(),
        };
        text.push_str(&line([
            &lane,
            &quote.input,
            &quote.cached_input,
            &quote.cache_write,
            quote.cache_write_long.as_deref().unwrap_or("-"),
            &quote.output,
        ]));
    }
    text
}

fn line([lane, numbers @ ..]: [&str; COLUMNS.len()]) -> String {
    let numbers = numbers.map(|number| format!("{number:>12}")).concat();
    format!("{lane:<30}{numbers}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_prices_are_a_table() {
        let prices = prices(&Config::defaults().unwrap()).unwrap();
        let (name, quotes) = prices.quotes("gpt-6-sol").unwrap();
        insta::assert_snapshot!(table(name, &quotes));
    }
}
