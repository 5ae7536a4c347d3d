//! What the demo says at its end.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::calls::{DIRECT_KEY, Done, Kind, Savings, Sum};
use crate::{
    model::money::Usd,
    simulator::{Bill, key_id},
};

#[derive(Default)]
pub struct Report(Vec<Done>);

/// Answers by the way they took.
#[derive(Debug, Default, PartialEq)]
pub struct Ways {
    pub batch: usize,
    pub flex: usize,
    /// Ordinary calls, those without a deadline among them.
    pub live: usize,
}

impl Ways {
    fn of<'a>(done: impl IntoIterator<Item = &'a Done>) -> Ways {
        let mut ways = Ways::default();
        for done in done {
            match done.lane.as_deref() {
                Some("batch") => ways.batch += 1,
                Some("flex") => ways.flex += 1,
                _ => ways.live += usize::from(done.status == Some(200)),
            }
        }
        ways
    }
}

impl Report {
    pub fn add(&mut self, done: Done) {
        self.0.push(done);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn ways(&self) -> Ways {
        Ways::of(&self.0)
    }

    /// A row a kind of call, and their sums. `speed` says what a deadline stands for.
    pub fn table(&self, savings: &Savings, speed: f64) -> String {
        let digits = Digits::of(savings);
        let mut lines = vec![line(
            ["calls", "deadline", "calls", "batch", "flex", "live"],
            ["rescued", "twice", "on time"],
            ["paid", "full price", "saved"],
        )];
        for kind in Kind::ALL {
            let done = self.0.iter().filter(|done| done.kind == kind).collect();
            let sum = savings.by_kind.get(&kind).copied().unwrap_or_default();
            let (deadline, money) = match kind.deadline() {
                Some(deadline) => (stands_for(deadline, speed), digits.money(&sum)),
                None => (String::new(), ["as ever"; 3].map(str::to_owned)),
            };
            lines.push(row(kind.name(), &deadline, done, &sum, money));
        }
        let (all, total) = (self.0.iter(), &savings.total);
        let deferred = all.clone().filter(|done| done.kind.deadline().is_some());
        let money = digits.money(total);
        let deferred = deferred.collect();
        lines.push(row("all with a deadline", "", deferred, total, money));
        lines.push(row("all", "", all.collect(), total, Default::default()));
        lines.join("\n")
    }

    /// The table and the verdict for programs. What is without a deadline has no money here.
    pub fn json(&self, savings: &Savings, verdict: &Verdict) -> Value {
        let kinds = Kind::ALL.map(|kind| {
            let done = self.0.iter().filter(|done| done.kind == kind);
            let sum = savings.by_kind.get(&kind).copied().unwrap_or_default();
            let deadline = kind.deadline();
            let mut row = counted(done, deadline.map(|_| &sum));
            row["name"] = kind.name().into();
            row["deadline_seconds"] = deadline.map(|it| it.as_secs()).into();
            row
        });
        let deferred = self.0.iter().filter(|done| done.kind.deadline().is_some());
        json!({
            "object": "offpeak.demo",
            "good": verdict.is_good(),
            "faults": verdict.faults,
            "kinds": kinds,
            "with_a_deadline": counted(deferred, Some(&savings.total)),
        })
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
        let billed = billed(bill);
        if billed != savings.total.paid {
            faults.push(format!(
                "the provider billed ${billed}, our ledger says ${}",
                savings.total.paid
            ));
        }
        Verdict {
            faults,
            total: savings.total,
        }
    }
}

/// What the provider charged for the calls with a deadline.
pub fn billed(bill: &Bill) -> Usd {
    let direct = key_id(DIRECT_KEY);
    let rows = bill.rows.iter().filter(|row| row.key != direct);
    rows.map(|row| Usd::from_pico(i128::from(row.pico_usd)))
        .sum()
}

pub struct Verdict {
    faults: Vec<String>,
    total: Sum,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum {
            paid,
            standard,
            paid_twice,
            ..
        } = self.total;
        let saved = standard - paid;
        let share = (saved.as_pico() * 1000)
            .checked_div(standard.as_pico())
            .unwrap_or(0);
        let (whole, tenth) = (share / 10, share % 10);
        writeln!(
            f,
            "\nPaid ${paid} for what costs ${standard} at the ordinary price: {whole}.{tenth} % saved.\n\
             Answers that were paid twice, to be on time: {paid_twice}."
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

fn counted<'a>(done: impl Iterator<Item = &'a Done>, sum: Option<&Sum>) -> Value {
    let done: Vec<&Done> = done.collect();
    let Ways { batch, flex, live } = Ways::of(done.iter().copied());
    json!({
        "calls": done.len(),
        "batch": batch,
        "flex": flex,
        "live": live,
        "on_time": done.iter().filter(|done| done.on_time).count(),
        "rescued": sum.map(|sum| sum.rescued),
        "paid_twice": sum.map(|sum| sum.paid_twice),
        "paid_usd": sum.map(|sum| sum.paid.to_string()),
        "standard_usd": sum.map(|sum| sum.standard.to_string()),
        "saved_usd": sum.map(|sum| (sum.standard - sum.paid).to_string()),
    })
}

fn row(name: &str, deadline: &str, done: Vec<&Done>, sum: &Sum, money: [String; 3]) -> String {
    let Ways { batch, flex, live } = Ways::of(done.iter().copied());
    let on_time = done.iter().filter(|done| done.on_time).count();
    let counts = [done.len(), batch, flex, live].map(|count| count.to_string());
    let [calls, batch, flex, live] = counts.each_ref().map(String::as_str);
    line(
        [name, deadline, calls, batch, flex, live],
        [
            &sum.rescued.to_string(),
            &sum.paid_twice.to_string(),
            &on_time.to_string(),
        ],
        money.each_ref().map(String::as_str),
    )
}

fn line(
    [name, deadline, calls, batch, flex, live]: [&str; 6],
    [rescued, twice, on_time]: [&str; 3],
    [paid, full, saved]: [&str; 3],
) -> String {
    let text = format!(
        "{name:<24} {deadline:>12} {calls:>5} {batch:>5} {flex:>5} {live:>5} {rescued:>7} \
         {twice:>5} {on_time:>7}  {paid:>11} {full:>11} {saved:>11}"
    );
    text.trim_end().to_owned()
}

/// A deadline beside what it is at the provider: `35s = 70 min`.
fn stands_for(deadline: Duration, speed: f64) -> String {
    let minutes = deadline.as_secs_f64() * speed / 60.0;
    format!("{}s = {minutes:.0} min", deadline.as_secs())
}

/// Decimals that show every amount to its end, so that what stands in the table adds up.
struct Digits(usize);

impl Digits {
    fn of(savings: &Savings) -> Digits {
        let sums = savings.by_kind.values().chain([&savings.total]);
        let amounts = sums.flat_map(|sum| [sum.paid, sum.standard]);
        Digits(amounts.map(decimals).max().unwrap_or_default())
    }

    /// Paid, at full price, saved.
    fn money(&self, sum: &Sum) -> [String; 3] {
        [sum.paid, sum.standard, sum.standard - sum.paid].map(|amount| {
            let missing = self.0.saturating_sub(decimals(amount));
            let text = format!("{amount}{}", "0".repeat(missing));
            match text.strip_prefix('-') {
                Some(loss) => format!("-${loss}"),
                None => format!("${text}"),
            }
        })
    }
}

fn decimals(amount: Usd) -> usize {
    let text = amount.to_string();
    text.split_once('.')
        .map_or(0, |(_, decimals)| decimals.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn done(kind: Kind, lane: Option<&str>) -> Done {
        Done {
            kind,
            status: Some(200),
            lane: lane.map(str::to_owned),
            on_time: true,
            right: true,
        }
    }

    fn sum(paid: &str, standard: &str, paid_twice: u64) -> Sum {
        Sum {
            rescued: paid_twice,
            paid_twice,
            paid: paid.parse().unwrap(),
            standard: standard.parse().unwrap(),
        }
    }

    #[test]
    fn rows_add_up_to_their_total() {
        let mut report = Report::default();
        for (kind, lane) in [
            (Kind::Evals, Some("batch")),
            (Kind::Evals, Some("standard")),
            (Kind::Agents, Some("flex")),
            (Kind::Embeddings, Some("batch")),
            (Kind::Interactive, None),
        ] {
            report.add(done(kind, lane));
        }
        let lost = Done {
            status: None,
            ..done(Kind::Soon, None)
        };
        report.add(lost);
        let by_kind = BTreeMap::from([
            (Kind::Evals, sum("0.02", "0.0177", 1)),
            (Kind::Agents, sum("0.0682", "0.1364", 0)),
            (Kind::Embeddings, sum("0.00013", "0.00026", 0)),
        ]);
        let total = sum("0.08833", "0.15436", 1);
        let savings = Savings { total, by_kind };
        insta::assert_snapshot!(report.table(&savings, 120.0));
        let ways = report.ways();
        assert_eq!((ways.batch, ways.flex, ways.live), (2, 1, 2));
    }
}
