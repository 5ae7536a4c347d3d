//! Live progress: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::report::{Report, Ways};
use crate::{cli::say::say, simulator::Simulator};

/// How often the terminal is refreshed while nothing comes in.
pub const TICK: Duration = Duration::from_millis(200);
/// Between two plain lines.
const PLAIN: Duration = Duration::from_secs(5);

pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    next_line: Duration,
    calls: usize,
}

impl Progress {
    pub fn start(calls: usize) -> Progress {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new(calls as u64);
            let style = "{elapsed:>4} [{bar:40.green}] {pos}/{len} answered  {msg}";
            // The template is ours and valid; without it the bar is merely plain.
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        Progress {
            bar,
            started: Instant::now(),
            next_line: Duration::ZERO,
            calls,
        }
    }

    pub fn show(&mut self, report: &Report, simulator: &Arc<Simulator>) -> io::Result<()> {
        let elapsed = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_position(report.len() as u64);
            bar.set_message(state(report, simulator));
            return Ok(());
        }
        if elapsed >= self.next_line || report.len() == self.calls {
            self.next_line = elapsed + PLAIN;
            let seconds = elapsed.as_secs();
            say(format_args!(
                "{seconds:>3}s  {}/{} answered  {}",
                report.len(),
                self.calls,
                state(report, simulator)
            ))?;
        }
        Ok(())
    }

    pub fn end(&self) -> io::Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
        say("")
    }
}

fn state(report: &Report, simulator: &Arc<Simulator>) -> String {
    let Ways { batch, flex, live } = report.ways();
    let (running, batches) = batches(simulator);
    format!(
        "({batch} by batch, {flex} by flex, {live} live; {running} of {batches} batches running)"
    )
}

/// Those that have not ended, and all.
pub fn batches(simulator: &Arc<Simulator>) -> (usize, usize) {
    let batches = simulator.log().batches;
    let running = batches.iter().filter(|batch| {
        matches!(
            batch.status,
            "validating" | "in_progress" | "finalizing" | "cancelling"
        )
    });
    (running.count(), batches.len())
}
