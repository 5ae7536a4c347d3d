//! `offpeak serve`.

use std::{path::PathBuf, process::ExitCode};

use tokio_util::task::TaskTracker;

use super::{Failure, log, say::say};
use crate::{
    app::{App, Secrets, Settings, StartError},
    config::Config,
    model::secret::Secret,
};

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The provider's base URL [default: https://api.openai.com/v1].
    #[arg(long, value_name = "BASE_URL")]
    upstream: Option<String>,
    /// Where requests, answers and generated secrets are kept [default: offpeak-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Settings that differ from the defaults; every key is in config/default.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let flags = [
        ("server.listen", args.listen),
        ("upstream.base_url", args.upstream),
        ("store.data_dir", args.data_dir),
    ];
    let flags: Vec<(&str, String)> = flags
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let config = Config::load(args.config.as_deref(), std::env::vars_os(), &flags)?;
    log::start(&config.section("log")?)?;
    let settings = Settings::read(&config)?.within(variable);
    let settings = settings.map_err(StartError::from)?;
    let upstream = settings.provider.base_url.clone();
    let secrets = secrets(&settings);
    let tasks = TaskTracker::new();
    let stop = super::stop_on_signal(&tasks);
    let app = match App::start(settings, secrets, stop).await {
        Err(StartError::Stopped) => return Ok(ExitCode::SUCCESS),
        started => started?,
    };
    // The one line that scripts wait for: the server takes all calls from here on.
    let address = app.address();
    // It serves whether anybody reads that or not.
    let _unsaid = say(format_args!(
        "offpeak listens on http://{address} for {upstream}"
    ));
    app.run().await?;
    Ok(ExitCode::SUCCESS)
}

pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What the environment holds.
pub fn secrets(settings: &Settings) -> Secrets {
    let secret = |name: &str| variable(name).map(Secret::new);
    let variables = settings.auth.variables();
    Secrets {
        master_key: secret("OFFPEAK_MASTER_KEY"),
        previous_master_key: secret("OFFPEAK_PREVIOUS_MASTER_KEY"),
        admin_token: secret("OFFPEAK_ADMIN_TOKEN"),
        upstream_keys: variables
            .filter_map(|name| Some((name.to_owned(), secret(name)?)))
            .collect(),
        upstream_webhooks: secret("OFFPEAK_UPSTREAM_WEBHOOK_SECRET"),
    }
}
