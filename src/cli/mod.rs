//! The command line.

mod backup;
mod config;
mod dashboard;
mod demo;
mod doctor;
mod keys;
mod log;
mod remote;
mod restore;
mod serve;
mod server;
mod shadow;
mod simulate;
mod simulator;
mod store;
mod submit;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::config::ConfigError;

/// Your ordinary LLM call, half the price, by the time you said.
#[derive(Parser)]
#[command(name = "offpeak", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy.
    Serve(serve::Args),
    /// See it work: a simulated provider, the proxy, and a few hundred calls. No key needed.
    Demo(demo::Args),
    /// Send a file of calls, and get their answers in its order.
    Submit(submit::Args),
    /// A link to the dashboard of a running server, with the admin token in it.
    Dashboard(dashboard::Args),
    /// Play policies on a trace of calls in virtual time: what each would have paid and missed.
    Simulate(simulate::Args),
    /// Run the simulated provider alone.
    Simulator(simulator::Args),
    /// What calls without a deadline would have saved with one, asked of a running server.
    Shadow(shadow::Args),
    /// The keys that a running server issues to its callers (auth.mode = "keys").
    Keys(keys::Args),
    /// What the settings come to, and what is wrong in them.
    Config(config::Args),
    /// Look at all that a server needs: settings, provider, key, clock, disk, receivers.
    Doctor(doctor::Args),
    /// Copy all that is stored into one file, while the server runs or when it does not.
    Backup(backup::Args),
    /// Make a data directory of a backup.
    Restore(restore::Args),
    /// Look at the database of a stopped server, or save what can be read of a damaged one.
    Store(store::Args),
}

/// What threads that nobody waits for get at the end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Runs the command line and returns the process's exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let ran = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Dashboard(args) => dashboard::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Submit(args) => submit::run(args).await,
            Command::Simulate(args) => simulate::run(&args),
            Command::Simulator(args) => simulator::run(args).await,
            Command::Shadow(args) => shadow::run(args).await,
            Command::Keys(args) => keys::run(args).await,
            Command::Config(args) => config::run(args),
            Command::Doctor(args) => doctor::run(args).await,
            Command::Backup(args) => backup::run(args).await,
            Command::Restore(args) => restore::run(&args),
            Command::Store(args) => store::run(&args),
        }
    });
    // A start that is stopped leaves a thread that may read the store for minutes.
    runtime.shutdown_timeout(LAST_MOMENT);
    match ran {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// What ends a command: said to a person, so a sentence and no more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] crate::app::StartError),
    #[error(transparent)]
    Run(#[from] crate::app::RunError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// Where a command finds the data directory.
#[derive(clap::Args)]
struct DataDir {
    /// Where requests, answers and generated secrets are kept [default: offpeak-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The settings that the server runs with.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

impl DataDir {
    fn settings(&self) -> Result<crate::store::Settings, ConfigError> {
        let flags = self.data_dir.clone().map(|dir| ("store.data_dir", dir));
        let flags: Vec<(&str, String)> = flags.into_iter().collect();
        let config =
            crate::config::Config::load(self.config.as_deref(), std::env::vars_os(), &flags)?;
        config.section("store")
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("offpeak: {failure}");
    ExitCode::from(2)
}

/// Cancelled at the first SIGTERM or Ctrl-C.
fn stop_on_signal(tasks: &tokio_util::task::TaskTracker) -> tokio_util::sync::CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = tokio_util::sync::CancellationToken::new();
    let stopping = stop.clone();
    tasks.spawn(async move {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            },
            Err(error) => {
                tracing::error!(%error, "no signals; stop with SIGKILL");
                return;
            }
        }
        stopping.cancel();
    });
    stop
}
