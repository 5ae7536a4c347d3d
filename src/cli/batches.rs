//! `offpeak batches`: what is at the provider, and what was of late.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    Failure,
    say::{say, show},
    server::{Server, Who},
    table::{Cell, Table},
};

#[derive(clap::Args)]
pub struct Args {
    /// So many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    #[command(flatten)]
    server: Server,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let who = Who::Operator;
    let path = who.path(&format!("batches?limit={}", args.limit));
    let batches = args.server.get(who, &path).await?;
    match args.server.json {
        true => say(&batches)?,
        false => show(text(&batches["data"]))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(batches: &Value) -> String {
    let table = table(batches);
    match table.is_empty() {
        true => "No batch is open, and none ended of late.\n".into(),
        false => table.to_string(),
    }
}

pub fn table(batches: &Value) -> Table {
    let mut table = Table::new([
        ("id", false),
        ("state", false),
        ("model", false),
        ("lines", true),
        ("done", true),
        ("age", true),
        ("earliest deadline", false),
        ("provider", false),
        ("note", false),
    ]);
    for batch in batches.as_array().into_iter().flatten() {
        let provider = [&batch["provider_id"], &batch["provider_status"]];
        let provider = provider.map(|it| it.as_str().unwrap_or_default());
        table.push([
            Cell::value(&batch["id"]),
            Cell::status(batch["state"].as_str().unwrap_or("?")),
            Cell::value(&batch["model"]),
            Cell::value(&batch["lines"]),
            Cell::from(done(batch)),
            Cell::from(age(batch["age_seconds"].as_u64().unwrap_or_default())),
            Cell::instant(&batch["earliest_deadline"]),
            Cell::from(provider.join(" ").trim()),
            match (batch["last_error"].as_str(), batch["left"].as_str()) {
                (Some(error), _) => Cell::warning(error),
                (None, left) => Cell::from(left.unwrap_or_default()),
            },
        ]);
    }
    table
}

/// As far as the provider said, or what it answered in all.
fn done(batch: &Value) -> String {
    let answered = batch["answered_lines"].as_u64();
    let done = answered.or(batch["finished_lines"].as_u64());
    match (batch["lines"].as_u64(), done) {
        (Some(lines), Some(finished)) if lines > 0 => format!("{} %", finished * 100 / lines),
        _ => "-".into(),
    }
}

/// The two largest units.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_for_people() {
        let batches = json!([
            {"id": "ob_01kap9kdcg0000040000000000", "state": "submitted", "model": "gpt-4o-mini",
             "lines": 1200, "finished_lines": 300, "age_seconds": 346,
             "earliest_deadline": "2026-11-22T23:20:00.000Z", "provider_id": "batch_abc",
             "provider_status": "in_progress", "last_error": null},
            {"id": "ob_01kap9kdcg0000080000000000", "state": "sealed", "model": "o3",
             "lines": 7, "age_seconds": 100_000, "provider_id": null,
             "earliest_deadline": "2026-11-22T23:20:00.000Z", "provider_status": null,
             "last_error": "429 Too Many Requests"},
            {"id": "ob_01kap9kdcg00000c0000000000", "state": "settled", "model": "o3",
             "lines": 8, "finished_lines": 2, "answered_lines": 4, "age_seconds": 60,
             "earliest_deadline": "2026-11-22T23:20:00.000Z", "provider_id": "batch_def",
             "provider_status": "cancelled", "last_error": null,
             "left": "it hung, and there was time for a fresh batch"},
        ]);
        let plain = anstream::adapter::strip_str(&text(&batches)).to_string();
        insta::assert_snapshot!(plain);
        assert!(text(&json!([])).starts_with("No batch"));
    }
}
