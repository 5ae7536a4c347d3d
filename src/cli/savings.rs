//! `offpeak savings`: what was paid, and what it would have cost.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::Value;

use super::{
    Failure,
    dollars::{amount, decimals_for, dollars},
    say::{say, show},
    server::{Server, Who},
    table::{BOLD, Cell, Table},
    when::{self, When},
};

#[derive(clap::Args)]
pub struct Args {
    /// One row for each.
    #[arg(long, value_enum, default_value = "model")]
    by: By,
    /// From then on: `7d` ago, or an RFC 3339 instant.
    #[arg(long, value_name = "WHEN", value_parser = when::past)]
    since: Option<When>,
    /// Up to then.
    #[arg(long, value_name = "WHEN", value_parser = when::past)]
    until: Option<When>,
    /// Those of all tenants, by the admin token; else those of OPENAI_API_KEY.
    #[arg(long)]
    all: bool,
    /// Comma-separated rows, for a spreadsheet.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    Model,
    Tag,
    Tenant,
    Lane,
    Day,
    Hour,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Model => "model",
            By::Tag => "tag",
            By::Tenant => "tenant",
            By::Lane => "lane",
            By::Day => "day",
            By::Hour => "hour",
        }
    }
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let all = args.all || args.by == By::Tenant;
    let who = Who::all(all);
    let mut asked: Vec<String> = Vec::new();
    if args.by == By::Hour {
        asked.push("by=hour".into());
    }
    for (name, when) in [("since", args.since), ("until", args.until)] {
        asked.extend(when.map(|when| format!("{name}={when}")));
    }
    let mut path = who.path("savings");
    if !asked.is_empty() {
        path = format!("{path}?{}", asked.join("&"));
    }
    let answer = args.server.get(who, &path).await?;
    match (args.server.json, args.csv) {
        (true, _) => say(&answer)?,
        (_, true) => show(rows(&answer, args.by, exact).csv())?,
        _ => show(text(&answer, args.by))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Column heads, and the fields below them.
const COLUMNS: [(&str, &str); 7] = [
    ("requests", "requests"),
    ("succeeded", "succeeded"),
    ("late", "late"),
    ("rescued", "rescued"),
    ("paid", "paid_usd"),
    ("ordinary price", "standard_usd"),
    ("saved", "saved_usd"),
];

fn text(answer: &Value, by: By) -> String {
    let total = &answer["total"];
    if total["requests"] == 0 && total["paid_usd"] == "0.00" {
        return "Nothing has ended yet in this time.\n".into();
    }
    let most = amount(&total["standard_usd"]).unwrap_or_default();
    let decimals = decimals_for(most.max(amount(&total["paid_usd"]).unwrap_or_default()));
    let rounded = |value: &Value| match amount(value) {
        Some(amount) => dollars(amount, decimals),
        None => value.to_string(),
    };
    let mut text = rows(answer, by, rounded).to_string();
    text += &notes(answer);
    text
}

fn rows(answer: &Value, by: By, cell: impl Fn(&Value) -> String) -> Table {
    let head = COLUMNS.map(|(head, _)| (head, true));
    let mut table = Table::new([(by.name(), false)].into_iter().chain(head));
    let cells = |row: &Value, name: Cell| {
        let fields = COLUMNS.map(|(_, field)| match field {
            "saved_usd" => Cell::good(cell(&row[field])),
            _ => Cell::from(cell(&row[field])),
        });
        [name].into_iter().chain(fields).collect::<Vec<Cell>>()
    };
    let of = format!("by_{}", by.name());
    for row in answer[of].as_array().into_iter().flatten() {
        let named = row["name"].as_str().or(row[by.name()].as_str());
        let unnamed = match row["others"] == true {
            true => "(others)",
            false => "(none)",
        };
        table.push(cells(row, Cell::from(named.unwrap_or(unnamed))));
    }
    table.push(cells(&answer["total"], Cell::from("all").in_style(BOLD)));
    table
}

/// As the server says it.
fn exact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a sum alone does not say.
fn notes(answer: &Value) -> String {
    let total = &answer["total"];
    let mut notes = String::new();
    for (field, what) in [
        (
            "paid_twice",
            "Answers that were billed although there was one already",
        ),
        (
            "unaccounted",
            "Live calls that nobody saw end, and that may have been billed",
        ),
        (
            "unpriced",
            "Answers in no sum, because their price is not known",
        ),
    ] {
        match total[field].as_u64() {
            None | Some(0) => {}
            Some(count) => notes += &format!("\n{what}: {count}."),
        }
    }
    for budget in answer["rescue_budget"].as_array().into_iter().flatten() {
        let field = |name: &str| budget[name].as_str().unwrap_or_default().to_owned();
        notes += &format!(
            "\nRescue budget of the {}: ${} of ${} spent.",
            field("per"),
            field("spent_usd"),
            field("limit_usd")
        );
    }
    for assumption in answer["assumptions"].as_array().into_iter().flatten() {
        notes += &format!("\n{}", assumption.as_str().unwrap_or_default());
    }
    match notes.is_empty() {
        true => notes,
        false => notes + "\n",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        let sums = |model: Option<&str>, requests: u64| {
            json!({"model": model, "requests": requests, "succeeded": requests, "late": 1,
                "rescued": 2, "paid_twice": 1, "unaccounted": 0, "unpriced": 3,
                "paid_usd": "0.001215", "standard_usd": "0.00216", "saved_usd": "0.000945"})
        };
        let mut others = sums(None, 1);
        others["others"] = true.into();
        json!({
            "total": sums(None, 9),
            "by_model": [sums(Some("gpt-4o-mini"), 5), sums(None, 3), others],
            "rescue_budget": [{"per": "day", "limit_usd": "25.00", "spent_usd": "0.00027"}],
            "assumptions": ["Cached tokens are reckoned as a live call would have had them."],
        })
    }

    #[test]
    fn a_table_for_people() {
        let plain = anstream::adapter::strip_str(&text(&answer(), By::Model)).to_string();
        insta::assert_snapshot!(plain);
        let none = json!({"total": {"requests": 0, "paid_usd": "0.00"}});
        assert!(text(&none, By::Day).starts_with("Nothing"));
    }

    #[test]
    fn rows_for_a_spreadsheet_are_exact() {
        let csv = rows(&answer(), By::Model, exact).csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(
            lines[0],
            "model,requests,succeeded,late,rescued,paid,ordinary price,saved"
        );
        assert_eq!(lines[1], "gpt-4o-mini,5,5,1,2,0.001215,0.00216,0.000945");
        assert!(lines[2].starts_with("(none),3,") && lines[3].starts_with("(others),1,"));
    }
}
