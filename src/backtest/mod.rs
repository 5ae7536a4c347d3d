//! Policies played on a trace, in virtual time: what each would have paid and
//! missed. Offpeak's own goes through the very functions of `policy` that the
//! server uses; the others are what it is measured against.

mod baselines;
mod blind;
mod clairvoyant;
mod cohorts;
mod draw;
pub mod latency;
mod learner;
mod live;
mod offpeak;
pub mod plot;
pub mod report;
mod tally;
pub mod trace;
pub mod workload;
mod world;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::learner::Settings;
use self::{
    baselines::{AlwaysLive, Fixed, Rescue},
    blind::{Best, BestBlind},
    clairvoyant::clairvoyant,
    latency::Law,
    offpeak::Offpeak,
    report::{Policy, Report},
    tally::Tally,
    trace::{Request, Trace},
    world::play,
};

/// In the order in which they are shown.
pub const POLICIES: [&str; 7] = [
    "always-live",
    "batch-and-hope",
    "fixed-reserve",
    "last-moment",
    "offpeak",
    "best-blind",
    "clairvoyant",
];

/// What the server kept before every deadline when it had no plan.
const RESERVE: Rescue = Rescue::Reserve {
    reserve: Duration::from_secs(1800),
    last_call: Duration::from_secs(900),
};

/// Plays every policy on the trace. The same arguments give the same report.
pub fn run(workload: &str, trace: &Trace, law: &Law, settings: &Settings, seed: u64) -> Report {
    let requests = &trace.requests;
    let longest = (requests.iter().map(Request::slack).max()).unwrap_or_default();
    let price = requests.first().map_or(0.5, Request::price);
    let best = Best::new(law, price, longest);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        // Heavy ones first and in one of two threads each.
        let halves = [&POLICIES[..4], &POLICIES[4..]];
        let best = &best;
        let played = halves.map(|half| {
            scope.spawn(move || {
                let tally = |name: &&str| one(name, requests, law, settings, seed, best);
                half.iter().map(tally).collect::<Vec<_>>()
            })
        });
        let joined = played.map(|thread| thread.join().unwrap_or_default());
        joined.into_iter().flatten().collect()
    });
    let costs: Vec<_> = tallies.iter().map(|tally| tally.cost).collect();
    let cost = |name: &str| {
        let index = POLICIES.iter().position(|other| *other == name);
        index.and_then(|index| costs.get(index).copied())
    };
    let (blind, seen) = (cost("best-blind"), cost("clairvoyant"));
    let policies = POLICIES
        .into_iter()
        .zip(tallies)
        .map(|(name, tally)| Policy::new(name, tally, seen, blind))
        .collect();
    let expected =
        |request: &Request| best.cost(request.slack()) * request.standard.as_pico() as f64 / 1e12;
    Report {
        best_blind_expected_usd: requests.iter().map(expected).sum(),
        workload: workload.to_owned(),
        seed,
        requests: requests.len(),
        law: law.clone(),
        policies,
    }
}

fn one(
    name: &str,
    requests: &[Request],
    law: &Law,
    settings: &Settings,
    seed: u64,
    best: &Best,
) -> Tally {
    let packing = &settings.packing;
    let fixed = |rescue| play(requests, law, seed, &mut Fixed::new(rescue, packing));
    match name {
        "always-live" => play(requests, law, seed, &mut AlwaysLive),
        "batch-and-hope" => fixed(Rescue::Never),
        "fixed-reserve" => fixed(RESERVE),
        "last-moment" => fixed(Rescue::LastMoment),
        "offpeak" => {
            let mut offpeak = Offpeak::new(settings.clone(), law, requests);
            play(requests, law, seed, &mut offpeak)
        }
        "best-blind" => play(requests, law, seed, &mut BestBlind::new(best, requests)),
        _ => clairvoyant(requests, law, seed),
    }
}
