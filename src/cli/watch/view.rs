//! What the screen says.

use serde_json::Value;

use crate::{
    cli::{
        Failure, batches,
        dollars::{amount, decimals_for, dollars},
        operate,
        table::{BOLD, Cell, Table},
    },
    model::time::Timestamp,
};

/// One look at the server.
pub struct Look {
    pub status: Value,
    pub savings: Value,
}

#[derive(Default)]
pub struct Seen {
    /// The last that was had.
    pub now: Option<Look>,
    /// Why there is none that is newer.
    pub trouble: Option<String>,
}

impl Seen {
    pub fn add(&mut self, looked: Result<Look, Failure>) {
        match looked {
            Ok(look) => (self.now, self.trouble) = (Some(look), None),
            Err(failure) => self.trouble = Some(failure.to_string()),
        }
    }

    pub fn text(&self, server: &str, now: Timestamp) -> String {
        let mut text = format!("{BOLD}Offpeak{BOLD:#} {server}  (q ends)\n\n");
        if let Some(trouble) = &self.trouble {
            text += &format!("{}\n\n", Cell::warning(trouble.as_str()));
        }
        let Some(Look { status, savings }) = &self.now else {
            return text;
        };
        text += &format!("{}\n", operate::headline(status));
        text += &times(status, now);
        text += &money(savings);
        for warning in operate::warnings(status) {
            text += &format!("{}\n", Cell::warning(warning));
        }
        for table in [batches::table(&status["batches"]), live(&status["live"])] {
            if !table.is_empty() {
                text += &format!("\n{table}");
            }
        }
        text
    }
}

fn times(status: &Value, now: Timestamp) -> String {
    let instant = |name: &str| {
        let at: jiff::Timestamp = status[name].as_str()?.parse().ok()?;
        let millis = u64::try_from(at.as_millisecond()).ok()?;
        Some(Timestamp::from_millis(millis))
    };
    let mut text = String::new();
    if let Some(oldest) = instant("oldest_queued_at") {
        let age = batches::age(now.since(oldest).as_secs());
        text += &format!("the oldest in the queue waits since {age}\n");
    }
    if let Some(deadline) = instant("earliest_deadline") {
        text += &match deadline > now {
            true => {
                let left = batches::age(now.until(deadline).as_secs());
                format!("the earliest deadline is in {left}\n")
            }
            false => {
                let late = batches::age(now.since(deadline).as_secs());
                format!("{}\n", Cell::warning(format!("late since {late}")))
            }
        };
    }
    text
}

fn money(savings: &Value) -> String {
    let total = &savings["total"];
    let sum = |name: &str| amount(&total[name]).unwrap_or_default();
    let (paid, standard, saved) = (sum("paid_usd"), sum("standard_usd"), sum("saved_usd"));
    let decimals = decimals_for(paid.max(standard));
    let shown = |amount| dollars(amount, decimals);
    let share = match standard > 0.0 {
        true => format!(" ({:.0} %)", 100.0 * saved / standard),
        false => String::new(),
    };
    let count = |name: &str| total[name].as_u64().unwrap_or_default();
    format!(
        "saved {}{share}: paid {}, the ordinary price is {}\n\
         {} answered, {} rescued, {} late\n",
        Cell::good(shown(saved)),
        shown(paid),
        shown(standard),
        count("succeeded"),
        count("rescued"),
        count("late"),
    )
}

fn live(scopes: &Value) -> Table {
    let mut table = Table::new([
        ("live calls of", false),
        ("organization", false),
        ("in flight", true),
        ("limit", true),
        ("calls/s", true),
        ("paused until", false),
    ]);
    for scope in scopes.as_array().into_iter().flatten() {
        let rate = scope["calls_per_second"].as_f64();
        table.push([
            Cell::value(&scope["model"]),
            Cell::value(&scope["organization"]),
            Cell::value(&scope["in_flight"]),
            Cell::value(&scope["limit"]),
            Cell::from(rate.map_or("-".into(), |rate| format!("{rate:.1}"))),
            match &scope["paused_until"] {
                Value::Null => Cell::from(""),
                until => Cell::warning(until.as_str().unwrap_or_default()),
            },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_for_people() {
        let status = json!({
            "paused": false, "open_batches": 1,
            "requests": {"open": 1201, "queued": 1, "in_batches": 1200, "live": 0},
            "rescue_budgets_spent": 0, "refused_keys": [], "upstream_warning": null,
            "oldest_queued_at": "2026-11-22T11:58:48.000Z",
            "earliest_deadline": "2026-11-22T17:58:48.000Z",
            "live": [{"model": "o3", "organization": "org-acme", "in_flight": 3, "limit": 64,
                "calls_per_second": 30.41, "paused_until": null}],
            "batches": [{"id": "ob_1", "state": "submitted", "model": "o3", "lines": 1200,
                "finished_lines": 600, "age_seconds": 61, "provider_id": "batch_abc",
                "provider_status": "in_progress", "last_error": null,
                "earliest_deadline": "2026-11-22T23:20:00.000Z"}],
        });
        let savings = json!({"total": {"paid_usd": "0.5", "standard_usd": "1.25",
            "saved_usd": "0.75", "succeeded": 800, "rescued": 2, "late": 0}});
        let mut seen = Seen::default();
        seen.add(Ok(Look { status, savings }));
        let now = Timestamp::from_secs(1_795_348_800);
        let text = |seen: &Seen| {
            let text = seen.text("http://127.0.0.1:8080", now);
            anstream::adapter::strip_str(&text).to_string()
        };
        insta::assert_snapshot!(text(&seen));
        // What was seen last stays while the server is away.
        seen.add(Err(Failure::Other("no answer".into())));
        let away = text(&seen);
        assert!(
            away.contains("no answer") && away.contains("1201 open"),
            "{away}"
        );
    }
}
