//! What the demo says at its end.

use std::fmt;

use super::calls::{DIRECT_KEY, Done, Kind, Savings};
use crate::{
    model::money::Usd,
    simulator::{Bill, key_id},
};

#[derive(Default)]
pub struct Report(Vec<Done>);

impl Report {
    pub fn add(&mut self, done: Done) {
        self.0.push(done);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn by_lane(&self, lane: &str) -> usize {
        self.0
            .iter()
            .filter(|done| done.lane.as_deref() == Some(lane))
            .count()
    }

    /// A row a kind of call, and their sum.
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<28} {:>8} {:>6} {:>6} {:>7} {:>8} {:>8}  {:>10} {:>10} {:>10}",
            "calls",
            "deadline",
            "calls",
            "batch",
            "live",
            "rescued",
            "on time",
            "paid",
            "full price",
            "saved"
        )];
        for kind in Kind::ALL {
            lines.push(row(kind.name(), kind.deadline(), &self.of(kind)));
        }
        let deferred: Vec<&Done> = self
            .0
            .iter()
            .filter(|done| done.kind != Kind::Interactive)
            .collect();
        lines.push(row("all with a deadline", None, &deferred));
        lines.join("\n")
    }

    fn of(&self, kind: Kind) -> Vec<&Done> {
        self.0.iter().filter(|done| done.kind == kind).collect()
    }

    /// Whether everything is as it should be, in words.
    pub fn verdict(&self, savings: &Savings, bill: &Bill) -> Verdict {
        let count = |bad: fn(&Done) -> bool| self.0.iter().filter(|done| bad(done)).count();
        let mut faults = Vec::new();
        for (number, what) in [
            (count(|done| done.status != Some(200)), "calls failed"),
            (
                count(|done| !done.right),
                "answers are not for their question",
            ),
            (count(|done| !done.on_time), "answers were late"),
        ] {
            if number > 0 {
                faults.push(format!("{number} {what}"));
            }
        }
        let direct = key_id(DIRECT_KEY);
        let rows = bill.rows.iter().filter(|row| row.key != direct);
        let billed: Usd = rows
            .map(|row| Usd::from_pico(i128::from(row.nano_usd) * 1000))
            .sum();
        if billed != savings.paid {
            faults.push(format!(
                "the provider billed ${billed}, our ledger says ${}",
                savings.paid
            ));
        }
        Verdict {
            faults,
            savings: Savings { ..*savings },
        }
    }
}

pub struct Verdict {
    faults: Vec<String>,
    savings: Savings,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Savings { paid, standard } = self.savings;
        let saved = standard - paid;
        let share = (saved.as_pico() * 1000)
            .checked_div(standard.as_pico())
            .unwrap_or(0);
        writeln!(
            f,
            "\nPaid ${paid} for what costs ${standard} at the ordinary price: {}.{} % saved.",
            share / 10,
            share % 10
        )?;
        match self.faults.as_slice() {
            [] => write!(
                f,
                "Every call was answered, on time, and the provider's bill agrees to the last digit."
            ),
            faults => write!(f, "NOT as it should be: {}.", faults.join("; ")),
        }
    }
}

fn row(name: &str, deadline: Option<std::time::Duration>, done: &[&Done]) -> String {
    let count = |wanted: fn(&Done) -> bool| done.iter().filter(|done| wanted(done)).count();
    let batch = count(|done| done.lane.as_deref() == Some("batch"));
    let paid: Usd = done.iter().map(|done| done.paid).sum();
    let saved: Usd = done.iter().map(|done| done.saved).sum();
    let money = |amount: Usd| match done
        .first()
        .is_some_and(|done| done.kind == Kind::Interactive)
    {
        true => "as ever".to_owned(),
        false => dollars(amount),
    };
    format!(
        "{:<28} {:>8} {:>6} {:>6} {:>7} {:>8} {:>8}  {:>10} {:>10} {:>10}",
        name,
        deadline
            .map(|deadline| humantime::format_duration(deadline).to_string())
            .unwrap_or_default(),
        done.len(),
        batch,
        done.len() - batch,
        count(|done| done.rescued),
        count(|done| done.on_time),
        money(paid),
        money(paid + saved),
        money(saved),
    )
}

/// To a hundredth of a cent, rounded half up.
fn dollars(amount: Usd) -> String {
    const STEP: i128 = 100_000_000;
    let steps = (amount.as_pico() + STEP / 2).div_euclid(STEP);
    format!("${}.{:04}", steps / 10_000, steps % 10_000)
}
