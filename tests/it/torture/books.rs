//! What must hold in the end, and what of it must hold at any time.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use offpeak::{
    model::attempt::AttemptState,
    simulator::{Log, LoggedBatch, key_id},
};
use serde_json::Value;

use super::{
    coverage::Kept,
    load::Load,
    plan::Fate,
    register::{Erasure, Request},
};
use crate::kill::{
    PATIENCE, caller::Mode, hooks::Hooks, load::KEYS, pico_usd, process::Up, provider::Provider,
};

/// Between two looks at what must come about.
const LOOK: Duration = Duration::from_millis(250);

/// How long what must come about may take, on a machine that has other work too.
const ENDING: Duration = PATIENCE.saturating_mul(6);

/// What all tenants' ledgers and bills sum up to, in picodollars.
#[derive(Default, Debug)]
pub struct Money {
    pub ledger: u64,
    pub bill: u64,
    pub unaccounted: u64,
    pub paid_twice: u64,
    pub requests: u64,
    pub lanes: Vec<(String, u64)>,
}

/// A ledger has nothing that the provider has not billed: at any time.
pub async fn check_ledger(load: &Load, provider: &Provider) -> Money {
    let mut money = Money::default();
    for key in KEYS {
        let savings = load.get_json(key, "/offpeak/v1/savings").await;
        let total = &savings["total"];
        let paid = pico_usd(total["paid_usd"].as_str().unwrap_or("0"));
        let billed = billed(provider, key).0;
        if paid > billed {
            let what = format!("the ledger of {key} has {paid}, and its bill {billed}");
            load.register.violation(None, what);
        }
        money.ledger += paid;
        money.bill += billed;
        money.unaccounted += total["unaccounted"].as_u64().unwrap_or_default();
        money.paid_twice += total["paid_twice"].as_u64().unwrap_or_default();
        money.requests += total["requests"].as_u64().unwrap_or_default();
        for row in savings["by_lane"].as_array().into_iter().flatten() {
            let lane = row["lane"].as_str().unwrap_or("none").to_owned();
            let requests = row["requests"].as_u64().unwrap_or_default();
            money.lanes.push((lane, requests));
        }
    }
    money
}

/// A tenant's bill, and the dearest that one call of its can have been.
fn billed(provider: &Provider, key: &str) -> (u64, u64) {
    let bill = provider.simulator.bill();
    let rows: Vec<_> = bill
        .rows
        .iter()
        .filter(|row| row.key == key_id(key))
        .collect();
    let dearest = rows.iter().map(|row| row.pico_usd / row.calls * 2).max();
    let sum = rows.iter().map(|row| row.pico_usd).sum();
    (sum, dearest.unwrap_or_default())
}

/// Ledger ≤ bill ≤ ledger + unaccounted, by tenant, once all second batches were seen.
pub async fn check_bill(load: &Load, provider: &Provider) -> Money {
    for key in KEYS {
        let mut told = String::new();
        let covered = until(async || {
            let savings = load.get_json(key, "/offpeak/v1/savings").await;
            let paid = pico_usd(savings["total"]["paid_usd"].as_str().unwrap_or("0"));
            let lost = savings["total"]["unaccounted"].as_u64().unwrap_or_default();
            let (billed, dearest) = billed(provider, key);
            told = format!("{key}: bill {billed}, ledger {paid} and {lost} of {dearest} at most");
            billed <= paid + lost * dearest
        });
        if !covered.await {
            load.register.violation(None, told);
        }
    }
    check_ledger(load, provider).await
}

/// Whether it comes about in time.
pub async fn until(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let trying = async {
        while !condition().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(ENDING, trying).await.is_ok()
}

/// The list of requests tells what all others tell.
pub async fn check_list(load: &Load) {
    let mut listed: HashMap<String, Option<u64>> = HashMap::new();
    for key in KEYS {
        let mut next = String::new();
        loop {
            let path = format!("/offpeak/v1/requests?limit=100{next}");
            let page = load.get_json(key, &path).await;
            for row in page["data"].as_array().into_iter().flatten() {
                let id = row["id"].as_str().unwrap_or_default().to_owned();
                listed.insert(id, row["status_code"].as_u64());
            }
            if page["has_more"] != true {
                break;
            }
            next = format!("&after={}", page["next"].as_str().unwrap_or_default());
        }
    }
    let differing: Vec<String> = load.register.books(|books| {
        let differs = |id: &String, request: &Request| {
            let told = request.told.as_ref().map(|told| u64::from(told.status));
            match request.erasure {
                Erasure::None => listed.get(id) != Some(&told),
                _ => listed.contains_key(id),
            }
        };
        let requests = books.requests.iter();
        requests
            .filter(|(id, request)| differs(id, request))
            .map(|(id, _)| id.clone())
            .collect()
    });
    for id in differing {
        let what = format!("the list tells {:?}", listed.get(&id));
        load.register.violation(Some(&id), what);
    }
}

/// No line is in two batches at a time, but in one and its twin.
pub fn check_submissions(load: &Load, log: &Log, kept: &Kept) {
    let twins = kept.batches.iter().filter(|batch| batch.twin_of.is_some());
    let twins: BTreeSet<&str> = twins
        .flat_map(|twin| [twin.provider_id.as_deref(), twin.input_file.as_deref()])
        .flatten()
        .collect();
    let is_twin = |batch: &LoggedBatch| {
        twins.contains(batch.id.as_str()) || twins.contains(batch.input_file_id.as_str())
    };
    let batches: HashMap<&str, &LoggedBatch> = log
        .batches
        .iter()
        .map(|batch| (batch.id.as_str(), batch))
        .collect();
    for (id, of) in &log.custom_ids {
        let mut of: Vec<_> = of
            .iter()
            .filter_map(|batch| batches.get(batch.as_str()))
            .filter(|batch| !is_twin(batch))
            .collect();
        of.sort_by_key(|batch| (batch.created_at, batch.ended_at));
        for pair in of.windows(2) {
            if pair[1].created_at < pair[0].ended_at {
                let what = format!("in two batches at a time: {pair:#?}");
                load.register.violation(Some(id), what);
            }
        }
    }
}

/// Each call ran as often as its requests say.
pub fn check_runs(load: &Load, log: &Log, kept: &Kept) {
    let runs: HashMap<&str, u32> = log
        .requests
        .iter()
        .map(|seen| (seen.fingerprint.as_str(), seen.runs.values().sum()))
        .collect();
    let mut of_call: HashMap<usize, Vec<(String, bool, bool)>> = HashMap::new();
    load.register.books(|books| {
        for (id, request) in &books.requests {
            let is_answered = request.told.as_ref().is_some_and(|told| told.status == 200);
            let is_here = request.erasure == Erasure::None;
            let requests = of_call.entry(request.number).or_default();
            requests.push((id.clone(), is_answered, is_here));
        }
    });
    for (number, requests) in of_call {
        if requests.iter().any(|(_, _, is_here)| !is_here) {
            continue;
        }
        let plan = load.register.plan(number);
        let ran = runs.get(plan.call.fingerprint().as_str());
        let ran = ran.copied().unwrap_or_default();
        let of_state = |state: AttemptState| {
            let attempts = requests.iter().filter_map(|(id, ..)| kept.attempts.get(id));
            let attempts = attempts.flatten().filter(|attempt| attempt.state == state);
            attempts.count() as u32
        };
        let answered = requests.iter().filter(|(_, answered, _)| *answered).count() as u32;
        let explained = answered + of_state(AttemptState::Late);
        let lost = of_state(AttemptState::Unaccounted);
        if !(explained..=explained + lost).contains(&ran) || of_state(AttemptState::Open) > 0 {
            let what = format!(
                "it ran {ran} times, not {explained} to {}",
                explained + lost
            );
            load.register
                .violation(Some(&requests[0].0), format!("{what}: {plan:?}"));
        }
    }
}

/// At least once for each request that asked for one, always with the same id, and
/// signed with its tenant's secret.
pub async fn check_webhooks(load: &Load, hooks: &Hooks) -> usize {
    let wanted: HashMap<String, usize> = load.register.books(|books| {
        let requests = books.requests.iter();
        requests
            .map(|(id, request)| (id.clone(), request.number))
            .filter(|(_, number)| load.register.plan(*number).call.mode == Mode::Webhook)
            .collect()
    });
    let missing = || {
        let came = hooks.by_request();
        wanted.keys().find(|id| !came.contains_key(*id)).cloned()
    };
    if !until(async || missing().is_none()).await {
        load.register
            .violation(missing().as_deref(), "its webhook did not come");
    }
    let mut ids: HashMap<String, String> = HashMap::new();
    for (request, received) in hooks.by_request() {
        let Some(number) = wanted.get(&request) else {
            load.register
                .violation(Some(&request), "a webhook that nobody asked for");
            continue;
        };
        let plan = load.register.plan(*number);
        for hook in &received {
            let other = ids.insert(hook.id.clone(), request.clone());
            let told = load.register.books(|books| {
                books
                    .requests
                    .get(&request)
                    .and_then(|known| known.told.clone())
            });
            let kind = match plan.fate {
                _ if told.as_ref().is_some_and(|told| told.status == 200) => "succeeded",
                Fate::Cancelled => "cancelled",
                _ => "failed",
            };
            let is_right = hook.signed_by.map(|tenant| KEYS[tenant]) == Some(plan.call.key)
                && hook.id == received[0].id
                && other.is_none_or(|other| other == request)
                && hook.event["id"].as_str() == Some(hook.id.as_str())
                && hook.event["type"].as_str() == Some(&format!("offpeak.request.{kind}"))
                && told.is_none_or(|told| hook.event["data"]["status_code"] == told.status);
            if !is_right {
                load.register
                    .violation(Some(&request), format!("its webhook: {hook:?}"));
            }
        }
    }
    wanted.len()
}

/// Of no batch that we know of is a file left. A file whose upload nobody heard the
/// end of may be; it expires by itself. Returns how many are.
pub async fn check_files(load: &Load, provider: &Provider) -> usize {
    let up = Up {
        start: 0,
        base: provider.upstream().trim_end_matches("/v1").into(),
    };
    let mut left = Vec::new();
    let deleted = until(async || {
        let log = provider.simulator.log();
        let batches = log.batches.iter();
        let inputs: BTreeSet<&str> = batches.map(|batch| batch.input_file_id.as_str()).collect();
        left.clear();
        for key in KEYS {
            left.extend(load.files(&up, key).await);
        }
        let is_known = |file: &Value| {
            let id = file["id"].as_str().unwrap_or_default();
            file["purpose"] != "batch" || inputs.contains(id)
        };
        !left.iter().any(is_known)
    });
    if !deleted.await {
        load.register
            .violation(None, format!("files are left: {left:#?}"));
    }
    for file in left.iter().filter(|file| !file["expires_at"].is_number()) {
        load.register
            .violation(None, format!("it never expires: {file}"));
    }
    left.len()
}

/// No panic, no illegal transition, no record that cannot be read; errors only of a
/// full disk. Returns the first line that says otherwise.
pub fn bad_line(log: &str) -> Option<&str> {
    log.lines().find(|line| {
        let worst = ["panicked", "illegal", "corrupt", "damaged"];
        worst.iter().any(|word| line.contains(word)) || line.contains("ERROR") && !is_full(line)
    })
}

pub fn is_full(line: &str) -> bool {
    ["the disk is full", "No space left"]
        .iter()
        .any(|told| line.contains(told))
}
