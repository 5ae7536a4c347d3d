//! The figures of a run.

use std::{fmt, time::Duration};

use super::{
    books::Money,
    coverage::{Coverage, STATES},
    strike::Strikes,
};

pub struct Report {
    pub seed: u64,
    pub cycles: u64,
    pub took: Duration,
    pub acknowledged: u64,
    pub requests: usize,
    pub webhooks: usize,
    pub violations: usize,
    pub strikes: Strikes,
    pub coverage: Coverage,
    pub money: Money,
    pub batches: usize,
    pub twins: usize,
    pub files_left: usize,
    /// Resident at rest, in MiB: after the first start, and in the end.
    pub resident: (u64, u64),
    pub full_disks: bool,
}

impl Report {
    pub fn never_struck(&self) -> Vec<&'static str> {
        let states = STATES.into_iter();
        states
            .filter(|state| self.coverage.of(state) == 0)
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Money {
            ledger,
            bill,
            unaccounted,
            paid_twice,
            ..
        } = self.money;
        let mut row = |name: &str, value: String| writeln!(f, "| {name} | {value} |");
        row("torture", format!("seed {}", self.seed))?;
        row("---", "---".into())?;
        row("cycles", self.cycles.to_string())?;
        row("requests acknowledged", self.acknowledged.to_string())?;
        row(
            "requests in all (some 202s were lost)",
            self.requests.to_string(),
        )?;
        row("webhooks", self.webhooks.to_string())?;
        row("**violations**", format!("**{}**", self.violations))?;
        for (kind, times) in &self.strikes.0 {
            row(&format!("killed {kind}"), times.to_string())?;
        }
        for state in STATES {
            let times = self.coverage.of(state).to_string();
            row(&format!("kills that found: {state}"), times)?;
        }
        row("batches at the provider", self.batches.to_string())?;
        row("of which second ones, cancelled", self.twins.to_string())?;
        let usd = |pico: u64| format!("${:.6}", pico as f64 / 1e12);
        row("ledger", usd(ledger))?;
        row("bill", usd(bill))?;
        row("answers paid twice, in the ledger", paid_twice.to_string())?;
        row("calls unaccounted for", unaccounted.to_string())?;
        for (lane, requests) in &self.money.lanes {
            row(&format!("answered by {lane}"), requests.to_string())?;
        }
        row("input files left to expire", self.files_left.to_string())?;
        let (first, last) = self.resident;
        row(
            "resident, MiB: at first, in the end",
            format!("{first}, {last}"),
        )?;
        let disk = match self.full_disks {
            true => "yes",
            false => "SKIPPED",
        };
        row("full disks", disk.into())?;
        row("time", format!("{:.0?}", self.took))
    }
}
