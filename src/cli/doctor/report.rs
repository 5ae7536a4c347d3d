//! What was looked at, and how it stands.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

/// How one thing stands; the greater, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It was not looked at, and the sentence says why.
    Skipped,
    Ok,
    /// A server runs; something may not be meant, or will be in the way.
    Warning,
    /// Something will not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// A plain sentence.
    pub says: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// Numbers for machines.
    pub measured: Value,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Skipped => "skipped",
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
        }
    }
}

impl Check {
    pub fn new(name: impl Into<String>, verdict: Verdict, says: impl Into<String>) -> Self {
        Check {
            name: name.into(),
            verdict,
            says: says.into(),
            advice: None,
            measured: Value::Null,
        }
    }

    pub fn ok(name: impl Into<String>, says: impl Into<String>) -> Self {
        Check::new(name, Verdict::Ok, says)
    }

    pub fn warning(name: impl Into<String>, says: impl Into<String>) -> Self {
        Check::new(name, Verdict::Warning, says)
    }

    pub fn failed(name: impl Into<String>, says: impl Into<String>) -> Self {
        Check::new(name, Verdict::Failed, says)
    }

    pub fn skipped(name: impl Into<String>, says: impl Into<String>) -> Self {
        Check::new(name, Verdict::Skipped, says)
    }

    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub fn measured(mut self, measured: Value) -> Self {
        self.measured = measured;
        self
    }
}

pub struct Report(pub Vec<Check>);

impl Report {
    /// The worst of all.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.0.iter().map(|check| check.verdict);
        verdicts.max().unwrap_or(Verdict::Skipped)
    }

    pub fn to_text(&self) -> String {
        let names = self.0.iter().map(|check| check.name.chars().count());
        let wide = names.max().unwrap_or(0);
        let mut text = String::new();
        for check in &self.0 {
            let (verdict, name) = (check.verdict.as_str(), &check.name);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{verdict:7}  {name:wide$}  {}", check.says);
            if let Some(advice) = &check.advice {
                let _ = writeln!(text, "{:7}  {:wide$}  → {advice}", "", "");
            }
        }
        let _ = writeln!(text, "\n{}", self.sum());
        text
    }

    fn sum(&self) -> String {
        let count = |verdict| self.0.iter().filter(|it| it.verdict == verdict).count();
        let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
        let of = self.0.len() - count(Verdict::Skipped);
        let warned = match warnings {
            0 => String::new(),
            1 => ", with one warning".into(),
            many => format!(", with {many} warnings"),
        };
        match failed {
            0 => format!("{of} checks, none failed{warned}."),
            failed => format!("{failed} of {of} checks failed{warned}."),
        }
    }

    pub fn to_json(&self) -> Value {
        let checks = self.0.iter().map(|check| {
            json!({
                "name": check.name, "verdict": check.verdict.as_str(), "message": check.says,
                "advice": check.advice, "measured": check.measured,
            })
        });
        json!({
            "object": "offpeak.doctor",
            "verdict": self.verdict().as_str(),
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

/// As a person would say it: two digits that count.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        _ if seconds >= 120.0 => {
            humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
        }
        _ if seconds >= 9.95 => format!("{seconds:.0} s"),
        _ if seconds >= 0.995 => format!("{seconds:.1} s"),
        _ if seconds >= 0.00995 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds >= 0.000_995 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

/// Milliseconds, for machines.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// `1.2 GB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit);
    match unit {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_verdict_counts_and_the_sum_says_so() {
        let report = |checks: &[Check]| Report(checks.to_vec());
        let (ok, warning) = (Check::ok("a", "Fine."), Check::warning("b", "Hm."));
        let (failed, skipped) = (Check::failed("c", "No."), Check::skipped("d", "Not seen."));
        for (checks, verdict, sum) in [
            (vec![], Verdict::Skipped, "0 checks, none failed."),
            (
                vec![ok.clone(), skipped.clone()],
                Verdict::Ok,
                "1 checks, none failed.",
            ),
            (
                vec![ok.clone(), warning.clone()],
                Verdict::Warning,
                "2 checks, none failed, with one warning.",
            ),
            (
                vec![failed, warning.clone(), warning, skipped],
                Verdict::Failed,
                "1 of 3 checks failed, with 2 warnings.",
            ),
        ] {
            assert_eq!(report(&checks).verdict(), verdict);
            assert_eq!(report(&checks).sum(), sum);
        }
    }

    #[test]
    fn a_table_for_people() {
        let checks = vec![
            Check::ok("settings", "All settings are at their defaults."),
            Check::failed("key", "The provider does not know it.").advise("Set another."),
        ];
        assert_eq!(
            Report(checks).to_text(),
            "ok       settings  All settings are at their defaults.\n\
             failed   key       The provider does not know it.\n\
             \x20                  → Set another.\n\n\
             1 of 2 checks failed.\n"
        );
    }

    #[test]
    fn numbers_for_people() {
        for (micros, said) in [
            (3, "3 µs"),
            (1_240, "1.2 ms"),
            (41_500, "42 ms"),
            (1_500_000, "1.5 s"),
            (59_000_000, "59 s"),
            (3_605_000_000, "1h 5s"),
        ] {
            assert_eq!(span(Duration::from_micros(micros)), said);
        }
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(1_073_741_824), "1.1 GB");
    }
}
