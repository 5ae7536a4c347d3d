//! `offpeak shadow`: what calls without a deadline would have saved with one, asked
//! of a running server.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    Failure,
    dollars::{amount, decimals_for, dollars},
    say::{say, show},
    server::{Server, Who},
};

#[derive(clap::Args)]
pub struct Args {
    /// The calls of all keys, by the admin token; else those of OPENAI_API_KEY.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: Server,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let who = Who::all(args.all);
    let answer = args.server.get(who, &who.path("shadow")).await?;
    match args.server.json {
        true => say(&answer)?,
        false => show(table(&answer))?,
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
