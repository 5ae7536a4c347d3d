//! `offpeak config check`, `offpeak doctor` and its canary: the binary against real
//! sockets.

mod canary;
mod checks;
mod config;
mod provider;

use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::kill::soon;

/// How a command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self}"))
    }

    /// All that it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

fn binary(program: &str, args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn start(args: &[&str], environment: &[(&str, &str)]) -> Child {
    let program = env!("CARGO_BIN_EXE_offpeak");
    binary(program, args, environment).spawn().unwrap()
}

async fn ended(child: Child) -> Ended {
    let output = soon("the end of the command", child.wait_with_output()).await;
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs it to its end.
async fn offpeak(args: &[&str], environment: &[(&str, &str)]) -> Ended {
    ended(start(args, environment)).await
}
