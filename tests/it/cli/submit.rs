//! `offpeak submit`: whatever interrupts it, no line is bought twice, and the output is
//! complete and in the order of the input.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use offpeak::simulator::{self, key_id};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{KEY, Said, World, offpeak, said};
use crate::kill::{pico_usd, soon};

/// A file of calls, each with a question of its own.
struct Job {
    input: PathBuf,
    base: String,
    lines: usize,
}

/// What a journal is waited for to have.
#[derive(Clone, Copy, Debug)]
enum Point {
    Taken(usize),
    Ended(usize),
}

impl Job {
    fn new(world: &World, lines: usize) -> Job {
        let input = world.path().join("calls.jsonl");
        let text: String = (0..lines).map(|number| line(number) + "\n").collect();
        fs::write(&input, text).unwrap();
        Job {
            input,
            base: world.base(),
            lines,
        }
    }

    fn out(&self) -> PathBuf {
        self.input.with_extension("out.jsonl")
    }

    fn journal(&self) -> PathBuf {
        let mut name = self.out().into_os_string();
        name.push(".journal");
        name.into()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = offpeak(&["submit", "--deadline", "1h", "--url", &self.base]);
        command.arg(&self.input).args(args);
        command
    }

    async fn run(&self, args: &[&str]) -> Said {
        said(self.command(args)).await
    }

    /// Starts it, and sends it a signal once the journal has come that far.
    async fn interrupted(&self, args: &[&str], point: Point, signal: Signal) -> Said {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let journal = self.journal();
        soon(&format!("{point:?}"), reached(&journal, point, &mut child)).await;
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ending = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        Said::of(soon("its end", ending).await.unwrap())
    }

    /// The output has every line's own answer, in the order of the input.
    fn check_output(&self) {
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

fn line(number: usize) -> String {
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

async fn reached(journal: &Path, point: Point, child: &mut Child) {
    let (word, count) = match point {
        Point::Taken(count) => ("{\"taken\"", count),
        Point::Ended(count) => ("{\"ended\"", count),
    };
    loop {
        let text = fs::read_to_string(journal).unwrap_or_default();
        if text.lines().filter(|line| line.starts_with(word)).count() >= count {
            return;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before {point:?}: {ended:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The provider has answered each question once, and billed each once.
async fn check_bought_once(world: &World, lines: usize) {
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

async fn interrupted_and_resumed(lines: usize) {
    let world = World::start(&[]).await;
    let job = Job::new(&world, lines);
    // While it sends, and while it collects; asked to stop, and killed.
    let moments = [
        (Point::Taken(1), Signal::INT),
        (Point::Taken(lines / 7), Signal::KILL),
        (Point::Taken(lines / 3), Signal::INT),
        (Point::Taken(lines * 3 / 4), Signal::KILL),
        (Point::Ended(1), Signal::KILL),
        (Point::Ended(lines / 3), Signal::INT),
        (Point::Ended(lines * 2 / 3), Signal::KILL),
    ];
    for (point, signal) in moments {
        let said = job.interrupted(&["--wait"], point, signal).await;
        if signal == Signal::INT {
            assert_eq!(said.code, Some(3), "{point:?}: {said:?}");
            assert!(said.err.contains("The same command goes on"), "{said:?}");
        } else {
            assert_eq!(said.code, None, "{said:?}");
        }
        assert!(!job.out().exists(), "an output that is not whole");
    }
    let said = job.run(&["--wait", "--json"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, lines).await;
    let summary: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(summary["succeeded"], lines);
    let paid = pico_usd(summary["paid_usd"].as_str().unwrap());
    assert_eq!(paid, world.provider.simulator.bill().total_pico_usd);

    // Said again, it buys nothing.
    let again = job.run(&["--wait"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    check_bought_once(&world, lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_at_any_moment_and_resumed_it_buys_no_line_twice() {
    interrupted_and_resumed(1_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lines_interrupted_and_resumed() {
    interrupted_and_resumed(10_000).await;
}
