//! `offpeak status`, `pause`, `resume` and `flush`.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;

use super::{
    Failure, batches,
    say::{say, show},
    server::{Server, Who},
    table::{BOLD, Cell, warning},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Status,
    Pause,
    Resume,
    Flush,
}

pub async fn run(deed: Deed, args: Args) -> Result<ExitCode, Failure> {
    let (method, name) = match deed {
        Deed::Status => (Method::GET, "status"),
        Deed::Pause => (Method::POST, "pause"),
        Deed::Resume => (Method::POST, "resume"),
        Deed::Flush => (Method::POST, "flush"),
    };
    let who = Who::Operator;
    let status = args.server.ask(who, method, &who.path(name), None).await?;
    match args.server.json {
        true => say(&status)?,
        false => show(text(&status))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Value) -> String {
    let mut text = headline(status);
    for told in warnings(status) {
        text += &format!("\n{}", warning(&told));
    }
    let table = batches::table(&status["batches"]);
    match table.is_empty() {
        true => text + "\n",
        false => format!("{text}\n\n{table}"),
    }
}

/// Counts on one line.
pub fn headline(status: &Value) -> String {
    let count = |name: &str| status["requests"][name].as_u64().unwrap_or_default();
    let state = match status["paused"] == true {
        true => Cell::warning("paused"),
        false => Cell::good("running"),
    };
    let batches = match status["open_batches"].as_u64().unwrap_or_default() {
        1 => "1 batch".into(),
        batches => format!("{batches} batches"),
    };
    format!(
        "{state}: {BOLD}{}{BOLD:#} open ({} queued, {} in {batches}, {} live)",
        count("open"),
        count("queued"),
        count("in_batches"),
        count("live"),
    )
}

/// What somebody should look at.
pub fn warnings(status: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(warning) = status["upstream_warning"].as_str() {
        warnings.push(warning.to_owned());
    }
    let counts = [
        (
            &status["rescue_budgets_spent"],
            "rescue budgets that are spent",
        ),
        (&status["delivery"]["dead"], "webhooks that were given up"),
    ];
    for (count, what) in counts {
        match count.as_u64() {
            None | Some(0) => {}
            Some(count) => warnings.push(format!("{what}: {count}")),
        }
    }
    for key in status["refused_keys"].as_array().into_iter().flatten() {
        let since = key["since"].as_str().unwrap_or("?");
        warnings.push(format!("the provider refuses a key since {since}"));
    }
    for scope in status["live"].as_array().into_iter().flatten() {
        if let Some(until) = scope["paused_until"].as_str() {
            let model = scope["model"].as_str().unwrap_or("?");
            warnings.push(format!("live calls of {model} pause until {until}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn for_people() {
        let status = json!({
            "paused": true, "open_batches": 1,
            "requests": {"open": 1201, "queued": 1, "in_batches": 1200, "live": 0},
            "rescue_budgets_spent": 1, "upstream_warning": "no model was found there",
            "delivery": {"pending": 4, "dead": 2},
            "refused_keys": [{"since": "2026-11-22T17:00:00.000Z"}],
            "live": [{"model": "o3", "paused_until": "2026-11-22T17:30:00.000Z"},
                     {"model": "o4", "paused_until": null}],
            "batches": [{"id": "ob_1", "state": "submitted", "model": "o3", "lines": 1200,
                "age_seconds": 61, "provider_id": "batch_abc", "provider_status": "in_progress",
                "earliest_deadline": "2026-11-22T23:20:00.000Z", "last_error": null}],
        });
        let plain = anstream::adapter::strip_str(&text(&status)).to_string();
        insta::assert_snapshot!(plain);
    }
}
