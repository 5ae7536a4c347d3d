use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const SECOND: Duration = Duration::from_secs(1);
const SERVED: Ended = Ended::Served {
    usage: Usage {
        input: 10,
        cached: 0,
        cache_write: 0,
        output: 100,
    },
};

pub fn settings() -> LiveSettings {
    LiveSettings {
        max_concurrent: 8,
        start_concurrent: 4,
        max_total: 1024,
        max_flex: 64,
        max_background: 1000,
        passthrough_share: 0.1,
        expected: 20 * SECOND,
        timeout: 600 * SECOND,
        attempts: 5,
        retry_base: SECOND,
        retry_max: 30 * SECOND,
        retry_share: 0.2,
        retries_per_minute: 10,
        give_up_after: 3600 * SECOND,
    }
}

fn scope() -> Scope {
    Scope::new(&settings())
}

fn told(pairs: &[(&str, &str)]) -> RateLimits {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(
            HeaderName::try_from(format!("x-ratelimit-{name}")).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    RateLimits::read(&headers)
}

#[test]
fn as_many_as_it_bears() {
    let mut scope = scope();
    let tickets: Vec<Ticket> = (0..4).map(|_| scope.send(NOW, 9, Try::First)).collect();
    assert_eq!(scope.may_send(NOW, 9, Try::First), Verdict::Full);
    for ticket in tickets {
        scope.ended(NOW + SECOND, ticket, SERVED);
    }
    assert_eq!((scope.limit(), scope.in_flight()), (6, 0));
}

#[test]
fn what_holds_it_back() {
    let until = NOW + 7 * SECOND;
    let paused = |pause: Option<Duration>| {
        let mut scope = scope();
        let ticket = scope.send(NOW, 9, Try::First);
        scope.ended(NOW, ticket, Ended::Overloaded { pause });
        scope
    };
    let limited = |pairs: &[(&str, &str)]| {
        let mut scope = scope();
        let ticket = scope.send(NOW, 9, Try::First);
        scope.told(NOW, &ticket, &told(pairs));
        scope.ended(NOW, ticket, Ended::Failed);
        scope
    };
    let few = [
        ("limit-requests", "100"),
        ("remaining-requests", "4"),
        ("reset-requests", "1m36s"),
    ];
    let dry = [
        ("limit-tokens", "100"),
        ("remaining-tokens", "12"),
        ("reset-tokens", "1m28s"),
    ];
    let table = [
        ("a pause", paused(Some(7 * SECOND)), until),
        ("none asked for", paused(None), NOW),
        (
            "requests",
            limited(&few),
            NOW + Duration::from_millis(7_001),
        ),
        ("tokens", limited(&dry), NOW + Duration::from_millis(7_001)),
    ];
    for (what, scope, ready) in table {
        let when = match scope.may_send(NOW, 9, Try::First) {
            Verdict::Go => NOW,
            Verdict::Wait { until, .. } => until,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(when, ready, "{what}");
        assert_eq!(scope.may_send(when, 9, Try::First), Verdict::Go, "{what}");
    }
}

#[test]
fn only_second_tries_that_nobody_asked_for_have_a_budget() {
    let mut scope = scope();
    for _ in 0..10 {
        assert_eq!(scope.may_send(NOW, 9, Try::Again), Verdict::Go);
        let ticket = scope.send(NOW, 9, Try::Again);
        scope.ended(NOW, ticket, Ended::Failed);
    }
    let until = NOW + Duration::from_millis(6_001);
    assert_eq!(
        scope.may_send(NOW, 9, Try::Again),
        Verdict::RetryLater { until }
    );
    assert_eq!(scope.may_send(NOW, 9, Try::First), Verdict::Go);
    assert_eq!(scope.may_send(NOW, 9, Try::Asked), Verdict::Go);
    let ticket = scope.send(NOW, 9, Try::Asked);
    scope.ended(NOW, ticket, SERVED);
    assert_eq!(scope.may_send(until, 9, Try::Again), Verdict::Go);
}

#[test]
fn capacity_is_the_prior_until_something_is_seen() {
    let mut scope = scope();
    assert_eq!(scope.calls(NOW), 0.4, "8 calls of 20 s");
    for _ in 0..200 {
        let ticket = scope.send(NOW, 9, Try::First);
        scope.ended(NOW + 2 * SECOND, ticket, SERVED);
    }
    let seen = scope.calls(NOW + 2 * SECOND);
    assert!((3.8..4.0).contains(&seen), "8 calls of 2 s: {seen}");
    let ticket = scope.send(NOW, 9, Try::First);
    let limits = told(&[
        ("limit-requests", "60"),
        ("remaining-requests", "59"),
        ("reset-requests", "1s"),
    ]);
    scope.told(NOW, &ticket, &limits);
    scope.ended(NOW, ticket, Ended::Overloaded { pause: None });
    assert_eq!(
        scope.calls(NOW + 2 * SECOND),
        0.9,
        "one a second, less a tenth"
    );
}

#[test]
fn two_that_are_one_take_the_more_careful_view() {
    let (mut one, mut other) = (scope(), scope());
    one.send(NOW, 9, Try::First);
    let ticket = other.send(NOW, 9, Try::First);
    other.send(NOW, 9, Try::First);
    let pause = Some(SECOND);
    other.ended(NOW, ticket, Ended::Overloaded { pause });
    one.absorb(other);
    assert_eq!((one.in_flight(), one.limit()), (2, 2));
    assert_eq!(one.paused_until(), NOW + SECOND);
    assert!(!one.is_stale(NOW + 7200 * SECOND, 3600 * SECOND));
}

#[derive(Clone, Debug)]
enum Step {
    Send(Try),
    End(usize, u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let attempt = prop::sample::select(vec![Try::First, Try::Asked, Try::Again]);
    prop_oneof![
        4 => attempt.prop_map(Step::Send),
        3 => (any::<usize>(), 0u8..4).prop_map(|(which, how)| Step::End(which, how)),
        1 => (0u64..20_000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Never more than its limit on their way, none during a pause, and what waits
    /// may go at the instant that was named, once there is room.
    #[test]
    fn it_keeps_its_word(steps in prop::collection::vec(step(), 1..300)) {
        let (mut scope, mut now, mut flying) = (scope(), NOW, Vec::new());
        for step in steps {
            match step {
                Step::Pass(millis) => now = now + Duration::from_millis(millis),
                Step::End(_, _) if flying.is_empty() => {}
                Step::End(which, how) => {
                    let ticket = flying.swap_remove(which % flying.len());
                    let how = match how {
                        0 => Ended::Overloaded { pause: Some(5 * SECOND) },
                        1 => Ended::Overloaded { pause: None },
                        2 => Ended::Failed,
                        _ => SERVED,
                    };
                    scope.ended(now, ticket, how);
                }
                Step::Send(attempt) => match scope.may_send(now, 9, attempt) {
                    Verdict::Go => {
                        prop_assert!(scope.paused_until() <= now);
                        prop_assert!(scope.in_flight() < scope.limit());
                        flying.push(scope.send(now, 9, attempt));
                    }
                    Verdict::Full => prop_assert!(scope.in_flight() >= scope.limit()),
                    Verdict::Wait { until, .. } | Verdict::RetryLater { until } => {
                        prop_assert!(until > now);
                        let then = scope.may_send(until, 9, attempt);
                        prop_assert!(!matches!(then, Verdict::Wait { .. }), "{:?}", then);
                    }
                },
            }
            prop_assert_eq!(scope.in_flight() as usize, flying.len());
        }
    }
}
