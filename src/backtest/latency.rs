//! How a provider behaves: the law that draws come from. A file (TOML or JSON,
//! every time in seconds) or a preset says it:
//!
//! ```toml
//! [batch]
//! median = 420            # of the lines that end; or `quantiles`
//! p90 = 3600
//! never = 0.02            # the share that never ends
//! together = true         # the lines of a batch end together; false: apart
//! cancel = 720            # until a cancel takes effect
//! finishing = 1.0         # of the lines that would end meanwhile, the share that does
//! expires = 86400
//! [live]
//! latency = 20
//! per_second = 500        # or `at_a_time`
//! [flex]                  # leave it out where flex is not offered
//! median = 120
//! p90 = 600
//! refused = 0.1
//! [[stall]]               # no batch moves in the meantime
//! from = 36000
//! until = 46800
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

mod learned;
mod turnaround;

pub use turnaround::Turnaround;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Law {
    pub batch: Batch,
    pub live: Live,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flex: Option<Flex>,
    /// In order, apart from each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stall: Vec<Stall>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    pub median: f64,
    pub p90: f64,
    pub never: f64,
    /// In place of `median` and `p90`: `[share, seconds]`, both rising, of those
    /// that end. The place for what a server has learned of its provider.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<(f64, f64)>,
    /// Whether the lines of a batch end together, or each when it will.
    pub together: bool,
    /// From asking for a cancel until it takes effect.
    pub cancel: f64,
    /// Of the lines that would end meanwhile, the share that does, and is billed; the
    /// others are stopped at once.
    pub finishing: f64,
    /// When the provider ends a batch that has not ended.
    pub expires: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Live {
    /// What every ordinary call takes.
    pub latency: f64,
    /// Calls that begin a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// In its place: calls that run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_a_time: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flex {
    pub median: f64,
    pub p90: f64,
    pub never: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<(f64, f64)>,
    /// The share that is refused at once, and not billed.
    pub refused: f64,
}

/// No batch moves from one instant to the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    pub from: f64,
    pub until: f64,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            median: 420.0,
            p90: 3600.0,
            never: 0.02,
            quantiles: Vec::new(),
            together: true,
            cancel: 720.0,
            finishing: 1.0,
            expires: 86_400.0,
        }
    }
}

impl Default for Live {
    fn default() -> Self {
        Live {
            latency: 20.0,
            per_second: None,
            at_a_time: None,
        }
    }
}

impl Default for Flex {
    fn default() -> Self {
        Flex {
            median: 120.0,
            p90: 600.0,
            never: 0.0,
            quantiles: Vec::new(),
            refused: 0.1,
        }
    }
}

/// Calls that begin a second where nothing is said: far from what anybody needs.
pub const PLENTY: f64 = 500.0;

impl Live {
    /// Calls a second, in the long run.
    pub fn rate(&self) -> f64 {
        match (self.at_a_time, self.per_second) {
            (Some(calls), _) => f64::from(calls) / self.latency,
            (None, rate) => rate.unwrap_or(PLENTY),
        }
    }
}

impl Batch {
    pub fn turnaround(&self) -> Turnaround {
        Turnaround::new(self.median, self.p90, self.never, &self.quantiles)
    }
}

impl Flex {
    pub fn turnaround(&self) -> Turnaround {
        Turnaround::new(self.median, self.p90, self.never, &self.quantiles)
    }
}

#[derive(Debug, Error)]
pub enum BadLaw {
    #[error("{0}")]
    Unread(String),
    #[error("`{key}` is {value}: {accepted}")]
    Value {
        key: &'static str,
        value: f64,
        accepted: &'static str,
    },
    #[error("`{0}`")]
    Said(&'static str),
}

impl Law {
    pub const PRESETS: [&str; 6] = ["published", "apart", "stops", "slow-live", "flex", "stall"];

    /// What is known by this name.
    pub fn preset(name: &str) -> Option<Law> {
        let mut law = Law::default();
        match name {
            "published" => {}
            "apart" => law.batch.together = false,
            "stops" => law.batch.finishing = 0.0,
            "slow-live" => law.live.per_second = Some(5.0),
            "flex" => law.flex = Some(Flex::default()),
            "stall" => {
                law.stall.push(Stall {
                    from: 36_000.0,
                    until: 46_800.0,
                });
            }
            _ => return None,
        }
        Some(law)
    }

    pub fn from_toml(text: &str) -> Result<Law, BadLaw> {
        let law: Law = toml::from_str(text).map_err(|error| BadLaw::Unread(error.to_string()))?;
        law.checked()
    }

    /// A law, or what a server has learned of its provider.
    pub fn from_json(text: &str) -> Result<Law, BadLaw> {
        #[derive(Deserialize)]
        struct Named {
            object: Option<String>,
        }
        let named = serde_json::from_str::<Named>(text).ok();
        let object = named.and_then(|named| named.object);
        if object.as_deref() == Some(learned::OBJECT) {
            return learned::law(text)?.checked();
        }
        let law: Law =
            serde_json::from_str(text).map_err(|error| BadLaw::Unread(error.to_string()))?;
        law.checked()
    }

    fn checked(self) -> Result<Law, BadLaw> {
        let check = |key, value: f64, range: std::ops::RangeInclusive<f64>, accepted| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(BadLaw::Value {
                key,
                value,
                accepted,
            })
        };
        let seconds = |key, value| check(key, value, 1e-3..=1e8, "seconds, above zero");
        let share = |key, value| check(key, value, 0.0..=1.0, "a share from 0 to 1");
        let batch = &self.batch;
        turnaround_is_sound(batch.median, batch.p90, &batch.quantiles)?;
        share("batch.never", batch.never)?;
        check("batch.cancel", batch.cancel, 0.0..=1e8, "seconds")?;
        share("batch.finishing", batch.finishing)?;
        seconds("batch.expires", batch.expires)?;
        seconds("live.latency", self.live.latency)?;
        if let Some(rate) = self.live.per_second {
            check("live.per_second", rate, 1e-6..=1e9, "calls, above zero")?;
        }
        if let Some(calls) = self.live.at_a_time {
            check(
                "live.at_a_time",
                calls.into(),
                1.0..=1e9,
                "calls, at least one",
            )?;
            if self.live.per_second.is_some() {
                return Err(BadLaw::Said("live: at_a_time or per_second, not both"));
            }
        }
        if let Some(flex) = &self.flex {
            turnaround_is_sound(flex.median, flex.p90, &flex.quantiles)?;
            share("flex.never", flex.never)?;
            share("flex.refused", flex.refused)?;
        }
        let mut last = 0.0;
        for stall in &self.stall {
            if !(last <= stall.from && stall.from < stall.until && stall.until <= 1e9) {
                return Err(BadLaw::Said("stall: from before until, and in order"));
            }
            last = stall.until;
        }
        Ok(self)
    }

    /// When something ends that needs `age` seconds of a provider that moves,
    /// from `begins` on.
    pub fn stalled(&self, begins: f64, age: f64) -> f64 {
        let mut ends = begins + age;
        for stall in &self.stall {
            if begins < stall.until && ends > stall.from {
                ends += stall.until - stall.from.max(begins);
            }
        }
        ends
    }

    pub fn cancel(&self) -> Duration {
        Duration::from_secs_f64(self.batch.cancel)
    }

    pub fn latency(&self) -> Duration {
        Duration::from_secs_f64(self.live.latency)
    }
}

fn turnaround_is_sound(median: f64, p90: f64, quantiles: &[(f64, f64)]) -> Result<(), BadLaw> {
    if !quantiles.is_empty() {
        let mut from = (0.0, 0.0);
        for &to in quantiles {
            if !(from.0 < to.0 && to.0 <= 1.0 && from.1 <= to.1 && to.1 <= 1e9) {
                return Err(BadLaw::Said(
                    "quantiles: [share, seconds], rising, shares above 0 and up to 1",
                ));
            }
            from = to;
        }
        return Ok(());
    }
    if !(median > 0.0 && median < p90 && p90 <= 1e9) {
        return Err(BadLaw::Said("median and p90: seconds, the median shorter"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_shifts_what_it_meets() {
        let law = Law::preset("stall").unwrap();
        for (begins, age, ends) in [
            (0.0, 36_000.0, 36_000.0),
            (0.0, 36_001.0, 46_801.0),
            (40_000.0, 10.0, 46_810.0),
            (46_800.0, 10.0, 46_810.0),
        ] {
            assert_eq!(law.stalled(begins, age), ends, "{begins} {age}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("[batch]\nmedain = 3", "unknown field `medain`"),
            ("[batch]\nnever = 2.0", "`batch.never` is 2: a share"),
            ("[live]\nlatency = 0", "`live.latency` is 0: seconds"),
            ("[batch]\nmedian = 5000.0", "median and p90"),
            ("[[stall]]\nfrom = 5.0\nuntil = 4.0", "stall: from before"),
            ("[live]\nper_second = 5.0\nat_a_time = 3", "not both"),
            ("[batch]\nquantiles = [[0.5, 9.0], [0.4, 10.0]]", "rising"),
        ] {
            let error = Law::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(Law::from_json("{}").unwrap(), Law::default());
        for name in Law::PRESETS {
            let law = Law::preset(name).unwrap();
            assert_eq!(
                Law::from_toml(&toml::to_string(&law).unwrap()).unwrap(),
                law
            );
        }
    }
}
