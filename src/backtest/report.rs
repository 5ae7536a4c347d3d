//! What the policies came to: for people, for programs, and for the docs.

use std::fmt::Write;

use serde::{Serialize, Serializer};

use super::{latency::Law, tally::Tally, workload::Workload};
use crate::model::money::Usd;

/// One trace, every policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub workload: String,
    pub seed: u64,
    pub requests: usize,
    pub law: Law,
    /// What the best blind policy expects to pay, where nothing stalls.
    pub best_blind_expected_usd: f64,
    #[serde(serialize_with = "with_what_they_save")]
    pub policies: Vec<Policy>,
}

/// Each policy, and the share of the cost of ordinary calls that it saves.
fn with_what_they_save<S: Serializer>(policies: &[Policy], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Told<'a> {
        #[serde(flatten)]
        policy: &'a Policy,
        saved: f64,
    }

    let told = policies.iter().map(|policy| Told {
        policy,
        saved: 1.0 - share(policies, policy.name),
    });
    to.collect_seq(told)
}

/// What a policy costs, as a share of what ordinary calls cost.
fn share(policies: &[Policy], name: &str) -> f64 {
    let cost = |name| {
        let policy = policies.iter().find(|policy| policy.name == name);
        policy.map_or(0, |policy| policy.cost_usd.as_pico())
    };
    cost(name) as f64 / (cost("always-live") as f64).max(1.0)
}

/// Without a sign where it rounds to nothing.
fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).round();
    let text = format!("{:.1} %", tenths / 10.0);
    match tenths == 0.0 {
        true => text.replace('-', ""),
        false => text,
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    pub name: &'static str,
    #[serde(serialize_with = "dollars")]
    pub cost_usd: Usd,
    /// Answered after their deadline, or never.
    pub missed: u64,
    /// Of those that were promised; null where nothing is promised.
    pub missed_firm: Option<u64>,
    pub firm: u64,
    pub unanswered: u64,
    /// Ordinary calls after a cheaper lane was tried, and all of them.
    pub rescued: u64,
    pub standard: u64,
    pub paid_twice: u64,
    #[serde(serialize_with = "dollars")]
    pub paid_twice_usd: Usd,
    /// Seconds after the deadline, of what was answered late.
    pub late_mean_s: f64,
    pub late_most_s: f64,
    pub batches: u64,
    pub flex: u64,
    pub ratio_to_clairvoyant: f64,
    pub ratio_to_best_blind: f64,
    /// Answers by age, for the plot.
    #[serde(skip)]
    pub ages: Vec<u64>,
}

impl Policy {
    pub(super) fn new(
        name: &'static str,
        tally: Tally,
        clairvoyant: Option<Usd>,
        blind: Option<Usd>,
    ) -> Policy {
        let ratio = |other: Option<Usd>| {
            let other = other.unwrap_or_default().as_pico();
            let own = tally.cost.as_pico();
            if other == 0 {
                1.0
            } else {
                own as f64 / other as f64
            }
        };
        Policy {
            name,
            cost_usd: tally.cost,
            missed: tally.missed,
            missed_firm: tally.missed_firm,
            firm: tally.firm,
            unanswered: tally.unanswered,
            rescued: tally.rescued,
            standard: tally.standard,
            paid_twice: tally.paid_twice,
            paid_twice_usd: tally.paid_twice_cost,
            late_mean_s: tally.late_mean().as_secs_f64(),
            late_most_s: tally.late_most.as_secs_f64(),
            batches: tally.batches,
            flex: tally.flex,
            ratio_to_clairvoyant: ratio(clairvoyant),
            ratio_to_best_blind: ratio(blind),
            ages: tally.ages,
        }
    }
}

/// A number in the JSON, to the last digit that a float holds.
fn dollars<S: Serializer>(amount: &Usd, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(amount.as_pico() as f64 / 1e12)
}

impl Report {
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name == name)
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}, {} requests, seed {}\n\n{:<15} {:>12} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>10} {:>12} {:>13}\n",
            self.workload,
            self.requests,
            self.seed,
            "policy",
            "cost",
            "saved",
            "missed",
            "of firm",
            "rescued",
            "ordinary",
            "twice",
            "late by",
            "/best-blind",
            "/clairvoyant",
        );
        for policy in &self.policies {
            let firm = match policy.missed_firm {
                Some(missed) => missed.to_string(),
                None => "-".into(),
            };
            let late = match policy.missed - policy.unanswered {
                0 if policy.unanswered > 0 => "for ever".into(),
                0 => "-".into(),
                _ => span(policy.late_mean_s),
            };
            let _ = writeln!(
                text,
                "{:<15} {:>12} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>10} {:>12.4} {:>13.4}",
                policy.name,
                format!("${:.4}", policy.cost_usd.as_pico() as f64 / 1e12),
                percent(1.0 - self.share(policy.name)),
                policy.missed,
                firm,
                policy.rescued,
                policy.standard,
                policy.paid_twice,
                late,
                policy.ratio_to_best_blind,
                policy.ratio_to_clairvoyant,
            );
        }
        text
    }

    fn share(&self, name: &str) -> f64 {
        share(&self.policies, name)
    }

    /// A row of the docs' table.
    fn row(&self, about: &str) -> String {
        let saved = percent(1.0 - self.share("offpeak"));
        let mut row = format!("| `{}` | {about} | {saved} |", self.workload);
        for name in ["batch-and-hope", "fixed-reserve", "last-moment", "offpeak"] {
            let missed = self.policy(name).map_or(0, |policy| policy.missed);
            let late = percent(missed as f64 / self.requests.max(1) as f64);
            let _ = match missed {
                0 => write!(row, " {:.3} |", self.share(name)),
                _ => write!(row, " {:.3} ({late}) |", self.share(name)),
            };
        }
        for name in ["best-blind", "clairvoyant"] {
            let _ = write!(row, " {:.3} |", self.share(name));
        }
        if let Some(offpeak) = self.policy("offpeak") {
            let _ = write!(
                row,
                " {:.4} | {:.3} | {} |",
                offpeak.ratio_to_best_blind,
                offpeak.ratio_to_clairvoyant,
                offpeak.missed_firm.unwrap_or_default(),
            );
        }
        row
    }
}

/// The table of docs/simulate.md.
pub struct Markdown(String);

impl Default for Markdown {
    fn default() -> Self {
        Markdown(
            "| workload | what | **saved** | batch and hope | fixed reserve | last moment | **offpeak** | \
             best blind | clairvoyant | offpeak / best blind | offpeak / clairvoyant | firm missed |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|\n"
                .into(),
        )
    }
}

impl Markdown {
    pub fn push(&mut self, workload: &Workload, report: &Report) {
        self.0.push_str(&report.row(workload.about));
        self.0.push('\n');
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
