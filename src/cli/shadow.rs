//! `offpeak shadow`: what calls without a deadline would have saved with one, asked
//! of a running server.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;

use super::{Failure, remote};

#[derive(clap::Args)]
pub struct Args {
    /// The running server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The calls of all keys, by OFFPEAK_ADMIN_TOKEN; else those of OPENAI_API_KEY.
    #[arg(long)]
    all: bool,
    /// Print the server's answer as it is.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let (path, variable, missing) = match args.all {
        true => (
            "/offpeak/admin/shadow",
            "OFFPEAK_ADMIN_TOKEN",
            "the server wrote its token into `admin.token` in its data directory",
        ),
        false => (
            "/offpeak/v1/shadow",
            "OPENAI_API_KEY",
            "the calls of that key are told (`--all` tells those of all keys)",
        ),
    };
    let key = std::env::var(variable)
        .map_err(|_| Failure::Other(format!("{variable} is not set: {missing}")))?;
    let url = format!("{}{path}", args.url.trim_end_matches('/'));
    let answer = remote::ask(Method::GET, &url, &key, None).await?;
    match args.json {
        true => println!("{answer}"),
        false => print!("{}", table(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Column heads, and the fields below them.
const COLUMNS: [(&str, &str); 7] = [
    ("calls", "calls"),
    ("streamed", "streamed"),
    ("unread", "unread"),
    ("unpriced", "unpriced"),
    ("did cost", "standard_usd"),
    ("would cost", "expected_usd"),
    ("saved", "saved_usd"),
];

fn table(answer: &Value) -> String {
    let Some(deadline) = answer["deadline"].as_str() else {
        return "Nothing is counted: set `[shadow] deadline` and restart the server.\n".into();
    };
    let total = &answer["total"];
    let mut rows: Vec<(String, &Value)> = Vec::new();
    for row in answer["by_model"].as_array().into_iter().flatten() {
        let model = row["model"].as_str().unwrap_or("(unknown)");
        rows.push((model.to_owned(), row));
    }
    rows.push(("all".into(), total));
    let wide = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("Calls without a deadline, had they been given {deadline}:\n\n");
    text += &format!("{:wide$}", "");
    for (head, _) in COLUMNS {
        text += &format!("  {head:>12}");
    }
    let most = rows
        .iter()
        .filter_map(|(_, row)| amount(&row["standard_usd"]));
    let decimals = decimals_for(most.fold(0.0, f64::max));
    for (name, row) in &rows {
        text += &format!("\n{name:wide$}");
        for (_, field) in COLUMNS {
            let cell = match amount(&row[field]) {
                Some(amount) => dollars(amount, decimals),
                None => row[field].to_string(),
            };
            text += &format!("  {cell:>12}");
        }
    }
    let count = |field: &str| total[field].as_f64().unwrap_or_default();
    let (rescued, missed) = (count("expected_rescued"), count("expected_missed"));
    let streamed = amount(&total["streamed_saved_usd"]).unwrap_or_default();
    let streamed = dollars(streamed, decimals_for(streamed.abs()));
    text += &format!("\n\nExpected: {rescued:.1} rescued at full price, {missed:.1} late.");
    text += &format!("\nNot in these sums: streamed calls, which would save {streamed} more.\n");
    text += UNREAD;
    text
}

const UNREAD: &str = "\
Unread calls are in no sum: answers that broke off, or are compressed otherwise than by
gzip, deflate or br, and chat streams without `stream_options: {\"include_usage\": true}`,
which SDKs leave out unless told.
";

/// Amounts are texts, counts are numbers.
fn amount(value: &Value) -> Option<f64> {
    value.as_str()?.parse().ok()
}

/// Four of a bill in dollars, more of one in parts of a cent: the largest amount shows
/// four digits.
fn decimals_for(most: f64) -> usize {
    match most > 0.0 && most < 1.0 {
        true => (4 + (-most.log10()).floor() as usize).min(9),
        false => 4,
    }
}

fn dollars(amount: f64, decimals: usize) -> String {
    match amount < 0.0 {
        true => format!("-${:.decimals$}", -amount),
        false => format!("${amount:.decimals$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let sums = |model: Option<&str>, calls: u64| {
            serde_json::json!({
                "model": model, "calls": calls, "streamed": 1, "unread": 0, "unpriced": 0,
                "standard_usd": "12.3456789", "expected_usd": "6.30",
                "saved_usd": "-0.000075", "streamed_saved_usd": "0.50",
                "expected_rescued": 1.25, "expected_missed": 0.01,
            })
        };
        let answer = serde_json::json!({
            "deadline": "6h",
            "total": sums(None, 1_000),
            "by_model": [sums(None, 3), sums(Some("gpt-4o-mini"), 997)],
        });
        insta::assert_snapshot!(table(&answer));
        let few = serde_json::json!({
            "deadline": "6h",
            "total": {
                "calls": 3, "streamed": 1, "unread": 1, "unpriced": 0,
                "standard_usd": "0.0000213", "expected_usd": "0.00001071",
                "saved_usd": "0.00001059", "streamed_saved_usd": "0.00",
                "expected_rescued": 0.02, "expected_missed": 0,
            },
        });
        insta::assert_snapshot!("a_few_calls", table(&few));
        let off = serde_json::json!({"deadline": null});
        assert!(table(&off).starts_with("Nothing is counted"));
    }
}
