//! The commands as processes, against a server and a provider on real sockets.

mod commands;
mod demo;
mod endings;
mod generated;
mod job;
mod mishaps;
mod pipes;
mod scripted;
mod submit;
pub mod terminal;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use offpeak::simulator;

use crate::kill::{
    apart,
    process::{Revived, Setup},
    provider::{Provider, quick},
};

const KEY: &str = "sk-north.one";
const OPERATOR: &str = "an-operator-token";

/// A server in front of a provider.
struct World {
    provider: Arc<Provider>,
    server: Revived,
    dir: tempfile::TempDir,
}

impl World {
    async fn start(settings: &[(&str, &str)]) -> World {
        World::before(quick(), settings).await
    }

    async fn before(provider: simulator::Settings, settings: &[(&str, &str)]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let provider = Provider::start(provider).await;
        let mut setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
            .with("OFFPEAK_ADMIN_TOKEN", OPERATOR);
        for (name, value) in settings {
            setup = setup.with(name, value);
        }
        World {
            server: Revived::start(setup, &dir.path().join("stderr")).await,
            provider,
            dir,
        }
    }

    fn base(&self) -> String {
        self.server.up().base.to_string()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The binary, with no environment but what a command needs.
fn offpeak(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offpeak"));
    command
        .args(args)
        .env_clear()
        .env("OPENAI_API_KEY", KEY)
        .env("OFFPEAK_ADMIN_TOKEN", OPERATOR)
        .stdin(Stdio::null());
    command
}

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// Waits for its end, while the provider of this process goes on.
async fn said(mut command: Command) -> Said {
    Said::of(apart("the command's end", move || command.output().unwrap()).await)
}
