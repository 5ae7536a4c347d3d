//! Prometheus' own tool on what we tell and on our alerts. A machine without it skips and
//! says so; with `OFFPEAK_REQUIRE_ALL=1`, as in `.ci/run`, that is a failure.

use std::{
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use super::work::worked;

#[tokio::test]
async fn prometheus_finds_nothing_to_say() {
    let worked = worked().await;
    lint(&["check", "metrics"], &worked.scrape.text);
    worked.app.finish().await;
}

#[test]
fn the_alerts_are_valid() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/alerts.yml");
    lint(&["check", "rules", rules.to_str().unwrap()], "");
}

/// What each alert waits for makes it go off, and an ordinary day none.
#[test]
fn the_alerts_go_off() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/metrics/alerts.test.yml");
    lint(&["test", "rules", tests.to_str().unwrap()], "");
}

#[test]
fn each_alert_is_made_to_go_off() {
    let alerts = include_str!("../../../config/alerts.yml");
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10, "the search finds nothing");
    for name in names {
        let tested = include_str!("alerts.test.yml").contains(&format!("name: {name}\n"));
        assert!(tested, "{name} has no test in alerts.test.yml");
    }
}

/// Runs promtool, which must find nothing.
pub fn lint(arguments: &[&str], input: &str) {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return skip(&format!("promtool, of Debian's prometheus, {error}")),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // It may have its say before it has read everything.
    let _ = writing.join().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
}

fn skip(reason: &str) {
    let skipped = format!("SKIPPED: what promtool says, because {reason}");
    let required = std::env::var_os("OFFPEAK_REQUIRE_ALL").is_some();
    assert!(!required, "{skipped}");
    // Not by `eprintln!`, which is kept back where a test passes.
    let mut console = io::stderr();
    writeln!(console, "{skipped}").unwrap();
}
