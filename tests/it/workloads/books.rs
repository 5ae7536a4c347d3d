//! What must hold when a workload is over, by the public API and the provider's
//! own log and bill.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use offpeak::{model::money::Usd, simulator::Bill};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::calls::Client;
use crate::app::{HANG, TestApp};

/// How it went.
#[derive(Debug)]
pub struct Books {
    /// Calls that were promised to be in time, and were.
    pub firm: u32,
    pub rescued: u32,
    /// Answers by the lane that the provider billed.
    pub lanes: BTreeMap<String, u64>,
    /// Answers that came after their deadline: nothing was promised of them.
    pub late: u32,
    /// Batches that were created, the lines of the largest, and those cancelled.
    pub batches: usize,
    pub largest: usize,
    pub cancelled: usize,
    /// Of those, how many had answers to some of their lines and not to others.
    pub in_part: usize,
    pub paid: Usd,
    pub standard: Usd,
}

impl Books {
    /// What was paid is at most this share of the ordinary price.
    pub fn cost_at_most(&self, share: f64) {
        let cost = self.paid.as_pico() as f64 / self.standard.as_pico() as f64;
        assert!(cost <= share, "{cost:.3} of the ordinary price: {self:?}");
    }

    /// Answers that came in this lane.
    pub fn by(&self, lane: &str) -> u64 {
        self.lanes.get(lane).copied().unwrap_or(0)
    }
}

/// Checks that each of these requests ended once, in time where that was promised,
/// and that all books agree.
pub async fn check(app: &TestApp, requests: Vec<String>) -> Books {
    let client = Client::new(app);
    let cleared = timeout(HANG, cleared(app, &client)).await;
    cleared.expect("something is left at the provider");

    let known: BTreeSet<String> = requests.iter().cloned().collect();
    assert_eq!(known.len(), requests.len(), "two calls, one request");
    let feed = feed(&client).await;
    assert_eq!(feed.len(), known.len(), "ended twice, or never");
    assert_eq!(feed.into_iter().collect::<BTreeSet<_>>(), known);

    let mut firm = 0;
    let mut also_paid = 0;
    for id in &requests {
        let view = client.json(&format!("/offpeak/v1/requests/{id}")).await;
        assert_eq!(view["status"], "succeeded", "{view:#}");
        let attempts = view["attempts"].as_array().unwrap();
        let states = attempts.iter().map(|attempt| &attempt["state"]);
        assert!(states.clone().all(|state| state != "open"), "{view:#}");
        also_paid += states.filter(|state| *state == "late").count() as u64;
        let instant = |name: &str| instant(&view[name]);
        if view["guarantee"] == "firm" {
            let late = instant("finished_at").duration_since(instant("deadline"));
            let late = late.unwrap_or(Duration::ZERO);
            assert_eq!(late, Duration::ZERO, "firm and late: {view:#}");
            firm += 1;
        }
    }

    let log = app.simulator.log();
    assert_eq!(log.overlapping(), [""; 0], "in two batches at a time");
    let lines = log.batches.iter().map(|batch| batch.lines);
    let cancelled = log.batches.iter();
    let cancelled = cancelled.filter(|batch| batch.status == "cancelled");
    let savings = client.json("/offpeak/v1/savings").await;
    let lanes = check_money(&savings, &app.simulator.bill(), requests.len(), also_paid);
    Books {
        firm,
        rescued: number(&savings["total"], "rescued") as u32,
        lanes,
        late: number(&savings["total"], "late") as u32,
        batches: log.batches.len(),
        largest: lines.max().unwrap_or(0),
        cancelled: cancelled.count(),
        in_part: in_part(&client).await,
        paid: usd(&savings["total"], "paid_usd"),
        standard: usd(&savings["total"], "standard_usd"),
    }
}

/// Waits until every batch is settled and every file deleted.
async fn cleared(app: &TestApp, client: &Client) {
    let ended = ["completed", "cancelled"];
    loop {
        let batches = app.simulator.log().batches;
        let is_open = |status: &str| !ended.contains(&status);
        let open = batches.iter().filter(|batch| is_open(batch.status)).count();
        let files = client.json("/v1/files").await;
        if open == 0 && files["data"].as_array().unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Batches with answers to some of their lines, by the provider's own counts.
async fn in_part(client: &Client) -> usize {
    let batches = client.json("/v1/batches?limit=100").await;
    let in_part = |batch: &&Value| {
        let counts = &batch["request_counts"];
        let completed = number(counts, "completed");
        completed > 0 && completed < number(counts, "total")
    };
    let batches = batches["data"].as_array().unwrap();
    batches.iter().filter(in_part).count()
}

/// The requests that have ended, in that order.
async fn feed(client: &Client) -> Vec<String> {
    let lines = client.text("/offpeak/v1/results?limit=1000").await;
    let read = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let lines = lines.lines().map(read);
    lines.map(|line| text(&line, "id").to_owned()).collect()
}

/// The ledger is the bill, and its rows add up. Returns the answers of each lane.
fn check_money(
    savings: &Value,
    bill: &Bill,
    calls: usize,
    also_paid: u64,
) -> BTreeMap<String, u64> {
    let total = &savings["total"];
    for (name, expected) in [
        ("requests", calls as u64),
        ("succeeded", calls as u64),
        ("paid_twice", also_paid),
        ("unaccounted", 0),
        ("unpriced", 0),
    ] {
        assert_eq!(number(total, name), expected, "{name}: {total:#}");
    }
    let billed = Usd::from_pico(i128::from(bill.total_pico_usd));
    assert_eq!(usd(total, "paid_usd"), billed, "{total:#}\n{bill:#?}");
    let answers: u64 = bill.rows.iter().map(|row| row.calls).sum();
    assert_eq!(answers, calls as u64 + also_paid, "{bill:#?}");
    for rows in ["by_lane", "by_model", "by_tag", "by_day"] {
        let rows = savings[rows].as_array().unwrap();
        for name in ["requests", "succeeded", "late", "rescued", "paid_twice"] {
            let sum: u64 = rows.iter().map(|row| number(row, name)).sum();
            assert_eq!(sum, number(total, name), "{name}: {savings:#}");
        }
        for name in ["paid_usd", "standard_usd", "rescue_paid_usd"] {
            let sum: Usd = rows.iter().map(|row| usd(row, name)).sum();
            assert_eq!(sum, usd(total, name), "{name}: {savings:#}");
        }
    }
    let lanes = savings["by_lane"].as_array().unwrap();
    for row in lanes {
        let bills = bill.rows.iter();
        let bills = bills.filter(|bill| json!(bill.lane) == row["lane"]);
        let (calls, paid) = bills.fold((0, 0), |(calls, paid), bill| {
            (calls + bill.calls, paid + i128::from(bill.pico_usd))
        });
        let answers = number(row, "requests") + number(row, "paid_twice");
        assert_eq!(answers, calls, "{row:#}\n{bill:#?}");
        assert_eq!(
            usd(row, "paid_usd"),
            Usd::from_pico(paid),
            "{row:#}\n{bill:#?}"
        );
    }
    let lane = |row: &Value| (text(row, "lane").to_owned(), number(row, "requests"));
    lanes.iter().map(lane).collect()
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name}: {row}"))
}

fn number(row: &Value, name: &str) -> u64 {
    row[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name}: {row}"))
}

fn usd(row: &Value, name: &str) -> Usd {
    text(row, name).parse().unwrap()
}

fn instant(text: &Value) -> SystemTime {
    humantime::parse_rfc3339(text.as_str().unwrap()).unwrap()
}
