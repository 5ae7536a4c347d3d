//! When a batch's lines end: drawn once, when the batch is created.

use std::{sync::Arc, time::Duration};

use crate::model::time::Timestamp;

use super::{
    draw::{Draw, scaled},
    faults::Kind,
    output::{NEVER, Run},
    settings::{Latency, Settings},
    validate::Line,
};

const WINDOW: Duration = Duration::from_secs(86_400);

/// A valid batch's course, if nobody cancels it.
#[derive(Debug)]
pub(super) struct Course {
    pub in_progress_at: Timestamp,
    /// `None` when some line never ends.
    pub finalizing_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub total: usize,
    /// When each line ends, ascending: answered, and failed.
    pub answered: Vec<Timestamp>,
    pub failed: Vec<Timestamp>,
    /// Given up when the batch is settled; its files keep what they need.
    pub run: Option<Arc<Run>>,
}

impl Course {
    /// Lays out a valid batch's course from `run`, whose `ends` are drawn already.
    pub fn new(run: Run, finalizing: Duration) -> Self {
        let at = |index: usize| run.began + Duration::from_millis(run.ends[index]);
        let finished = |good: bool| {
            let ending = (0..run.lines.len()).filter(|index| run.ends[*index] != NEVER);
            let mut times: Vec<Timestamp> = ending
                .filter(|index| (run.lines[*index].status == 200) == good)
                .map(at)
                .collect();
            times.sort_unstable();
            times
        };
        let (answered, failed) = (finished(true), finished(false));
        let all = answered.len() + failed.len() == run.lines.len();
        let finalizing_at = all.then(|| {
            let last = answered.last().max(failed.last());
            last.copied().unwrap_or(run.began)
        });
        Course {
            in_progress_at: run.began,
            finalizing_at,
            completed_at: finalizing_at.map(|at| at + finalizing),
            total: run.lines.len(),
            answered,
            failed,
            run: Some(Arc::new(run)),
        }
    }
}

/// When each line of the `batch`th batch ends, in milliseconds from its beginning.
pub(super) fn draw_ends(
    lines: &[Line],
    batch: u64,
    quirks: &Quirks,
    settings: &Settings,
) -> Vec<u64> {
    let Latency {
        turnaround_median,
        turnaround_sigma,
        line_correlation,
        stalled_share,
        ..
    } = settings.latency;
    let shared = Draw::new(settings.seed, "batch", &batch.to_le_bytes());
    let mut common = shared;
    let common_normal = common.normal();
    let stalled = common.unit() < stalled_share;
    let stalled_lines = if stalled { common.unit() } else { 0.0 };
    let correlation = line_correlation.clamp(0.0, 1.0);
    let end_of = |index: usize, line: &Line| {
        let mut own = shared.nth(index as u64 + 1);
        let normal = correlation.sqrt() * common_normal + (1.0 - correlation).sqrt() * own.normal();
        let steer = line.steer.as_deref();
        let never = steer.is_some_and(|steer| steer.never)
            || own.unit() < stalled_lines
            // The stalled batch has a stalled line, however short it is.
            || (stalled && index == 0)
            || (quirks.half_finishes && index.is_multiple_of(2));
        if never {
            return NEVER;
        }
        let slow = steer.map_or(Duration::ZERO, |steer| steer.slow);
        let time = scaled(turnaround_median, (turnaround_sigma * normal).exp());
        u64::try_from((time + slow + quirks.slower).as_millis()).unwrap_or(NEVER - 1)
    };
    lines
        .iter()
        .enumerate()
        .map(|(index, line)| end_of(index, line))
        .collect()
}

/// What a scripted fault did to this batch.
#[derive(Debug, Default)]
pub(super) struct Quirks {
    pub missing_lines: usize,
    pub zero_status: usize,
    pub empty_error_file_id: bool,
    pub wrong_counts: bool,
    pub half_finishes: bool,
    pub expires_in: Option<Duration>,
    pub fails_with: Option<String>,
    pub slower: Duration,
    pub finalizes_slower: Duration,
    pub hidden_until: Timestamp,
    pub unlisted_until: Timestamp,
}

impl Quirks {
    pub fn of(kind: Option<&Kind>, now: Timestamp) -> Self {
        let mut quirks = Quirks::default();
        match kind {
            Some(Kind::MissingLines { lines }) => quirks.missing_lines = *lines,
            Some(Kind::ZeroStatus { lines }) => quirks.zero_status = *lines,
            Some(Kind::EmptyErrorFileId) => quirks.empty_error_file_id = true,
            Some(Kind::WrongCounts) => quirks.wrong_counts = true,
            Some(Kind::Expire { within }) => {
                quirks.half_finishes = true;
                quirks.expires_in = Some(*within);
            }
            Some(Kind::Fail { code }) => quirks.fails_with = Some(code.clone()),
            Some(Kind::Slow { by }) => quirks.slower = *by,
            Some(Kind::SlowFinalizing { by }) => quirks.finalizes_slower = *by,
            Some(Kind::Vanish { lasting }) => {
                quirks.hidden_until = now + *lasting;
                quirks.unlisted_until = now + *lasting;
            }
            Some(Kind::Unlisted { lasting }) => quirks.unlisted_until = now + *lasting,
            _ => {}
        }
        quirks
    }

    pub fn window(&self) -> Duration {
        self.expires_in.unwrap_or(WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What somebody who tries it first sees is neither the best nor the worst luck.
    #[test]
    fn the_first_fifty_batches_of_the_default_seed_are_as_published() {
        let settings = Settings::default();
        let line = Line {
            offset: 0,
            len: 1,
            fingerprint: 1,
            usage: Default::default(),
            status: 200,
            steer: None,
        };
        let lines = [line];
        let mut minutes: Vec<u64> = (0..50)
            .map(|batch| draw_ends(&lines, batch, &Quirks::default(), &settings)[0] / 60_000)
            .collect();
        minutes.sort_unstable();
        let (median, ninth, last) = (minutes[25], minutes[45], minutes[49]);
        assert!(
            (6..=8).contains(&median) && (30..60).contains(&ninth) && last < 120,
            "{minutes:?}"
        );
    }
}
