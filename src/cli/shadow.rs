//! `offpeak shadow`: what calls without a deadline would have saved with one, asked
//! of a running server.

use std::process::ExitCode;

use serde_json::Value;

use super::Failure;

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
    let answer = ask(&format!("{}{path}", args.url.trim_end_matches('/')), &key).await?;
    match args.json {
        true => println!("{answer}"),
        false => print!("{}", table(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(url: &str, key: &str) -> Result<Value, Failure> {
    // reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: reqwest::Error| {
        let why = root_cause(&error);
        Failure::Other(format!("no answer from an Offpeak at {url}: {why}"))
    };
    let http = reqwest::Client::builder().build().map_err(failed)?;
    let reply = http.get(url).bearer_auth(key).send().await;
    let reply = reply.map_err(failed)?;
    let status = reply.status();
    let answer: Value = reply.json().await.map_err(failed)?;
    match status.is_success() {
        true => Ok(answer),
        false => {
            let why = answer["error"]["message"].as_str().unwrap_or_default();
            Err(Failure::Other(format!("{url}: {status}: {why}")))
        }
    }
}

/// reqwest's own words say neither "refused" nor "no URL".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
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
    for (name, row) in &rows {
        text += &format!("\n{name:wide$}");
        for (_, field) in COLUMNS {
            text += &format!("  {:>12}", cell(&row[field]));
        }
    }
    let count = |field: &str| total[field].as_f64().unwrap_or_default();
    let (rescued, missed) = (count("expected_rescued"), count("expected_missed"));
    let streamed = cell(&total["streamed_saved_usd"]);
    text += &format!("\n\nExpected: {rescued:.1} rescued at full price, {missed:.1} late.");
    text += &format!("\nNot in these sums: streamed calls, which would save {streamed} more.\n");
    text
}

/// Money to four decimals: sums are read by people here.
fn cell(value: &Value) -> String {
    match value.as_str() {
        Some(amount) => match amount.parse::<f64>() {
            Ok(amount) if amount < 0.0 => format!("-${:.4}", -amount),
            Ok(amount) => format!("${amount:.4}"),
            Err(_) => amount.to_owned(),
        },
        None => value.to_string(),
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
        let off = serde_json::json!({"deadline": null});
        assert!(table(&off).starts_with("Nothing is counted"));
    }
}
