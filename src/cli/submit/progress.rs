//! How far a run is: bars on a terminal, a line now and then elsewhere. Both go to
//! standard error.

use std::{
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::run::Run;
use crate::cli::say::tell;

/// Between two plain lines.
const PLAIN: Duration = Duration::from_secs(5);

pub struct Progress {
    bar: Option<ProgressBar>,
    next_line: Instant,
    /// Whether answers are waited for.
    waits: bool,
}

impl Progress {
    pub fn start(lines: u64, waits: bool) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(lines), ProgressDrawTarget::stderr());
            let style = "{elapsed:>4} [{bar:40.green}] {pos}/{len} {msg}";
            // The template is ours and valid; without it the bar is merely plain.
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Progress {
            bar,
            next_line: Instant::now() + PLAIN,
            waits,
        }
    }

    pub fn show(&mut self, run: &Run) {
        let sending = run.sent < run.lines() || !self.waits;
        let (done, what) = match sending {
            true => (run.sent, "sent"),
            false => (run.sums.ended(), "answered"),
        };
        let failed = match run.sums.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format!("{what}{failed}"));
            return;
        }
        let now = Instant::now();
        if now >= self.next_line {
            self.next_line = now + PLAIN;
            tell(format_args!("{done}/{} {what}{failed}", run.lines()));
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
