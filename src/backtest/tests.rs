use std::time::Duration;

use proptest::prelude::*;

use super::{
    latency::{Flex, Law, Stall},
    trace::START,
    workload::{WORKLOADS, Workload},
    world::{Over, Player, RequestIx, World},
    *,
};
use crate::{
    ledger::Prices,
    model::{money::Usd, time::Timestamp},
};

/// Acts at given seconds on a batch of all requests, which is sent at zero.
struct Script {
    count: u32,
    acts: Vec<(u64, Act)>,
    over: Vec<(u64, usize, usize)>,
}

#[derive(Clone, Copy)]
enum Act {
    Cancel,
    Live,
}

impl Player for Script {
    fn arrived(&mut self, world: &mut World, request: RequestIx) {
        if request + 1 == self.count {
            world.submit((0..self.count).collect());
            for (token, (at, _)) in (0..).zip(&self.acts) {
                world.wake_at(second(*at), token);
            }
        }
    }

    fn woken(&mut self, world: &mut World, token: u64) {
        match self.acts[token as usize].1 {
            Act::Cancel => world.cancel(0),
            Act::Live => (0..self.count).for_each(|request| world.live(request, 0)),
        }
    }

    fn over(&mut self, world: &mut World, over: Over) {
        let at = START.until(world.now).as_secs();
        self.over.push((at, over.finished.len(), over.left.len()));
        for request in over.left {
            world.live(request, 0);
        }
    }
}

fn second(at: u64) -> Timestamp {
    START + Duration::from_secs(at)
}

const STANDARD: i128 = 1000;

fn requests(count: u32, slack: u64) -> Vec<Request> {
    let request = Request {
        arrival: START,
        deadline: second(slack),
        model: 0,
        bytes: 100,
        standard: Usd::from_pico(STANDARD),
        cheap: Usd::from_pico(STANDARD / 2),
    };
    vec![request; count as usize]
}

/// Half of the lines take 100 s and half 1000 s; a cancel 100 s.
fn law(together: bool) -> Law {
    let mut law = Law::default();
    law.batch.quantiles = vec![(0.5, 100.0), (0.500_001, 1000.0), (1.0, 1000.0)];
    law.batch.quantiles.insert(0, (1e-9, 100.0));
    law.batch.never = 0.0;
    law.batch.cancel = 100.0;
    law.batch.together = together;
    law
}

fn script(law: &Law, slack: u64, acts: &[(u64, Act)]) -> (Tally, Vec<(u64, usize, usize)>) {
    let requests = requests(40, slack);
    let mut script = Script {
        count: 40,
        acts: acts.to_vec(),
        over: Vec::new(),
    };
    let tally = play(&requests, law, 3, &mut script);
    (tally, script.over)
}

#[test]
fn a_batch_answers_when_its_last_line_is_done() {
    let (tally, over) = script(&law(false), 2000, &[]);
    assert_eq!(over, [(1000, 40, 0)]);
    assert_eq!(tally.cost, Usd::from_pico(40 * STANDARD / 2));
    assert_eq!((tally.missed, tally.standard), (0, 0));
}

#[test]
fn a_cancel_brings_and_bills_what_was_done_when_it_took_effect() {
    // Asked for at 50 s, it takes effect at 150 s, and the fast half is there.
    let (tally, over) = script(&law(false), 2000, &[(50, Act::Cancel), (60, Act::Cancel)]);
    let [(150, done, left)] = over[..] else {
        panic!("{over:?}")
    };
    assert!(done > 10 && done + left == 40, "{over:?}");
    let (done, left) = (done as i128, left as i128);
    let paid = done * STANDARD / 2 + left * STANDARD;
    assert_eq!(tally.cost, Usd::from_pico(paid));
    assert_eq!(tally.rescued, left as u64);
    assert_eq!(tally.paid_twice, 0);
}

#[test]
fn what_is_overtaken_and_done_is_paid_twice() {
    let overtake = [(50, Act::Live), (50, Act::Cancel)];
    let (tally, over) = script(&law(false), 2000, &overtake);
    let [(150, done, 0)] = over[..] else {
        panic!("{over:?}")
    };
    let paid = 40 * STANDARD + done as i128 * STANDARD / 2;
    assert_eq!(tally.cost, Usd::from_pico(paid));
    assert_eq!(tally.paid_twice, done as u64);
    assert_eq!(tally.answered, 40);
}

#[test]
fn a_stall_shifts_a_batch_and_no_call() {
    let mut law = law(false);
    law.stall.push(Stall {
        from: 50.0,
        until: 250.0,
    });
    let (tally, over) = script(&law, 1100, &[]);
    assert_eq!(over, [(1200, 40, 0)]);
    assert_eq!((tally.missed, tally.late_most.as_secs()), (40, 100));
    let (tally, _) = script(&law, 1100, &[(100, Act::Live)]);
    assert_eq!((tally.missed, tally.paid_twice), (0, 40));
}

#[test]
fn a_batch_expires_with_what_it_has() {
    let mut law = law(false);
    law.batch.expires = 500.0;
    let (tally, over) = script(&law, 2000, &[]);
    assert!(matches!(over[..], [(500, done, left)] if done > 10 && left > 10));
    assert_eq!(tally.paid_twice, 0);
}

#[test]
fn ordinary_calls_wait_for_capacity() {
    let mut law = law(true);
    law.live.per_second = Some(2.0);
    // Two at once, and two a second: the last of 40 begins at 19 s, and takes 20.
    for (slack, missed) in [(39, 0), (38, 2), (20, 38)] {
        let tally = play(&requests(40, slack), &law, 3, &mut AlwaysLive);
        assert_eq!(tally.missed, missed, "{slack} s");
    }
    law.live.per_second = None;
    law.live.at_a_time = Some(10);
    let tally = play(&requests(40, 60), &law, 3, &mut AlwaysLive);
    assert_eq!((tally.missed, tally.late_most.as_secs()), (10, 20));
}

/// Those that are compiled in.
pub fn settings() -> Settings {
    let defaults = include_str!("../../config/default.toml");
    let defaults: toml::Table = defaults.parse().unwrap();
    let section = |name: &str| defaults[name].clone();
    Settings::new(
        section("packing").try_into().unwrap(),
        &section("ladder").try_into().unwrap(),
        &section("rescue").try_into().unwrap(),
    )
}

fn small(name: &str, count: u32, seed: u64) -> Report {
    let workload = Workload::named(name).unwrap();
    let prices = Prices::built_in().unwrap();
    let trace = workload.trace(seed, count, &prices).unwrap();
    run(name, &trace, &(workload.law)(), &settings(), seed)
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let text = |report: Report| serde_json::to_string(&report).unwrap();
    for name in ["slack-15m", "flex", "slow-live"] {
        let (one, other) = (text(small(name, 300, 1)), text(small(name, 300, 1)));
        assert_eq!(one, other, "{name}");
    }
}

#[test]
fn offpeak_pays_about_what_the_best_blind_policy_pays() {
    for name in [
        "slack-5m",
        "slack-15m",
        "slack-1h",
        "flex",
        "apart",
        "stall",
    ] {
        // Of a few thousand requests luck is a percent: three days of them.
        let days = [1, 2, 3].map(|seed| small(name, 2000, seed));
        let cost = |policy: &str| -> f64 {
            let costs = days.iter().map(|day| day.policy(policy).unwrap().cost_usd);
            costs.sum::<Usd>().as_pico() as f64 / 1e12
        };
        let ratio = cost("offpeak") / cost("best-blind");
        // The goal is 1.01, of more requests than a test has time for: docs/simulate.md.
        assert!(ratio < 1.015, "{name}: {ratio}");
        assert!(cost("offpeak") < cost("always-live"), "{name}");
        for offpeak in days.iter().map(|day| day.policy("offpeak").unwrap()) {
            assert_eq!(
                (offpeak.missed, offpeak.missed_firm),
                (0, Some(0)),
                "{name}"
            );
        }
        // What is expected and what is had, where nothing stalls.
        let expected: f64 = days.iter().map(|day| day.best_blind_expected_usd).sum();
        let off = (cost("best-blind") / expected - 1.0).abs();
        assert!(off < 0.02 || name == "stall", "{name}: {off}");
    }
}

#[test]
fn the_json_has_its_keys() {
    let report = serde_json::to_value(small("flex", 50, 1)).unwrap();
    assert_eq!(report["workload"], "flex");
    assert_eq!(report["seed"], 1);
    assert_eq!(report["requests"], 50);
    assert_eq!(report["law"]["flex"]["refused"], 0.1);
    let policies = report["policies"].as_array().unwrap();
    let names: Vec<_> = policies
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, POLICIES);
    for policy in policies {
        for key in ["cost_usd", "ratio_to_clairvoyant", "ratio_to_best_blind"] {
            assert!(policy[key].as_f64().unwrap() > 0.0, "{policy}");
        }
        for key in ["missed", "rescued", "paid_twice"] {
            assert!(policy[key].is_u64(), "{policy}");
        }
        let cost = |of: &serde_json::Value| of["cost_usd"].as_f64().unwrap();
        let saved = 1.0 - cost(policy) / cost(&policies[0]);
        assert!((policy["saved"].as_f64().unwrap() - saved).abs() < 1e-9);
        let firm = policy["name"] == "offpeak";
        assert_eq!(policy["missed_firm"].is_u64(), firm, "{policy}");
    }
}

#[test]
fn the_table_says_what_is_saved() {
    let mut report = small("slack-15m", 50, 1);
    let costs = [1000, 1, 1, 1, 486, 1, 1];
    for (policy, cost) in report.policies.iter_mut().zip(costs) {
        policy.cost_usd = Usd::from_pico(cost * 1_000_000_000);
    }
    let table = report.table();
    let row = |name: &str| -> Vec<&str> {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap();
        row.split_whitespace().collect()
    };
    assert_eq!(row("policy")[1..4], ["cost", "saved", "missed"]);
    assert_eq!(row("always-live")[1..4], ["$1.0000", "0.0", "%"]);
    assert_eq!(row("offpeak")[1..4], ["$0.4860", "51.4", "%"]);

    let mut docs = report::Markdown::default();
    docs.push(Workload::named("slack-15m").unwrap(), &report);
    let lines: Vec<&str> = docs.text().lines().collect();
    let cell = |line: &str, index: usize| line.split('|').nth(index).unwrap().trim().to_owned();
    assert_eq!(
        (cell(lines[0], 3), cell(lines[2], 3)),
        ("**saved**".into(), "51.4 %".into())
    );
    let columns: Vec<usize> = lines.iter().map(|line| line.split('|').count()).collect();
    assert_eq!(columns, [columns[0]; 3]);
}

#[test]
fn the_plot_shows_every_policy() {
    let mut report = small("slack-15m", 50, 1);
    report.workload = "<&>".into();
    let svg = plot::svg(&report);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("&lt;&amp;>: 50 requests"));
    for name in POLICIES {
        assert!(svg.contains(&format!(">{name}</text>")), "{name}");
    }
    let curves: Vec<&str> = svg.split("<polyline").skip(1).collect();
    assert_eq!(curves.len(), POLICIES.len());
    // On top, and with gaps that show what is under it.
    let last = curves[curves.len() - 1];
    assert!(last.contains("<title>offpeak</title>") && last.contains("dasharray"));
    let always = report.policy("always-live").unwrap().cost_usd.as_pico() as f64 / 1e12;
    assert!(svg.contains(&format!("100.0 % (${always:.4})<")), "{svg}");
}

#[test]
fn the_marks_under_the_curves_do_not_touch() {
    let svg = plot::svg(&small("slack-15m", 50, 1));
    let marks = svg
        .lines()
        .filter(|line| line.contains(r#"text-anchor="middle""#));
    let ends: Vec<(f64, f64)> = marks
        .map(|line| {
            let (_, text) = line.split_once("<text x=\"").unwrap();
            let (x, text) = text.split_once('"').unwrap();
            let (_, words) = text.split_once('>').unwrap();
            let half = words.trim_end_matches("</text>").len() as f64 * 7.0 / 2.0;
            let x: f64 = x.parse().unwrap();
            (x - half, x + half)
        })
        .collect();
    assert_eq!(ends.len(), 7);
    for pair in ends.windows(2) {
        assert!(pair[0].1 + 5.0 < pair[1].0, "{ends:?}");
    }
}

#[test]
fn the_docs_show_every_workload() {
    let docs = include_str!("../../docs/simulate.md");
    for workload in &WORKLOADS {
        let row = format!("| `{}` | {} |", workload.name, workload.about);
        assert!(docs.contains(&row), "{row}");
    }
}

#[test]
fn a_provider_that_never_answers_a_batch_is_no_reason_to_wait_for_ever() {
    let mut law = Law::default();
    law.batch.never = 1.0;
    law.live.per_second = Some(0.01);
    let mut offpeak = Offpeak::new(settings(), &law, &requests(50, 2000));
    let tally = play(&requests(50, 2000), &law, 1, &mut offpeak);
    assert_eq!((tally.answered, tally.standard), (50, 50));
    assert!(
        tally.missed > 0 && tally.missed_firm == Some(0),
        "{tally:?}"
    );
}

fn laws() -> impl Strategy<Value = Law> {
    let shares = (0.0f64..1.0, 0.0f64..1.0, any::<bool>(), any::<bool>());
    let seconds = (10.0f64..5000.0, 1.1f64..20.0, 0.0f64..1500.0, 0.02f64..3.0);
    (shares, seconds).prop_map(
        |((never, refused, together, flex), (median, spread, cancel, rate))| {
            let mut law = Law::default();
            law.batch.median = median;
            law.batch.p90 = median * spread;
            law.batch.never = never;
            law.batch.cancel = cancel;
            law.batch.together = together;
            law.live.per_second = Some(rate);
            law.flex = flex.then(|| Flex {
                refused,
                never,
                ..Flex::default()
            });
            law
        },
    )
}

fn traces() -> impl Strategy<Value = Vec<Request>> {
    prop::collection::vec((0u64..4000, 1u64..15_000), 1..80).prop_map(|mut calls| {
        calls.sort_unstable();
        let request = |(arrival, slack)| Request {
            arrival: second(arrival),
            deadline: second(arrival + slack),
            ..requests(1, 0)[0]
        };
        calls.into_iter().map(request).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the provider does and however little fits.
    #[test]
    fn every_request_ends_once_and_what_is_promised_is_kept(
        law in laws(), requests in traces(), seed in any::<u64>(),
    ) {
        let trace = Trace { models: vec!["m".into()], requests };
        let count = trace.requests.len() as u64;
        let report = run("trace", &trace, &law, &settings(), seed);
        for policy in &report.policies {
            let answered: u64 = policy.ages.iter().sum();
            prop_assert_eq!(answered + policy.unanswered, count, "{}", policy.name);
            let may_end_without = policy.name == "batch-and-hope";
            prop_assert!(may_end_without || policy.unanswered == 0, "{}", policy.name);
            prop_assert!(policy.missed_firm.unwrap_or_default() == 0, "{:?}", policy);
            // Answered once, and what was paid again is counted.
            let once = policy.cost_usd - policy.paid_twice_usd;
            let half = i128::from(policy.standard) + i128::from(answered);
            prop_assert_eq!(once, Usd::from_pico(half * STANDARD / 2), "{}", policy.name);
        }
    }
}

/// Those that are due first come first: when they enter flex, nothing was promised to
/// the others yet.
#[test]
fn flex_calls_leave_sooner_when_more_is_promised() {
    for never in [0.5, 1.0] {
        let mut law = Law::default();
        law.live.per_second = Some(1.0);
        law.flex = Some(Flex {
            never,
            refused: 0.0,
            ..Flex::default()
        });
        let mut requests = requests(600, 0);
        for (number, request) in (0..).zip(&mut requests) {
            request.deadline = second(300 + number / 2);
        }
        let mut offpeak = Offpeak::new(settings(), &law, &requests);
        let tally = play(&requests, &law, 1, &mut offpeak);
        assert!(tally.firm > 400, "{never}: {tally:?}");
        assert_eq!(tally.missed_firm, Some(0), "{never}: {tally:?}");
    }
}

#[test]
fn calls_that_hang_in_flex_leave_it_in_time_for_each_other() {
    let mut law = Law::default();
    law.live.per_second = Some(1.0);
    law.flex = Some(Flex {
        never: 1.0,
        refused: 0.0,
        ..Flex::default()
    });
    // Six hundred are more than can be promised, and more than ever fit.
    for (count, slack, promised) in [(100, 600, 100), (100, 900, 100), (600, 600, 451)] {
        let requests = requests(count, slack);
        let mut offpeak = Offpeak::new(settings(), &law, &requests);
        let tally = play(&requests, &law, 1, &mut offpeak);
        let told = format!("{count} of {slack} s: {tally:?}");
        assert_eq!(
            (tally.firm, tally.missed_firm),
            (promised, Some(0)),
            "{told}"
        );
        let fit = play(&requests, &law, 1, &mut AlwaysLive);
        assert_eq!(tally.missed, fit.missed, "{told}");
    }
}
