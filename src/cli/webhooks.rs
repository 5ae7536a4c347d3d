//! `offpeak webhooks`: deliveries, dead letters, and a try of a receiver.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Failure, ids, pages,
    say::{say, show},
    server::{Server, Who},
    table::{Cell, Table},
};
use crate::model::id::RequestId;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only dead letters.
    #[arg(long)]
    dead: bool,
    /// So many at most.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Those of all tenants, by the admin token; else what is OPENAI_API_KEY's. Listed are then
    /// dead letters only.
    #[arg(long, global = true)]
    all: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Send again: all dead letters of a target, or those of one request.
    Redeliver {
        /// An https URL or a configured name, or `op_…`.
        target: String,
    },
    /// Send a test event to a target and tell what it answers. Exit code 1: it did not take it.
    Test {
        /// An https URL or a configured name.
        target: String,
    },
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let (server, who) = (&args.server, Who::all(args.all));
    match &args.command {
        None => {
            let query = match args.dead || args.all {
                true => "status=dead",
                false => "",
            };
            let list = pages::list(server, who, ("webhooks", query), args.limit).await?;
            match server.json {
                true => say(&list)?,
                false => show(table(&list))?,
            }
        }
        Some(Command::Redeliver { target }) if target.starts_with(RequestId::PREFIX) => {
            let id = ids::check(target, RequestId::PREFIX, "as `offpeak webhooks` has it")?;
            let path = who.path(&format!("requests/{id}/redeliver"));
            let request = server.ask(who, Method::POST, &path, None).await?;
            match server.json {
                true => say(&request)?,
                false => say(format_args!("{id} is sent again."))?,
            }
        }
        Some(_) if args.all => {
            return Err(Failure::Other(
                "a target is a tenant's: without --all, with that tenant's key in \
                 OPENAI_API_KEY"
                    .into(),
            ));
        }
        Some(Command::Redeliver { target }) => {
            let sent = redeliver(server, target).await?;
            match server.json {
                true => say(
                    json!({"object": "offpeak.webhook_redelivery", "redelivered": sent,
                           "has_more": false}),
                )?,
                false => say(format_args!(
                    "{sent} dead letters of {target} are sent again."
                ))?,
            }
        }
        Some(Command::Test { target }) => {
            let body = json!({"target": target});
            let path = Who::Caller.path("webhooks/test");
            let tested = (server.ask(Who::Caller, Method::POST, &path, Some(&body))).await?;
            match server.json {
                true => say(&tested)?,
                false => say(verdict(target, &tested))?,
            }
            if tested["delivered"] != true {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A target is a tenant's: so is what is dead there.
async fn redeliver(server: &Server, target: &str) -> Result<u64, Failure> {
    let body = json!({"target": target});
    let path = Who::Caller.path("webhooks/redeliver");
    let mut sent = 0;
    loop {
        let some = (server.ask(Who::Caller, Method::POST, &path, Some(&body))).await?;
        sent += some["redelivered"].as_u64().unwrap_or_default();
        if some["has_more"] != true || some["redelivered"] == 0 {
            return Ok(sent);
        }
    }
}

fn verdict(target: &str, tested: &Value) -> String {
    let target = Cell::from(target);
    match (tested["delivered"] == true, tested["status_code"].as_u64()) {
        (true, Some(status)) => format!("{target} took it ({status})."),
        (true, None) => format!("{target} took it."),
        (false, _) => {
            let why = Cell::from(tested["error"].as_str().unwrap_or_default());
            format!("{target} did not take it: {why}")
        }
    }
}

fn table(list: &Value) -> String {
    let mut table = Table::new([
        ("request", false),
        ("status", false),
        ("tries", true),
        ("next try", false),
        ("target", false),
        ("last error", false),
    ]);
    for hook in list["data"].as_array().into_iter().flatten() {
        table.push([
            Cell::value(&hook["request_id"]),
            Cell::status(hook["status"].as_str().unwrap_or("?")),
            Cell::value(&hook["tries"]),
            Cell::instant(&hook["next_try_at"]),
            Cell::value(&hook["target"]),
            match &hook["last_error"] {
                Value::Null => Cell::from(""),
                error => Cell::warning(error.as_str().unwrap_or_default()),
            },
        ]);
    }
    match table.is_empty() {
        true => "There is none.\n".into(),
        false => format!("{table}{}", pages::more(list)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        let hook = |status: &str, error: Value| {
            json!({"request_id": "op_01kap9kdcg0000040000000000", "status": status, "tries": 19,
                "target": "https://example.com/hooks/offpeak", "next_try_at": null,
                "last_error": error})
        };
        let dead = hook("dead", "the receiver did not answer in time".into());
        let list = json!({"data": [dead, hook("delivered", Value::Null)]});
        let plain = |list: &Value| anstream::adapter::strip_str(&table(list)).to_string();
        insta::assert_snapshot!(plain(&list));
        let mut cut = list.clone();
        cut["has_more"] = true.into();
        assert!(plain(&cut).ends_with("There are more: --limit.\n"));
        let refused = json!({"delivered": false, "status_code": 503, "error": "503"});
        assert_eq!(verdict("a", &refused), "a did not take it: 503");
        let taken = json!({"delivered": true, "status_code": 204, "error": null});
        assert_eq!(verdict("a", &taken), "a took it (204).");
    }
}
