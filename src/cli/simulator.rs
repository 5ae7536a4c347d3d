//! `offpeak simulator`: the provider without the bill.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use tokio_util::task::TaskTracker;

use super::{Failure, log, say::say};
use crate::{
    app::SystemClock,
    simulator::{Hook, Settings, Simulator, serve},
};

const SECRET: &str = "SIMULATOR_WEBHOOK_SECRET";

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Two runs with the same seed and the same calls give the same answers. A batch's luck
    /// depends on the seed and on how many batches were before it.
    #[arg(long)]
    seed: Option<u64>,
    /// How many times faster than real time batches and calls run.
    #[arg(long)]
    speed: Option<f64>,
    /// The median time of a batch line, before `--speed`: `7m`.
    #[arg(long, value_parser = humantime::parse_duration)]
    turnaround: Option<Duration>,
    /// Where `batch.completed` and the like are sent when a batch ends, signed with the
    /// secret in SIMULATOR_WEBHOOK_SECRET: `http://127.0.0.1:8080/offpeak/webhooks/openai`.
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Settings that differ from the defaults; every key is in src/simulator/default.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    log::start(&log::Settings {
        filter: "warn".into(),
        format: log::Format::Text,
    })?;
    let settings = settings(&args)?;
    let tasks = TaskTracker::new();
    let stop = super::stop_on_signal(&tasks);
    let address = args.listen;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Other(format!("cannot listen on {address}: {error}")))?;
    let address = listener.local_addr()?;
    // It serves whether anybody reads that or not.
    let _unsaid = say(format_args!("the simulator listens on http://{address}/v1"));
    let simulator = Simulator::new(settings, SystemClock::new().now());
    if let Some(url) = &args.webhook_url {
        let secret = std::env::var(SECRET).unwrap_or_default();
        let hook = Hook::new(url, &secret)
            .map_err(|error| Failure::Other(format!("{SECRET}: {error}")))?;
        tasks.spawn(simulator.clone().tell(hook, stop.clone()));
    }
    serve(listener, simulator, stop).await;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &Args) -> Result<Settings, Failure> {
    let mut settings = match &args.config {
        None => Settings::default(),
        Some(path) => {
            let at = |error: &dyn Display| Failure::Other(format!("{}: {error}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| at(&error))?;
            Settings::read(&text).map_err(|error| at(&error))?
        }
    };
    settings.seed = args.seed.unwrap_or(settings.seed);
    settings.speed = args.speed.unwrap_or(settings.speed);
    settings.latency.turnaround_median = args
        .turnaround
        .unwrap_or(settings.latency.turnaround_median);
    settings
        .check()
        .map_err(|error| Failure::Other(error.to_string()))?;
    Ok(settings)
}
