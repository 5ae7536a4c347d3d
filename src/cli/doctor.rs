//! `offpeak doctor`: looks at all that a server needs, and says what is wrong and what to
//! do about it. It changes nothing, costs nothing and leaves nothing behind.

mod canary;
mod clock;
mod connect;
mod descriptors;
mod directory;
mod disk;
mod http;
mod report;
mod secrets;
mod server;
mod upstream;
mod webhook;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio::task::spawn_blocking;

use self::{
    http::Key,
    report::{Check, Report, Verdict},
    server::Server,
    upstream::Upstream,
};
use super::{
    Failure,
    config::Reading,
    say::{say, show},
    serve,
};
use crate::app::{Secrets, Settings};

/// One step over the network: a name, a connection, an answer.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub struct Args {
    /// The settings that the server runs with, or will.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The provider's base URL, as `serve --upstream` has it.
    #[arg(long, value_name = "BASE_URL")]
    upstream: Option<String>,
    /// Where the server keeps its data, as `serve --data-dir` has it.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The running server [default: where the settings have it listen, if one is there].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A receiver of webhooks to look at: a URL, or the name of a configured endpoint. If a
    /// server runs, it sends a test event there, for the key in OPENAI_API_KEY.
    #[arg(long, value_name = "TARGET")]
    webhook: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    canary: canary::Canary,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let flags = [
        ("upstream.base_url", args.upstream.clone()),
        ("store.data_dir", args.data_dir.clone()),
    ];
    let flags = flags.into_iter();
    let flags: Vec<_> = flags
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let reading = Reading::new(args.config.as_deref(), &flags)?;
    if args.canary.canary {
        return canary::run(&args.canary, reading, args.json).await;
    }
    let report = Report(look(&args, &reading).await?);
    match args.json {
        true => say(report.to_json())?,
        false => show(report.to_text())?,
    }
    Ok(match report.verdict() {
        Verdict::Failed => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// All checks, each by itself and all at the same time.
async fn look(args: &Args, reading: &Reading) -> Result<Vec<Check>, Failure> {
    let http = http::client()?;
    let mut checks = vec![settings(reading)];
    let sound = reading.settings.as_ref();
    // What a refused value was meant to say is not known, and a key must not be sent to
    // a provider that was not meant.
    let Some(settings) = sound.filter(|_| reading.problems.is_empty()) else {
        let why = "The settings are not valid.";
        let names = ["upstream", "key", "data directory", "open files", "server"];
        checks.extend(names.map(|name| Check::skipped(name, why)));
        return Ok(checks);
    };
    let secrets = serve::secrets(settings);
    let keys = Key::all(settings, &secrets);
    let upstream = Upstream {
        http: &http,
        base: settings.provider.base_url.trim_end_matches('/'),
    };
    let server = running(&http, args.url.as_deref(), settings, &secrets);
    let (reached, allowed, local, (running, is_up), webhook) = tokio::join!(
        upstream.reach(),
        upstream.keys(&keys),
        local(settings, secrets),
        server.look(),
        async {
            let target = args.webhook.as_deref()?;
            Some(webhook::reach(&settings.delivery, target).await)
        },
    );
    checks.extend([reached, allowed, local].into_iter().flatten());
    checks.push(descriptors::look(settings));
    checks.extend(running);
    checks.extend(webhook);
    if let Some(target) = &args.webhook {
        checks.push(match std::env::var("OPENAI_API_KEY") {
            Ok(key) if is_up => webhook::test(&http, &server.url, &key, target).await,
            _ => webhook::untested(),
        });
    }
    Ok(checks)
}

fn settings(reading: &Reading) -> Check {
    const NAME: &str = "settings";
    let advice = "`offpeak config check` tells more.";
    match (reading.problems.as_slice(), reading.warnings.as_slice()) {
        ([], []) => {
            let says = match reading.differences.len() {
                0 => "All settings are at their defaults.".into(),
                1 => "They are valid; one differs from its default.".into(),
                many => format!("They are valid; {many} differ from their defaults."),
            };
            Check::ok(NAME, says)
        }
        ([], [first, ..]) => Check::warning(NAME, format!("{first}.")).advise(advice),
        ([one], _) => Check::failed(NAME, format!("{}.", one.message)).advise(advice),
        ([one, more @ ..], _) => {
            let says = format!("{}; and {} more errors.", one.message, more.len());
            Check::failed(NAME, says).advise(advice)
        }
    }
}

/// The data directory and what is in it.
async fn local(settings: &Settings, secrets: Secrets) -> Vec<Check> {
    let (dir, reserve) = (
        settings.store.data_dir.clone(),
        settings.store.reserve_bytes,
    );
    let looking = spawn_blocking(move || {
        let mut checks = directory::look(&dir, reserve);
        checks.extend(secrets::look(&dir, &secrets));
        checks
    });
    match looking.await {
        Ok(checks) => checks,
        Err(died) => vec![Check::failed(
            "data directory",
            format!("It cannot be told: {died}."),
        )],
    }
}

fn running<'a>(
    http: &'a reqwest::Client,
    named: Option<&str>,
    settings: &Settings,
    secrets: &Secrets,
) -> Server<'a> {
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    let own = |address: std::net::SocketAddr| format!("http://{}", reachable(address));
    let url = named.map_or_else(|| own(settings.server.listen), plain);
    let admin = settings.server.admin_listen;
    let token_file = settings.store.data_dir.join("admin.token");
    let token = secrets.admin_token.as_ref();
    Server {
        http,
        admin_url: admin.map_or_else(|| url.clone(), own),
        url,
        is_named: named.is_some(),
        token: token
            .map(|token| token.expose().to_owned())
            .or_else(|| kept_token(&token_file)),
        token_file,
    }
}

/// Who listens at all addresses is asked at this machine's own.
fn reachable(mut address: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if address.ip().is_unspecified() {
        address.set_ip(match address.is_ipv4() {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn kept_token(file: &Path) -> Option<String> {
    let token = std::fs::read_to_string(file).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}
