use proptest::prelude::*;

use super::{stay::HARDLY, *};
use crate::policy::turnaround::{Curve, Prior, tests::PUBLISHED};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn batch(prior: &Prior, cancel: u64) -> Rung {
    Rung {
        lane: Lane::Batch,
        price: 0.5,
        curve: Curve::of(prior),
        whole: Curve::of(prior),
        before: Duration::ZERO,
        cancel: Some(Cancel {
            takes: Duration::from_secs(cancel),
            finishing: 1.0,
        }),
        refused: 0.0,
    }
}

fn flex(prior: &Prior) -> Rung {
    Rung {
        lane: Lane::Flex,
        cancel: None,
        ..batch(prior, 0)
    }
}

fn plan() -> Plan {
    Plan::new(vec![batch(&PUBLISHED, 720)], Duration::from_secs(20), WEEK)
}

#[test]
fn what_a_slack_costs() {
    let plan = plan();
    for (slack, least, most) in [
        (10, 1.0, 1.0),
        (20, 1.0, 1.0),
        (300, 0.93, 0.97),
        (900, 0.66, 0.69),
        (3_600, 0.5, 0.56),
        (86_400, 0.5, 0.503),
    ] {
        let choice = plan.choose(Duration::from_secs(slack));
        assert!(
            (least..=most).contains(&choice.cost),
            "{slack} s: {choice:?} {choice}"
        );
    }
}

#[test]
fn time_for_a_cancel_is_used_for_one() {
    let plan = plan();
    let leave = |slack| plan.choose(Duration::from_secs(slack)).stay.unwrap().leave;
    assert_eq!(leave(300), Leave::Overtake, "no cancel would end in time");
    assert_eq!(leave(900), Leave::Cancel, "it pays nothing twice");
}

#[test]
fn a_batch_that_has_hung_is_given_up_for_a_fresh_one() {
    let plan = plan();
    let rung = plan.rung(Lane::Batch).unwrap();
    let old = plan.stay(rung, 40_000.0, 40_000.0);
    assert!(old.leave == Leave::Cancel && old.cost < 0.502, "{old:?}");
}

#[test]
fn each_batch_that_hung_before_doubles_the_patience() {
    let rung = batch(&PUBLISHED, 720);
    let median = rung.curve.quantile(0.5).unwrap();
    let never = Prior {
        never: 1.0,
        ..PUBLISHED
    };
    // What half of them take is not known.
    let unknown = batch(&never, 720);
    let hour = Duration::from_secs(3600);
    for (left_before, quarters) in [(0, 0), (1, 1), (2, 2), (3, 4), (13, 4096), (99, 4096)] {
        let patience = rung.patience(left_before);
        assert_eq!(patience, median / 4 * quarters, "{left_before}");
        let patience = unknown.patience(left_before);
        assert_eq!(patience, hour / 4 * quarters, "{left_before}");
    }
}

#[test]
fn who_comes_a_little_late_still_cancels() {
    let plan = plan();
    let rung = plan.rung(Lane::Batch).unwrap();
    let stay = plan.stay(rung, 0.0, 900.0);
    assert_eq!(stay.leave, Leave::Cancel);
    for late in [0.0, 0.001, 1.0, 5.0] {
        let age = stay.until + late;
        let then = plan.stay(rung, age, 900.0 - age);
        assert_eq!((then.leave, then.until), (Leave::Cancel, age), "{late} s");
    }
}

#[test]
fn where_a_cancel_stops_all_a_batch_is_left_later() {
    let hour = 3_600.0;
    let until = |finishing| {
        let mut rung = batch(&PUBLISHED, 720);
        let takes = Duration::from_secs(720);
        rung.cancel = Some(Cancel { takes, finishing });
        let plan = Plan::new(vec![rung], Duration::from_secs(20), WEEK);
        plan.stay(plan.rung(Lane::Batch).unwrap(), 0.0, hour)
    };
    let (goes_on, stops) = (until(1.0), until(0.0));
    assert!(stops.until > goes_on.until, "{stops:?} {goes_on:?}");
    assert!(stops.cost > goes_on.cost, "{stops:?} {goes_on:?}");
}

#[test]
fn what_is_given_up_is_billed_and_so_waited_for_longer() {
    let slow = Prior {
        median: Duration::from_secs(120),
        p90: Duration::from_secs(600),
        never: 0.1,
    };
    let hung_up = flex(&slow);
    let cancelled = Rung {
        cancel: Some(Cancel::AT_ONCE),
        ..hung_up.clone()
    };
    let stay = |rung: Rung| {
        let plan = Plan::new(vec![rung.clone()], Duration::from_secs(20), WEEK);
        plan.stay(&rung, 0.0, 620.0)
    };
    let (hung_up, cancelled) = (stay(hung_up), stay(cancelled));
    // Nine of ten end and are billed, though one of those comes too late.
    let left = 0.19;
    assert!((hung_up.cost - (0.45 + left)).abs() < 0.01, "{hung_up:?}");
    assert!((hung_up.standard - left).abs() < 0.01, "{hung_up:?}");
    assert!(cancelled.until < hung_up.until && cancelled.cost < hung_up.cost);
}

/// With every second that passes, the end that was told at first comes nearer.
#[test]
fn who_asks_again_how_long_to_stay_is_told_the_same() {
    let plan = plan();
    for (median, p90, never, slack) in [(10, 20, 0.3, 720.0), (60, 300, 0.02, 900.0)] {
        let prior = Prior {
            median: Duration::from_secs(median),
            p90: Duration::from_secs(p90),
            never,
        };
        let rung = flex(&prior);
        let first = plan.stay(&rung, 0.0, slack).until;
        let mut age = 0.0;
        while plan.stay(&rung, age, slack - age).until > age {
            age += 1.0;
        }
        let off = (age - first).abs() / slack;
        // What is thought out is a grid of slacks.
        assert!(off < 0.05, "{first} at first, and then {age}");
    }
}

#[test]
fn a_rung_that_refuses_falls_to_the_next() {
    let quick = Prior {
        median: Duration::from_secs(60),
        p90: Duration::from_secs(120),
        never: 0.0,
    };
    let flex = |refused| Rung {
        refused,
        ..flex(&quick)
    };
    let cost = |refused| {
        let rungs = vec![flex(refused), batch(&PUBLISHED, 720)];
        let plan = Plan::new(rungs, Duration::from_secs(20), WEEK);
        plan.choose(Duration::from_secs(600))
    };
    let (never, half, always) = (cost(0.0), cost(0.5), cost(1.0));
    assert_eq!((never.lane, half.lane), (Lane::Flex, Lane::Flex));
    assert_eq!(always.lane, Lane::Batch);
    assert!((half.cost - (never.cost + always.cost) / 2.0).abs() < 0.01);
}

#[test]
fn out_of_a_batch_no_refusal_goes_back_into_one() {
    let quick = Prior {
        median: Duration::from_secs(60),
        p90: Duration::from_secs(120),
        never: 0.0,
    };
    let live = Duration::from_secs(20);
    let choose = |make: fn(Vec<Rung>, Duration, Duration) -> Plan, refused| {
        let flex = Rung {
            refused,
            ..flex(&quick)
        };
        let plan = make(vec![flex, batch(&PUBLISHED, 720)], live, WEEK);
        plan.choose(Duration::from_secs(600))
    };
    let [first, later] = [Plan::new, Plan::out_of_batches].map(|make| choose(make, 0.8));
    assert_eq!((first.lane, later.lane), (Lane::Flex, Lane::Batch));
    assert!(first.cost < later.cost, "{first} {later}");
    let [first, later] = [Plan::new, Plan::out_of_batches].map(|make| choose(make, 0.0));
    assert_eq!((first.lane, first.cost), (later.lane, later.cost));
}

#[test]
fn answers_that_wait_in_a_batch_come_by_a_cancel_and_not_by_overtaking() {
    let never = Prior {
        never: 1.0,
        ..PUBLISHED
    };
    let apart = Rung {
        whole: Curve::of(&never),
        ..batch(&PUBLISHED, 720)
    };
    let plan = Plan::new(vec![apart], Duration::from_secs(20), WEEK);
    let at = |slack| plan.choose(Duration::from_secs(slack));
    assert_eq!(at(700).lane, Lane::Standard, "no cancel would end in time");
    let (apart, alone) = (at(3600), self::plan().choose(Duration::from_secs(3600)));
    assert!(apart.cost < alone.cost + 0.01, "{apart:?} {alone:?}");
    // After an hour 88 % exist, and are there for the cancel to bring.
    let rung = plan.rung(Lane::Batch).unwrap();
    let stay = plan.stay(rung, 3600.0, 740.0);
    assert_eq!(stay.leave, Leave::Cancel);
    assert!((stay.standard - 0.11).abs() < 0.02, "{stay:?}");
}

#[test]
fn flex_is_for_those_who_cannot_wait_for_a_batch() {
    let quick = Prior {
        median: Duration::from_secs(60),
        p90: Duration::from_secs(300),
        never: 0.02,
    };
    let flex = Rung {
        refused: 0.2,
        ..flex(&quick)
    };
    let rungs = vec![batch(&PUBLISHED, 600), flex];
    let plan = Plan::new(rungs, Duration::from_secs(20), WEEK);
    for (minutes, lane) in [
        (10, Lane::Flex),
        (20, Lane::Flex),
        (120, Lane::Batch),
        (360, Lane::Batch),
    ] {
        let choice = plan.choose(Duration::from_secs(minutes * 60));
        assert_eq!(choice.lane, lane, "{minutes} min: {choice}");
    }
}

fn priors() -> impl Strategy<Value = Prior> {
    (1u64..20_000, 1.0f64..50.0, 0.0f64..1.0).prop_map(|(median, spread, never)| Prior {
        median: Duration::from_secs(median),
        p90: Duration::from_secs(median).mul_f64(spread),
        never,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn never_above_an_ordinary_call_and_never_dearer_with_more_slack(
        prior in priors(), price in 0.1f64..1.5, cancel in 0u64..2000, live in 1u64..200,
        finishing in 0f64..1.0,
    ) {
        let whole = Curve::of(&Prior { never: (prior.never * 2.0).min(1.0), ..prior });
        let mut rung = Rung { price, whole, ..batch(&prior, cancel) };
        if let Some(cancel) = &mut rung.cancel {
            cancel.finishing = finishing;
        }
        let flex = Rung { price, ..flex(&prior) };
        let live = Duration::from_secs(live);
        let plan = Plan::new(vec![rung, flex], live, WEEK);
        let mut before = 1.0;
        for slack in (1..400).map(|step| Duration::from_secs(step * step * 3)) {
            let choice = plan.choose(slack);
            prop_assert!(choice.cost <= before, "{:?} {:?}", slack, choice);
            before = choice.cost;
        }
    }

    #[test]
    fn an_ordinary_call_is_always_left_in_time(
        prior in priors(), cancel in 0u64..2000, age in 0f64..90_000.0, slack in 0f64..90_000.0,
    ) {
        let plan = Plan::new(vec![batch(&prior, cancel)], Duration::from_secs(20), WEEK);
        let rung = plan.rung(Lane::Batch).unwrap();
        for rung in [rung.clone(), flex(&prior)] {
            let stay = plan.stay(&rung, age, slack);
            let takes = match stay.leave {
                Leave::Cancel => (1.0 - HARDLY) * cancel as f64,
                Leave::Overtake | Leave::GiveUp => 0.0,
            };
            let latest = age + (slack - 20.0).max(0.0);
            prop_assert!(stay.until >= age - 1e-6, "{:?}", stay);
            prop_assert!(stay.until + takes <= latest + 1e-6, "{:?}", stay);
        }
    }
}
