//! The law as a running server has learned it: `GET /offpeak/v1/turnaround`, saved to
//! a file.

use serde::Deserialize;

use super::{BadLaw, Flex, Law};

/// What the answer calls itself.
pub const OBJECT: &str = "offpeak.turnaround";

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    /// One of the two.
    organization: Option<String>,
    credential: Option<String>,
    model: String,
    what: String,
    seen: f64,
    learned: Learned,
    /// Shares of all, and the seconds by which they have ended.
    #[serde(default)]
    quantiles: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Learned {
    Share {
        share: f64,
    },
    Rate {
        per_second: f64,
    },
    Time {
        p90: Option<f64>,
        p99: Option<f64>,
        never: f64,
    },
}

/// Of the organization (or credential) and model whose batches it has seen most of. What it has not
/// seen is as it comes.
pub fn law(text: &str) -> Result<Law, BadLaw> {
    let answer: Answer =
        serde_json::from_str(text).map_err(|error| BadLaw::Unread(error.to_string()))?;
    let batches = answer.data.iter().filter(|item| item.what == "batch");
    let Some(most) = batches.max_by(|a, b| a.seen.total_cmp(&b.seen)) else {
        return Err(BadLaw::Said("the server has seen no batch end yet"));
    };
    let of_it = |item: &&Item| item.scope() == most.scope();
    let mut law = Law::default();
    for item in answer.data.iter().filter(of_it) {
        item.tell(&mut law);
    }
    Ok(law)
}

impl Item {
    fn scope(&self) -> impl PartialEq {
        (&self.organization, &self.credential, &self.model)
    }

    fn tell(&self, law: &mut Law) {
        match (self.what.as_str(), &self.learned) {
            ("batch", Learned::Time { never, .. }) => {
                law.batch.quantiles = of_those_that_end(&self.quantiles, *never);
                law.batch.never = *never;
            }
            ("cancel", Learned::Time { p90: Some(p90), .. }) => law.batch.cancel = *p90,
            ("finished-in-cancel", Learned::Share { share }) => law.batch.finishing = *share,
            ("standard", Learned::Time { p90, p99, .. }) => {
                law.live.latency = p99.or(*p90).unwrap_or(law.live.latency).max(0.001);
            }
            ("calls", Learned::Rate { per_second }) => {
                law.live.per_second = Some(per_second.max(0.001));
            }
            ("flex", Learned::Time { never, .. }) => {
                let flex = law.flex.get_or_insert_with(Flex::default);
                flex.quantiles = of_those_that_end(&self.quantiles, *never);
                flex.never = *never;
            }
            ("flex-refused", Learned::Share { share }) => {
                law.flex.get_or_insert_with(Flex::default).refused = *share;
            }
            _ => {}
        }
    }
}

fn of_those_that_end(quantiles: &[(f64, f64)], never: f64) -> Vec<(f64, f64)> {
    let ends = (1.0 - never).max(1e-9);
    let shares = quantiles.iter().map(|&(share, age)| (share / ends, age));
    shares.take_while(|&(share, _)| share <= 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"object":"offpeak.turnaround","data":[
        {"credential":"a","model":"few","what":"batch","seen":1.0,
         "learned":{"p50":1.0,"p90":2.0,"p99":null,"never":0.0},
         "prior":{"p50":1.0,"p90":2.0,"p99":null,"never":0.0},"quantiles":[[0.5,1.0]]},
        {"credential":"a","model":"many","what":"batch","seen":40.5,
         "learned":{"p50":60.0,"p90":null,"p99":null,"never":0.2},
         "prior":{"p50":1.0,"p90":2.0,"p99":null,"never":0.0},
         "quantiles":[[0.4,60.0],[0.8,600.0],[0.81,601.0]]},
        {"credential":"a","model":"many","what":"cancel","seen":2.0,
         "learned":{"p50":60.0,"p90":90.0,"p99":99.0,"never":0.0},
         "prior":{"p50":60.0,"p90":90.0,"p99":99.0,"never":0.0},"quantiles":[[0.5,60.0]]},
        {"credential":"a","model":"many","what":"standard","seen":9.0,
         "learned":{"p50":1.0,"p90":2.0,"p99":4.5,"never":0.0},
         "prior":{"p50":1.0,"p90":2.0,"p99":4.5,"never":0.0},"quantiles":[[0.5,1.0]]},
        {"organization":"org-1","credential":null,"model":"many","what":"cancel","seen":2.0,
         "learned":{"p50":1.0,"p90":1.0,"p99":1.0,"never":0.0},
         "prior":{"p50":1.0,"p90":1.0,"p99":1.0,"never":0.0},"quantiles":[]},
        {"credential":"a","model":"many","what":"finished-in-cancel","seen":2.0,
         "learned":{"share":0.25},"prior":{"share":0.8}},
        {"credential":"a","model":"many","what":"calls","seen":2.0,
         "learned":{"per_second":1.5},"prior":{"per_second":3.2}}]}"#;

    #[test]
    fn what_a_server_has_learned_is_a_law() {
        let law = Law::from_json(ANSWER).unwrap();
        assert_eq!(law.batch.quantiles, [(0.5, 60.0), (1.0, 600.0)]);
        assert_eq!((law.batch.never, law.batch.cancel), (0.2, 90.0));
        assert_eq!((law.batch.finishing, law.live.latency), (0.25, 4.5));
        assert_eq!((law.live.per_second, &law.flex), (Some(1.5), &None));
        let named = ANSWER.replace(
            r#""credential":"a""#,
            r#""organization":"o","credential":null"#,
        );
        assert_eq!(Law::from_json(&named).unwrap(), law);
        let nothing = r#"{"object":"offpeak.turnaround","data":[]}"#;
        let error = Law::from_json(nothing).unwrap_err().to_string();
        assert!(error.contains("no batch"), "{error}");
    }
}
