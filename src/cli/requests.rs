//! `offpeak requests`: list them, look at one, cancel it.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;
use url::form_urlencoded;

use super::{
    Failure, ids, pages,
    say::{say, show},
    server::{Server, Who},
    table::{BOLD, Cell, Table},
    when::{self, When},
};
use crate::model::id::RequestId;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
    /// Those of all tenants, by the admin token; else those of OPENAI_API_KEY.
    #[arg(long, global = true)]
    all: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(clap::Args)]
struct Filter {
    /// queued, in_progress, succeeded, failed or cancelled.
    #[arg(long)]
    status: Option<String>,
    #[arg(long)]
    tag: Option<String>,
    #[arg(long)]
    model: Option<String>,
    /// `/v1/chat/completions` and the like.
    #[arg(long, value_name = "PATH")]
    endpoint: Option<String>,
    /// Taken in then or later: `12h` ago, or an RFC 3339 instant.
    #[arg(long, value_name = "WHEN", value_parser = when::past)]
    since: Option<When>,
    /// So many at most, newest first.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

#[derive(clap::Subcommand)]
enum Command {
    /// All that is known of a request, and what happened to it.
    Show {
        /// `op_…`
        id: String,
    },
    /// Cancel a request that has not ended.
    Cancel {
        /// `op_…`
        id: String,
    },
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let who = Who::all(args.all);
    let server = &args.server;
    let origin = "as `offpeak requests` and the header Offpeak-Request-Id have it";
    match &args.command {
        None => {
            let (filter, limit) = (args.filter.query(), args.filter.limit);
            let list = pages::list(server, who, ("requests", &filter), limit).await?;
            match server.json {
                true => say(&list)?,
                false => show(table(&list, who))?,
            }
        }
        Some(Command::Show { id }) => {
            let id = ids::check(id, RequestId::PREFIX, origin)?;
            let path = who.path(&format!("requests/{id}"));
            let request = server.get(who, &path).await?;
            match server.json {
                true => say(&request)?,
                false => show(detail(&request))?,
            }
        }
        Some(Command::Cancel { id }) => {
            let id = ids::check(id, RequestId::PREFIX, origin)?;
            let path = who.path(&format!("requests/{id}/cancel"));
            let request = server.ask(who, Method::POST, &path, None).await?;
            match server.json {
                true => say(&request)?,
                false => say(format_args!(
                    "{id} is {}.",
                    request["status"].as_str().unwrap_or("?")
                ))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Filter {
    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let since = self.since.map(|since| since.to_string());
        for (name, value) in [
            ("status", &self.status),
            ("tag", &self.tag),
            ("model", &self.model),
            ("endpoint", &self.endpoint),
            ("created_after", &since),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }
}

/// Column heads, and the fields below them.
const COLUMNS: [(&str, &str); 8] = [
    ("id", "id"),
    ("status", "status"),
    ("model", "model"),
    ("tag", "tag"),
    ("lane", "lane"),
    ("admitted", "admitted_at"),
    ("deadline", "deadline"),
    ("cost", "cost_usd"),
];

fn table(list: &Value, who: Who) -> String {
    let tenant = (who == Who::Operator).then_some(("tenant", "tenant"));
    let columns: Vec<(&str, &str)> = COLUMNS.into_iter().chain(tenant).collect();
    let mut table = Table::new(
        columns
            .iter()
            .map(|(head, field)| (*head, *field == "cost_usd")),
    );
    for request in list["data"].as_array().into_iter().flatten() {
        table.push(columns.iter().map(|(_, field)| cell(request, field)));
    }
    if table.is_empty() {
        return "There is no such request.\n".into();
    }
    format!("{table}{}", pages::more(list))
}

fn cell(request: &Value, field: &str) -> Cell {
    match field {
        "status" => Cell::status(request[field].as_str().unwrap_or("?")),
        "deadline" if request["late"] == true => {
            Cell::warning(format!("{} (late)", Cell::instant(&request[field])))
        }
        "admitted_at" | "deadline" | "finished_at" => Cell::instant(&request[field]),
        _ => Cell::value(&request[field]),
    }
}

const FIRST: [&str; 8] = [
    "id",
    "status",
    "model",
    "tag",
    "lane",
    "admitted_at",
    "deadline",
    "finished_at",
];

/// Told by tables of their own, or to programs only.
const APART: [&str; 5] = ["object", "attempts", "timeline", "webhook", "links"];

fn detail(request: &Value) -> String {
    let mut text = String::new();
    let others = request.as_object().into_iter().flatten();
    let others = others.map(|(name, _)| name.as_str());
    let others = others.filter(|name| !APART.contains(name) && !FIRST.contains(name));
    let fields = FIRST.into_iter().chain(others);
    let fields: Vec<&str> = fields.filter(|name| !request[*name].is_null()).collect();
    let width = fields.iter().map(|name| name.len()).max().unwrap_or(0);
    for name in &fields {
        let value = match *name {
            // Whole, however long.
            "reason" => {
                let reason = request["reason"].as_str().unwrap_or_default();
                reason.replace(char::is_control, " ")
            }
            _ => cell(request, name).to_string(),
        };
        text += &format!("{name:width$}  {value}\n");
    }
    if let Some(target) = request["webhook"]["target"].as_str() {
        let status = request["webhook"]["status"].as_str().unwrap_or("?");
        let status = Cell::status(status);
        text += &format!("{:width$}  {status}: {}\n", "webhook", Cell::from(target));
    }
    text + &timeline(request)
}

const STEPS: [&str; 5] = ["at", "event", "lane", "cost_usd", "reason"];

fn timeline(request: &Value) -> String {
    let Some(steps) = request["timeline"].as_array() else {
        return String::new();
    };
    let mut table = Table::new(STEPS.map(|name| (name, false)));
    for step in steps {
        table.push(STEPS.map(|name| match &step[name] {
            Value::Null => Cell::from(""),
            at if name == "at" => Cell::instant(at),
            value => Cell::value(value),
        }));
    }
    format!("\n{BOLD}What happened{BOLD:#}\n{table}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> Value {
        json!({
            "id": "op_01kap9kdcg0000040000000000", "object": "offpeak.request",
            "status": "succeeded", "endpoint": "/v1/chat/completions", "model": "gpt-4o-mini",
            "tag": null, "lane": "batch", "reason": "batch, 6h left: over 99 % answered in time",
            "admitted_at": "2026-11-22T17:25:46.000Z", "deadline": "2026-11-22T23:25:46.000Z",
            "late": false, "cost_usd": "0.000135", "attempts": [],
            "webhook": {"target": "https://example.com/hook", "status": "dead"},
            "timeline": [
                {"at": "2026-11-22T17:25:46.000Z", "event": "admitted", "lane": "batch",
                 "reason": "batch, 6h left", "cost_usd": null},
                {"at": "2026-11-22T17:36:12.480Z", "event": "answered", "lane": "batch",
                 "reason": null, "cost_usd": "0.000135"},
            ],
        })
    }

    #[test]
    fn for_people() {
        let plain = |text: &str| anstream::adapter::strip_str(text).to_string();
        let mut late = request();
        late["late"] = true.into();
        let list = json!({"data": [request(), late], "has_more": true});
        insta::assert_snapshot!("list", plain(&table(&list, Who::Caller)));
        insta::assert_snapshot!("one", plain(&detail(&request())));
        let none = json!({"data": [], "has_more": false});
        assert!(table(&none, Who::Operator).starts_with("There is no"));
    }
}
