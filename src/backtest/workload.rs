//! Workloads by name: a trace and the law that it is played under.

use super::{
    draw::Draw,
    latency::Law,
    trace::{BadTrace, Builder, Row, Trace},
};
use crate::ledger::Prices;

const A_DAY: f64 = 86_400.0;
const HOUR: f64 = 3_600.0;

/// A workload that `--workload` knows.
pub struct Workload {
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    pub law: fn() -> Law,
    /// How many, where nothing else is said.
    pub requests: u32,
    arrivals: Arrivals,
    slack: Slack,
}

#[derive(Clone, Copy)]
enum Arrivals {
    /// Evenly over a day.
    Day,
    /// In so many bursts of a minute, at random over a day.
    Bursts(u32),
    /// All at once.
    Midnight,
}

#[derive(Clone, Copy)]
enum Slack {
    Each(f64),
    /// From one to the other, every octave alike.
    Between(f64, f64),
}

fn published() -> Law {
    Law::default()
}

/// A law that has a preset's name.
macro_rules! law {
    ($name:literal) => {
        || Law::preset($name).unwrap_or_default()
    };
}

macro_rules! workload {
    ($name:literal, $about:literal, $law:expr, $requests:expr, $arrivals:expr, $slack:expr) => {
        Workload {
            name: $name,
            about: $about,
            law: $law,
            requests: $requests,
            arrivals: $arrivals,
            slack: $slack,
        }
    };
}

use {
    Arrivals::{Bursts, Day, Midnight},
    Slack::{Between, Each},
};

pub const WORKLOADS: [Workload; 18] = [
    workload!(
        "steady",
        "evenly over a day, 8 h each",
        published,
        20_000,
        Day,
        Each(8.0 * HOUR)
    ),
    workload!(
        "bursty",
        "24 bursts of a minute, 2 h each",
        published,
        20_000,
        Bursts(24),
        Each(2.0 * HOUR)
    ),
    workload!(
        "midnight",
        "all at once, 8 h each",
        published,
        1_000_000,
        Midnight,
        Each(8.0 * HOUR)
    ),
    workload!(
        "mixed",
        "5 min to 24 h, every octave alike",
        published,
        20_000,
        Day,
        Between(300.0, A_DAY)
    ),
    workload!(
        "stall",
        "no batch moves for 3 h; 2 h each",
        law!("stall"),
        20_000,
        Day,
        Each(2.0 * HOUR)
    ),
    workload!(
        "correlated",
        "a batch's lines end together; 1 h each",
        published,
        20_000,
        Day,
        Each(HOUR)
    ),
    workload!(
        "apart",
        "each line ends when it will; 1 h each",
        law!("apart"),
        20_000,
        Day,
        Each(HOUR)
    ),
    workload!(
        "stops",
        "a provider that stops at a cancel; 1 h each",
        law!("stops"),
        20_000,
        Day,
        Each(HOUR)
    ),
    workload!(
        "slow-live",
        "5 live calls a second; 24 bursts, 1 h each",
        law!("slow-live"),
        200_000,
        Bursts(24),
        Each(HOUR)
    ),
    workload!(
        "flex",
        "flex offered, 10 % refused; 15 min each",
        law!("flex"),
        20_000,
        Day,
        Each(900.0)
    ),
    workload!(
        "no-flex",
        "the same without it",
        published,
        20_000,
        Day,
        Each(900.0)
    ),
    workload!(
        "slack-5m",
        "evenly over a day, 5 min each",
        published,
        20_000,
        Day,
        Each(300.0)
    ),
    workload!(
        "slack-15m",
        "15 min each",
        published,
        20_000,
        Day,
        Each(900.0)
    ),
    workload!(
        "slack-30m",
        "30 min each",
        published,
        20_000,
        Day,
        Each(1_800.0)
    ),
    workload!("slack-1h", "1 h each", published, 20_000, Day, Each(HOUR)),
    workload!(
        "slack-2h",
        "2 h each",
        published,
        20_000,
        Day,
        Each(2.0 * HOUR)
    ),
    workload!(
        "slack-8h",
        "8 h each",
        published,
        20_000,
        Day,
        Each(8.0 * HOUR)
    ),
    workload!(
        "slack-24h",
        "24 h each",
        published,
        20_000,
        Day,
        Each(A_DAY)
    ),
];

impl Workload {
    pub fn named(name: &str) -> Option<&'static Workload> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }

    /// The same seed gives the same requests.
    pub fn trace(&self, seed: u64, requests: u32, prices: &Prices) -> Result<Trace, BadTrace> {
        let mut builder = Builder::new(prices);
        let burst = |n: u32| Draw::new(seed, BURST).nth(n.into()).unit() * (A_DAY - 60.0);
        for number in 0..requests {
            let mut luck = Draw::new(seed, CALL).nth(number.into());
            let arrival = match self.arrivals {
                Day => luck.unit() * A_DAY,
                Bursts(bursts) => burst(number % bursts) + luck.unit() * 60.0,
                Midnight => 0.0,
            };
            let deadline = match self.slack {
                Each(slack) => slack,
                Between(least, most) => least * (most / least).powf(luck.unit()),
            };
            let mut tokens = |median: f64| (median * (0.5 * luck.normal()).exp()).ceil() as u64;
            let row = Row {
                arrival,
                model: "gpt-4o-mini".into(),
                input_tokens: tokens(900.0),
                output_tokens: tokens(120.0),
                deadline,
            };
            builder.push(&row).map_err(|what| BadTrace::Line {
                line: u64::from(number) + 1,
                what,
            })?;
        }
        builder.done()
    }
}

/// What draws are for.
const CALL: u64 = 0x11;
const BURST: u64 = 0x12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let prices = Prices::built_in().unwrap();
        for workload in &WORKLOADS {
            let of = |seed| workload.trace(seed, 500, &prices).unwrap();
            assert_eq!(of(1), of(1), "{}", workload.name);
            assert_ne!(of(1), of(2), "{}", workload.name);
            assert_eq!(of(1).requests.len(), 500);
            let slacks = of(1).requests.into_iter().map(|r| r.slack().as_secs());
            assert!(slacks.into_iter().all(|s| (300..=86_400).contains(&s)));
        }
    }
}
