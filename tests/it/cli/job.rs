//! A file of calls, each with a question of its own, and what becomes of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use offpeak::simulator::{self, key_id};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{KEY, Said, World, offpeak, said};
use crate::kill::{apart, soon};

pub struct Job {
    pub input: PathBuf,
    /// The server, by whatever address it has.
    pub base: String,
    pub deadline: &'static str,
    lines: usize,
}

/// What a journal is waited for to have.
#[derive(Clone, Copy, Debug)]
pub enum Point {
    Taken(usize),
    Ended(usize),
}

impl Job {
    pub fn new(world: &World, lines: usize) -> Job {
        Job::at(world.path(), world.base(), lines)
    }

    /// Its files are in `dir`, its server at `base`.
    pub fn at(dir: &Path, base: String, lines: usize) -> Job {
        let input = dir.join("calls.jsonl");
        let text: String = (0..lines).map(|number| line(number) + "\n").collect();
        fs::write(&input, text).unwrap();
        Job {
            input,
            base,
            deadline: "1h",
            lines,
        }
    }

    pub fn out(&self) -> PathBuf {
        self.input.with_extension("out.jsonl")
    }

    pub fn journal(&self) -> PathBuf {
        let mut name = self.out().into_os_string();
        name.push(".journal");
        name.into()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = offpeak(&["submit", "--url", &self.base]);
        let deadline = ["--deadline", self.deadline];
        command.args(deadline).arg(&self.input).args(args);
        command
    }

    pub async fn run(&self, args: &[&str]) -> Said {
        said(self.command(args)).await
    }

    /// Starts it, and sends it a signal once the journal has come that far.
    pub async fn interrupted(&self, args: &[&str], point: Point, signal: Signal) -> Said {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        self.comes_to(point).await;
        assert_eq!(child.try_wait().unwrap(), None, "it ended before");
        kill_process(Pid::from_child(&child), signal).unwrap();
        Said::of(apart("its end", move || child.wait_with_output().unwrap()).await)
    }

    /// Moves the deadline of what was begun to long ago.
    pub fn is_long_over(&self) {
        let journal = fs::read_to_string(self.journal()).unwrap();
        let (first, rest) = journal.split_once('\n').unwrap();
        let mut first: Value = serde_json::from_str(first).unwrap();
        first["begun"]["deadline"] = "2026-01-01T00:00:00.000Z".into();
        fs::write(self.journal(), format!("{first}\n{rest}")).unwrap();
    }

    /// Waits until the journal has come so far.
    pub async fn comes_to(&self, point: Point) {
        let (word, count) = match point {
            Point::Taken(count) => ("{\"taken\"", count),
            Point::Ended(count) => ("{\"ended\"", count),
        };
        let coming = async {
            loop {
                let text = fs::read_to_string(self.journal()).unwrap_or_default();
                if text.lines().filter(|line| line.starts_with(word)).count() >= count {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        soon(&format!("{point:?}"), coming).await;
    }

    /// The output has every line's own answer, in the order of the input.
    pub fn check_output(&self) {
        let text = fs::read_to_string(self.out()).unwrap();
        let mut count = 0;
        for (number, line) in text.lines().enumerate() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["custom_id"], format!("call-{number}"));
            assert_eq!(line["response"]["status_code"], 200, "{line}");
            assert_eq!(line["error"], Value::Null);
            assert!(line["id"].as_str().unwrap().starts_with("op_"));
            assert!(line["response"]["request_id"].is_string(), "{line}");
            let answer = &line["response"]["body"]["choices"][0]["message"]["content"];
            let question = format!("Question {number}.");
            assert!(answer.as_str().unwrap().contains(&question), "{line}");
            count += 1;
        }
        assert_eq!(count, self.lines);
    }
}

pub fn line(number: usize) -> String {
    json!({
        "custom_id": format!("call-{number}"),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": format!("Question {number}.")}],
            "metadata": {"sim": "tokens=40"},
        },
    })
    .to_string()
}

/// The provider has answered each question once, and billed each once.
pub async fn check_bought_once(world: &World, lines: usize) {
    let log = world.provider.simulator.log();
    let runs = |request: &simulator::LoggedRequest| request.runs.values().sum::<u32>();
    let twice: Vec<_> = log.requests.iter().filter(|it| runs(it) != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(log.requests.len(), lines);
    let bill = world.provider.simulator.bill();
    let rows: Vec<_> = bill
        .rows
        .iter()
        .filter(|row| row.key == key_id(KEY))
        .collect();
    assert_eq!(rows.iter().map(|row| row.calls).sum::<u64>(), lines as u64);
}
