//! How long lanes take, as learned: `GET /offpeak/v1/turnaround` for a tenant's own
//! credentials, `GET /offpeak/admin/turnaround` for all.

use serde::Serialize;

use crate::engine::Turnaround;

#[derive(Serialize)]
pub struct TurnaroundView {
    object: &'static str,
    data: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    /// The beginning of a fingerprint: enough to tell a few apart.
    credential: String,
    model: String,
    /// A lane, or `cancel`.
    what: &'static str,
    seen: f64,
    learned: Believed,
    prior: Believed,
    /// The learned curve: what share has ended by how many seconds.
    quantiles: Vec<(f64, f64)>,
}

/// Seconds; none where so many never end.
#[derive(Serialize)]
struct Believed {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    /// The share that never ends.
    never: f64,
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
        let mut credential = known.credential.to_string();
        credential.truncate(FINGERPRINT);
        let (learned, prior) = (&known.learned, &known.prior);
        let at = |share: f64| {
            learned
                .quantile(share)
                .map(|age| rounded(age.as_secs_f64()))
        };
        Item {
            credential,
            model: known.model,
            what: known.what,
            seen: rounded(known.seen),
            learned: believed(|share| learned.quantile(share), learned.survival(FOREVER)),
            prior: believed(|share| prior.quantile(share), prior.survival(FOREVER)),
            quantiles: shares()
                .filter_map(|share| Some((share, at(share)?)))
                .collect(),
        }
    }
}

fn believed(quantile: impl Fn(f64) -> Option<std::time::Duration>, never: f64) -> Believed {
    let at = |share| quantile(share).map(|age| rounded(age.as_secs_f64()));
    Believed {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        never: rounded(never),
    }
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
