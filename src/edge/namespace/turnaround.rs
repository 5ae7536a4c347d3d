//! How long lanes take and how they end, as learned: `GET /offpeak/v1/turnaround` for a tenant's own
//! credentials, `GET /offpeak/admin/turnaround` for all.

use serde::Serialize;

use crate::engine::{Believed, Curve, Owner, Turnaround};

#[derive(Serialize)]
pub struct TurnaroundView {
    object: &'static str,
    data: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    /// None until the provider has named it; then `credential` is none.
    organization: Option<String>,
    /// The beginning of a fingerprint: enough to tell a few apart.
    credential: Option<String>,
    model: String,
    /// A lane, or what else takes time or happens to a share.
    what: &'static str,
    seen: f64,
    #[serde(flatten)]
    believed: Known,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Known {
    Time {
        learned: Time,
        prior: Time,
        /// The learned curve: what share has ended by how many seconds.
        quantiles: Vec<(f64, f64)>,
    },
    Share {
        learned: Share,
        prior: Share,
    },
    Rate {
        learned: Rate,
        prior: Rate,
    },
}

/// Seconds; none where so many never end.
#[derive(Serialize)]
struct Time {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    /// The share that never ends.
    never: f64,
}

#[derive(Serialize)]
struct Share {
    share: f64,
}

#[derive(Serialize)]
struct Rate {
    per_second: f64,
}

const FINGERPRINT: usize = 8;
/// Thirty years, in seconds: longer than any age that is told apart.
const FOREVER: f64 = 1e9;

impl TurnaroundView {
    pub fn of(known: Vec<Turnaround>) -> TurnaroundView {
        TurnaroundView {
            object: "offpeak.turnaround",
            data: known.into_iter().map(Item::from).collect(),
        }
    }
}

impl From<Turnaround> for Item {
    fn from(known: Turnaround) -> Item {
        let (organization, credential) = match known.owner {
            Owner::Organization(name) => (Some(name.to_string()), None),
            Owner::Credential(id) => {
                let mut credential = id.to_string();
                credential.truncate(FINGERPRINT);
                (None, Some(credential))
            }
        };
        Item {
            organization,
            credential,
            model: known.model.to_string(),
            what: known.what,
            seen: rounded(known.seen),
            believed: known.believed.into(),
        }
    }
}

impl From<Believed> for Known {
    fn from(believed: Believed) -> Known {
        match believed {
            Believed::Time { learned, prior } => Known::Time {
                quantiles: shares()
                    .filter_map(|share| Some((share, at(&learned, share)?)))
                    .collect(),
                learned: Time::of(&learned),
                prior: Time::of(&prior),
            },
            Believed::Rate { learned, prior } => Known::Rate {
                learned: Rate {
                    per_second: rounded(learned),
                },
                prior: Rate {
                    per_second: rounded(prior),
                },
            },
            Believed::Share { learned, prior } => Known::Share {
                learned: Share {
                    share: rounded(learned),
                },
                prior: Share {
                    share: rounded(prior),
                },
            },
        }
    }
}

impl Time {
    fn of(curve: &Curve) -> Time {
        Time {
            p50: at(curve, 0.5),
            p90: at(curve, 0.9),
            p99: at(curve, 0.99),
            never: rounded(curve.survival(FOREVER)),
        }
    }
}

fn at(curve: &Curve, share: f64) -> Option<f64> {
    curve.quantile(share).map(|age| rounded(age.as_secs_f64()))
}

/// One to 99 of a hundred, then finer.
fn shares() -> impl Iterator<Item = f64> {
    let hundredths = (1..100).map(|share| f64::from(share) / 100.0);
    hundredths.chain([0.995, 0.999])
}

/// To milliseconds: more is noise.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}
