//! How long a lane takes, learned from what is seen: a life table over ages on a
//! log scale. An answer that came is an event at its age; one that was cancelled,
//! or still runs, was at risk up to its age and tells that it takes longer, not
//! how long (it is right-censored). What was seen fades with a half-life; a prior
//! stands in for what was not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fading::{Fades, Fading};
use crate::model::time::{Timestamp, human};

/// Borders of the table: the first age is one millisecond, each octave has eight
/// bins, and the last border is about twelve days.
const OCTAVE: usize = 8;
const BINS: usize = 30 * OCTAVE;
/// The normal distribution's 90 % quantile.
const Z90: f64 = 1.281_551_565_544_600_4;

/// What is believed before anything was seen: lognormal, but for a share that
/// never ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prior {
    #[serde(with = "human")]
    pub median: Duration,
    /// Nine of ten that end have ended by then.
    #[serde(with = "human")]
    pub p90: Duration,
    /// The share that never ends.
    pub never: f64,
}

impl Prior {
    /// The share that runs longer than `age`.
    pub fn survival(&self, age: Duration) -> f64 {
        let never = self.never.clamp(0.0, 1.0);
        let (median, p90) = (self.median.as_secs_f64(), self.p90.as_secs_f64());
        let (age, median) = (age.as_secs_f64(), median.max(1e-6));
        if age <= 0.0 {
            return 1.0;
        }
        let sigma = (p90.max(median * 1.0001) / median).ln() / Z90;
        let z = (age / median).ln() / sigma;
        never + (1.0 - never) * 0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
    }
}

/// The learned table of one lane in one scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    cells: Vec<Cell>,
    faded: Fading,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    /// Weight that reached this bin.
    at_risk: f64,
    /// Weight that ended in it.
    ended: f64,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            cells: vec![Cell::default(); BINS],
            faded: Fading::default(),
        }
    }
}

impl Table {
    /// An answer came at this age. A batch weighs 1, whatever its lines: those
    /// of one batch say much the same.
    pub fn ended(&mut self, age: Duration, weight: f64) {
        let (bin, _) = place(age);
        self.reached(bin, weight);
        self.cells[bin].at_risk += weight;
        self.cells[bin].ended += weight;
    }

    /// No answer had come at this age, and nobody will see whether one would.
    pub fn left(&mut self, age: Duration, weight: f64) {
        let (bin, share) = place(age);
        self.reached(bin, weight);
        // Part of the bin was survived: the usual actuarial correction.
        self.cells[bin].at_risk += weight * share;
    }

    /// Takes in what another table has seen, faded up to the same instant.
    pub fn add(&mut self, other: &Table) {
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            cell.at_risk += more.at_risk;
            cell.ended += more.ended;
        }
        self.faded = self.faded.max(other.faded);
    }

    fn reached(&mut self, bin: usize, weight: f64) {
        for cell in &mut self.cells[..bin] {
            cell.at_risk += weight;
        }
    }

    /// What is believed now. The prior counts as much as `weight` batches; those
    /// that still run are given as ages with weights.
    pub fn curve(
        &self,
        prior: &Prior,
        weight: f64,
        running: impl IntoIterator<Item = (Duration, f64)>,
    ) -> Curve {
        let mut seen = self.clone();
        for (age, weight) in running {
            seen.left(age, weight);
        }
        let mut survival = Vec::with_capacity(BINS + 1);
        let mut alive = 1.0;
        let mut before = prior.survival(border(0));
        survival.push(alive);
        for (bin, cell) in seen.cells.iter().enumerate() {
            let after = prior.survival(border(bin + 1));
            let at_risk = cell.at_risk + weight * before;
            let ended = cell.ended + weight * (before - after).max(0.0);
            if at_risk > 0.0 {
                alive *= 1.0 - (ended / at_risk).clamp(0.0, 1.0);
            }
            survival.push(alive);
            before = after;
        }
        Curve(survival)
    }
}

impl Fades for Table {
    fn fade(&mut self, now: Timestamp, half_life: Duration) {
        let Some(kept) = self.faded.to(now, half_life) else {
            return;
        };
        for cell in &mut self.cells {
            cell.at_risk *= kept;
            cell.ended *= kept;
        }
    }

    /// In batches.
    fn weight(&self) -> f64 {
        self.cells.first().map_or(0.0, |first| first.at_risk)
    }

    fn is_sound(&self) -> bool {
        let sound = |cell: &Cell| cell.ended >= 0.0 && cell.ended <= cell.at_risk + 1e-6;
        self.cells.len() == BINS && self.cells.iter().all(sound)
    }
}

/// The share that runs longer than an age.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve(Vec<f64>);

impl Curve {
    /// A prior without anything seen.
    pub fn of(prior: &Prior) -> Curve {
        Table::default().curve(prior, 1.0, [])
    }

    /// The share that runs longer than `age`.
    pub fn survival(&self, age: f64) -> f64 {
        let position = position(age);
        if position <= 0.0 {
            return 1.0;
        }
        let bin = (position as usize).min(BINS);
        match (self.0.get(bin), self.0.get(bin + 1)) {
            (Some(from), Some(to)) => from + (to - from) * (position - bin as f64),
            _ => self.0.last().copied().unwrap_or(1.0),
        }
    }

    /// Of what runs longer than `from`, the share that has ended by `to`: what would
    /// end while it is being cancelled, if nobody had asked for the cancel.
    pub fn ended_between(&self, from: Duration, to: Duration) -> f64 {
        let runs = |age: Duration| self.survival(age.as_secs_f64());
        1.0 - runs(to) / runs(from).max(1e-9)
    }

    /// The age by which this share has ended; none where it never does.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let bin = self.0.iter().position(|alive| 1.0 - alive >= share)?;
        Some(match bin {
            0 => Duration::ZERO,
            _ => {
                let (from, to) = (self.0[bin - 1], self.0[bin]);
                let within = (from - (1.0 - share)) / (from - to).max(f64::MIN_POSITIVE);
                Duration::from_secs_f64(age_at(bin as f64 - 1.0 + within))
            }
        })
    }
}

/// The bin of an age, and how far into it the age is.
fn place(age: Duration) -> (usize, f64) {
    let position = position(age.as_secs_f64()).clamp(0.0, BINS as f64 - 1e-9);
    (position as usize, position.fract())
}

fn position(age: f64) -> f64 {
    if age <= 0.001 {
        return 0.0;
    }
    (age / 0.001).log2() * OCTAVE as f64
}

fn age_at(position: f64) -> f64 {
    0.001 * (position / OCTAVE as f64).exp2()
}

fn border(bin: usize) -> Duration {
    match bin {
        0 => Duration::ZERO,
        _ => Duration::from_secs_f64(age_at(bin as f64)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Batches as they were published (WIRE.md §1).
    pub const PUBLISHED: Prior = Prior {
        median: Duration::from_secs(420),
        p90: Duration::from_secs(3600),
        never: 0.02,
    };

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_prior_is_what_it_says() {
        let curve = Curve::of(&PUBLISHED);
        for (age, ended) in [(0.0, 0.0), (420.0, 0.49), (3600.0, 0.882), (1e9, 0.98)] {
            let share = 1.0 - curve.survival(age);
            assert!((share - ended).abs() < 0.003, "{share} by {age} s");
        }
        let median = curve.quantile(0.49).unwrap().as_secs_f64();
        assert!((median - 420.0).abs() < 5.0, "{median}");
        assert_eq!(curve.quantile(0.99), None);
    }

    #[test]
    fn what_runs_at_one_age_has_ended_by_another() {
        let all = Prior {
            never: 0.0,
            ..PUBLISHED
        };
        for (prior, from, to, share) in [
            (PUBLISHED, 0, 0, 0.0),
            (PUBLISHED, 0, 420, 0.49),
            (PUBLISHED, 420, 420, 0.0),
            // 0.510 run at first, and 0.118 at last.
            (PUBLISHED, 420, 3600, 0.769),
            (PUBLISHED, 420, 1_000_000_000, 0.961),
            (all, 420, 1_000_000_000, 1.0),
        ] {
            let ended = Curve::of(&prior).ended_between(secs(from), secs(to));
            assert!(
                (ended - share).abs() < 0.003,
                "{ended} from {from} to {to} s"
            );
        }
    }

    #[test]
    fn what_is_seen_replaces_the_prior() {
        let mut table = Table::default();
        for _ in 0..1000 {
            table.ended(secs(60), 1.0);
        }
        let curve = table.curve(&PUBLISHED, 5.0, []);
        assert!(curve.survival(50.0) > 0.98);
        assert!(curve.survival(70.0) < 0.02);
    }

    #[test]
    fn those_cut_off_tell_that_it_takes_longer_and_not_how_long() {
        let mut cut = Table::default();
        let mut dropped = Table::default();
        for _ in 0..50 {
            cut.ended(secs(100), 1.0);
            dropped.ended(secs(100), 1.0);
            cut.left(secs(600), 1.0);
        }
        let cut = cut.curve(&PUBLISHED, 0.1, []);
        let dropped = dropped.curve(&PUBLISHED, 0.1, []);
        assert!((cut.survival(200.0) - 0.5).abs() < 0.01);
        assert!(dropped.survival(200.0) < 0.01);
    }

    #[test]
    fn batches_that_hang_are_heard_before_they_end() {
        let table = Table::default();
        let quiet = table.curve(&PUBLISHED, 10.0, []);
        let hanging = vec![(secs(7200), 1.0); 50];
        let stalled = table.curve(&PUBLISHED, 10.0, hanging);
        assert!(quiet.survival(3600.0) < 0.13);
        assert!(stalled.survival(3600.0) > 0.75);
    }

    #[test]
    fn what_was_seen_fades_to_the_prior() {
        let mut table = Table::default();
        let start = Timestamp::from_secs(1000);
        table.fade(start, secs(3600));
        for _ in 0..100 {
            table.ended(secs(60), 1.0);
        }
        table.fade(start + secs(3600 * 20), secs(3600));
        let curve = table.curve(&PUBLISHED, 5.0, []);
        let (seen, prior) = (curve.survival(420.0), Curve::of(&PUBLISHED).survival(420.0));
        assert!((seen - prior).abs() < 0.001, "{seen} {prior}");
    }

    proptest! {
        #[test]
        fn a_curve_only_falls(
            ends in prop::collection::vec((1u64..1_000_000, 0.1f64..3.0, any::<bool>()), 0..60),
        ) {
            let mut table = Table::default();
            for (millis, weight, ended) in ends {
                let age = Duration::from_millis(millis);
                match ended {
                    true => table.ended(age, weight),
                    false => table.left(age, weight),
                }
            }
            prop_assert!(table.is_sound());
            let curve = table.curve(&PUBLISHED, 2.0, []);
            let mut before = 1.0;
            for step in 0..4000 {
                let now = curve.survival(f64::from(step) * 0.7);
                prop_assert!(now <= before && now >= 0.0);
                before = now;
            }
            // A table is kept on disk.
            let kept: Table = postcard::from_bytes(&postcard::to_stdvec(&table).unwrap()).unwrap();
            prop_assert_eq!(kept, table);
        }

        #[test]
        fn a_quantile_is_the_curve_turned_round(share in 0.01f64..0.97) {
            let curve = Curve::of(&PUBLISHED);
            let age = curve.quantile(share).unwrap();
            prop_assert!((1.0 - curve.survival(age.as_secs_f64()) - share).abs() < 1e-3);
        }
    }
}
