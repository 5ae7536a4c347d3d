//! `offpeak keys`: the keys that a running server issues to its callers.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Failure, ids,
    say::{say, show},
    server::{Server, Who},
    table::{Cell, Table},
};
use crate::model::money::Usd;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: Server,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Issue a key. It is shown once, and kept nowhere.
    Create(New),
    /// All keys that were issued, and what they may do.
    List,
    /// Refuse a key from its next call on.
    Revoke {
        /// `ok_…`, as the list has it.
        id: String,
    },
}

#[derive(clap::Args)]
struct New {
    /// What to call it.
    #[arg(long)]
    name: String,
    /// Whose requests it sees; keys of one tenant see the same [default: its own].
    #[arg(long)]
    tenant: Option<String>,
    /// A name in [auth.upstream] [default: default, or the only one].
    #[arg(long)]
    upstream: Option<String>,
    /// When it ends: `90days` from now, or an RFC 3339 instant [default: never].
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// A model that it may call, or `gpt-5*` for all that begin so; may be repeated
    /// [default: all].
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// What its tenant may pay in a calendar month of UTC for calls with a deadline.
    #[arg(long, value_name = "USD")]
    budget_usd_per_month: Option<String>,
    /// Calls a minute.
    #[arg(long, value_name = "CALLS")]
    rate: Option<u32>,
    /// Only calls with a deadline. So it is with a budget, in which others do not count.
    #[arg(long, conflicts_with = "allow_passthrough")]
    no_passthrough: bool,
    /// Calls without a deadline too, although there is a budget.
    #[arg(long)]
    allow_passthrough: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let server = &args.server;
    let ask = |method, path: String, body| async move {
        (server.ask(Who::Operator, method, &path, body)).await
    };
    let keys = Who::Operator.path("keys");
    let answer = match &args.command {
        Command::Create(new) => ask(Method::POST, keys, Some(&new.wanted())).await?,
        Command::List => ask(Method::GET, keys, None).await?,
        Command::Revoke { id } => {
            let id = ids::check(id, "ok_", "as `offpeak keys list` has it")?;
            ask(Method::DELETE, format!("{keys}/{id}"), None).await?
        }
    };
    match (server.json, &args.command) {
        (true, _) => say(&answer)?,
        (false, Command::Create(_)) => show(created(&answer))?,
        (false, Command::List) => show(table(&answer))?,
        (false, Command::Revoke { id }) => {
            let at = text(&answer["revoked_at"]);
            say(format_args!(
                "{id} ({}) is refused since {at}.",
                text(&answer["name"])
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl New {
    fn wanted(&self) -> Value {
        let passthrough = match (self.no_passthrough, self.allow_passthrough) {
            (true, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        };
        json!({
            "name": self.name,
            "tenant": self.tenant,
            "upstream": self.upstream,
            "expires": self.expires,
            "models": self.models,
            "budget_usd_per_month": self.budget_usd_per_month,
            "requests_per_minute": self.rate,
            "passthrough": passthrough,
        })
    }
}

/// The key alone stands on standard output's last line, for scripts.
fn created(answer: &Value) -> String {
    format!(
        "{} ({}), of the tenant {}. This is the key; it is not shown again:\n{}\n",
        text(&answer["id"]),
        text(&answer["name"]),
        text(&answer["tenant"]),
        text(&answer["key"]),
    )
}

const COLUMNS: [&str; 9] = [
    "id", "name", "status", "tenant", "expires", "models", "rate", "budget", "passes",
];

fn table(answer: &Value) -> String {
    let rows: Vec<[String; 9]> = answer["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    if rows.is_empty() {
        return "No keys were issued: `offpeak keys create --name NAME` issues one.\n".into();
    }
    let mut table = Table::new(COLUMNS.map(|name| (name, false)));
    for row in rows {
        table.push(row.map(Cell::from));
    }
    table.to_string()
}

fn row(key: &Value) -> [String; 9] {
    let or = |value: &Value, none: &str| match value {
        Value::Null => none.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let models = key["models"].as_array().into_iter().flatten();
    let models: Vec<&str> = models.filter_map(Value::as_str).collect();
    let budget = match key["budget_usd_per_month"].as_str() {
        Some(budget) => format!("${} of ${budget}", spent(key)),
        None => "none".into(),
    };
    [
        or(&key["id"], ""),
        or(&key["name"], ""),
        or(&key["status"], ""),
        or(&key["tenant"], ""),
        or(&key["expires_at"], "never"),
        match models.is_empty() {
            true => "all".into(),
            false => models.join(","),
        },
        key["requests_per_minute"]
            .as_u64()
            .map_or("any".into(), |rate| format!("{rate}/min")),
        budget,
        match key["passthrough"].as_bool() {
            Some(true) => "yes".into(),
            _ => "no".into(),
        },
    ]
}

/// What the budget counts: paid, or perhaps paid.
fn spent(key: &Value) -> Usd {
    ["paid_usd_this_month", "reckoned_usd_this_month"]
        .iter()
        .filter_map(|name| text(&key[name]).parse::<Usd>().ok())
        .sum()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let keys = json!({"object": "list", "data": [
            {"id": "ok_01kap9kdcg0000040000000000", "name": "nightly evals", "status": "active",
             "tenant": "research", "expires_at": "2027-01-31T06:00:00.000Z",
             "models": ["o3", "gpt-5*"], "requests_per_minute": 600, "passthrough": false,
             "budget_usd_per_month": "25.00", "paid_usd_this_month": "3.1",
             "reckoned_usd_this_month": "0.0415"},
            {"id": "ok_01kap9kdcg0000080000000000", "name": "agent", "status": "revoked",
             "tenant": "ok_01kap9kdcg0000080000000000", "expires_at": null, "models": [],
             "requests_per_minute": null, "passthrough": true, "budget_usd_per_month": null,
             "paid_usd_this_month": "0.00"},
        ]});
        let plain = anstream::adapter::strip_str(&table(&keys)).to_string();
        insta::assert_snapshot!(plain);
        assert!(table(&json!({"data": []})).starts_with("No keys"));
    }
}
