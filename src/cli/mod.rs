//! The command line.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod backup;
mod batches;
mod config;
mod dashboard;
mod demo;
mod doctor;
mod dollars;
mod generate;
mod ids;
mod keys;
mod log;
mod operate;
mod pages;
mod prices;
mod remote;
mod requests;
mod restore;
mod savings;
mod say;
mod serve;
mod server;
mod shadow;
mod simulate;
mod simulator;
mod store;
mod submit;
mod table;
mod watch;
mod webhooks;
mod when;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};

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
    /// What was saved, by model, tag, lane, day or tenant.
    Savings(savings::Args),
    /// Your requests: list them, look at one, cancel it.
    Requests(requests::Args),
    /// The batches at the provider.
    Batches(batches::Args),
    /// Deliveries to webhooks: list them, send dead letters again, try a receiver.
    Webhooks(webhooks::Args),
    /// A live view of a running server.
    Watch(watch::Args),
    /// What a running server is at.
    Status(operate::Args),
    /// Stop packing and submitting; rescues go on.
    Pause(operate::Args),
    /// End a pause.
    Resume(operate::Args),
    /// Pack everything that waits, now.
    Flush(operate::Args),
    /// What calls without a deadline would have saved with one, asked of a running server.
    Shadow(shadow::Args),
    /// The keys that a running server issues to its callers (auth.mode = "keys").
    Keys(keys::Args),
    /// What the settings come to, and what is wrong in them.
    Config(config::Args),
    /// Look at all that a server needs: settings, provider, key, clock, disk, receivers.
    Doctor(doctor::Args),
    /// What answers are billed by: a model's prices, or a list of them to import.
    Prices(prices::Args),
    /// Copy all that is stored into one file, while the server runs or when it does not.
    Backup(backup::Args),
    /// Make a data directory of a backup.
    Restore(restore::Args),
    /// Look at the database of a stopped server, or save what can be read of a damaged one.
    Store(store::Args),
    /// Print completions for a shell.
    Completions(generate::Completions),
    /// Print the man page, or write one of every command.
    Man(generate::Man),
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
            Command::Savings(args) => savings::run(args).await,
            Command::Requests(args) => requests::run(args).await,
            Command::Batches(args) => batches::run(args).await,
            Command::Webhooks(args) => webhooks::run(args).await,
            Command::Watch(args) => watch::run(args).await,
            Command::Status(args) => operate::run(operate::Deed::Status, args).await,
            Command::Pause(args) => operate::run(operate::Deed::Pause, args).await,
            Command::Resume(args) => operate::run(operate::Deed::Resume, args).await,
            Command::Flush(args) => operate::run(operate::Deed::Flush, args).await,
            Command::Completions(args) => generate::completions(Cli::command(), &args),
            Command::Man(args) => generate::man(Cli::command(), &args),
            Command::Shadow(args) => shadow::run(args).await,
            Command::Keys(args) => keys::run(args).await,
            Command::Config(args) => config::run(args),
            Command::Doctor(args) => doctor::run(args).await,
            Command::Prices(args) => prices::run(&args),
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
    say::tell(format_args!("offpeak: {failure}"));
    ExitCode::from(2)
}

/// Cancelled at the first SIGTERM or Ctrl-C. Who cancels it is not kept waiting for either.
fn stop_on_signal(tasks: &tokio_util::task::TaskTracker) -> tokio_util::sync::CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = tokio_util::sync::CancellationToken::new();
    let stopping = stop.clone();
    tasks.spawn(async move {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
                () = stopping.cancelled() => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/cli.md");

    #[test]
    fn the_document_tells_of_every_command_and_of_no_other() {
        let cli = Cli::command();
        let mut known: Vec<&str> = cli.get_subcommands().map(|it| it.get_name()).collect();
        let mut told: Vec<&str> = DOCUMENT
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        known.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, known);
        for command in cli.get_subcommands() {
            for inner in command.get_subcommands() {
                let words = format!("offpeak {} {}", command.get_name(), inner.get_name());
                assert!(DOCUMENT.contains(&words), "{words}");
            }
        }
    }

    #[test]
    fn the_documents_examples_are_commands() {
        let mut examples = 0;
        let mut in_shell = false;
        for line in DOCUMENT.lines() {
            match line {
                "```sh" => in_shell = true,
                "```" => in_shell = false,
                _ if in_shell && line.starts_with("offpeak ") => {
                    let command = line.split(" > ").next().unwrap_or_default();
                    let parsed = Cli::try_parse_from(command.split_whitespace());
                    if let Err(error) = parsed {
                        panic!("{line}\n{error}");
                    }
                    examples += 1;
                }
                _ => {}
            }
        }
        let commands = Cli::command().get_subcommands().count();
        assert!(examples >= commands, "{examples} of {commands}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
