//! The simulator in this process, asked the very same.

use std::time::Duration;

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Ending, Patience, Plan},
    converse,
    line::Line,
    transcript::Exchange,
};
use crate::{
    app::SystemClock,
    cli::{Failure, doctor::http::bearer},
    simulator::{Settings, Simulator, serve},
};

const KEY: &str = "sk-canary";
/// Long enough for a look at the batch in each of its states.
const STATE: Duration = Duration::from_millis(150);
const LOOKS: Duration = Duration::from_millis(20);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(3_600);

/// In which a batch can be cancelled.
const STATES: [&str; 3] = ["validating", "in_progress", "finalizing"];

/// What it says. `ending` is how the batch went at the provider, and goes here.
pub async fn exchanges(
    http: reqwest::Client,
    plan: &Plan,
    ending: &Ending,
) -> Result<Vec<Exchange>, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/v1", listener.local_addr()?);
    let simulator = Simulator::new(settings(plan, ending), SystemClock::new().now());
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, simulator, stop.clone()));
    let mut line = Line::new(http, &base, bearer(KEY), &[]);
    let plan = Plan {
        model: plan.model.clone(),
        embedding_model: plan.embedding_model.clone(),
        patience: match ending {
            Ending::Cancelled(status) if STATES.contains(&status.as_str()) => {
                Patience::Until(status.clone())
            }
            Ending::Cancelled(_) => Patience::For(Duration::ZERO),
            Ending::Ended(_) | Ending::NoBatch => Patience::For(LONG),
        },
        looks: (LOOKS, LOOKS),
        tells: false,
    };
    // It is gone with this function, and nothing in it has to be taken away.
    let never = CancellationToken::new();
    let (said, _left) = converse(&mut line, &plan, "offpeak-canary-0".into(), &never).await;
    stop.cancel();
    serving.join_all().await;
    match said {
        Ok(_) => Ok(line.exchanges),
        Err(why) => Err(Failure::Other(format!("the simulator: {why:?}"))),
    }
}

/// The usual ones, with all that has a time over in a moment, but for the state in which
/// the batch is to be cancelled.
fn settings(plan: &Plan, ending: &Ending) -> Settings {
    let mut settings = Settings::default();
    let latency = &mut settings.latency;
    latency.validation = STATE;
    latency.turnaround_median = STATE;
    latency.turnaround_sigma = 0.0;
    latency.stalled_share = 0.0;
    latency.finalizing = STATE;
    latency.cancel = STATE;
    latency.live_median = Duration::ZERO;
    latency.live_chunk = Duration::ZERO;
    match ending {
        Ending::Cancelled(status) if status == "validating" => latency.validation = LONG,
        Ending::Cancelled(status) if status == "finalizing" => latency.finalizing = LONG,
        Ending::Cancelled(_) => latency.turnaround_median = LONG,
        Ending::Ended(_) | Ending::NoBatch => {}
    }
    for model in [&plan.model, &plan.embedding_model] {
        if let Some(usual) = settings.models.get("gpt-4o-mini").copied() {
            settings.models.entry(model.clone()).or_insert(usual);
        }
    }
    settings
}
