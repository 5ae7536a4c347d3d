//! A batch and its life. What will happen is drawn when it is created; its state
//! at any instant is computed from that, so no task waits for it.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::time::Timestamp;

use super::{
    answers::Usage,
    draw::{Draw, scaled},
    faults::Kind,
    output::{Ending, Run},
    settings::{Latency, Settings},
    shapes,
    validate::LineError,
};

const WINDOW: Duration = Duration::from_secs(86_400);
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Job {
    pub id: String,
    pub key: String,
    pub org: String,
    pub endpoint: String,
    pub input_file_id: String,
    pub metadata: Option<Value>,
    pub output_expires_after: Option<Duration>,
    pub model: Option<String>,
    /// Prompt tokens that count against the enqueued limit until it is terminal.
    pub enqueued: u64,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub fate: Fate,
    pub cancel: Option<Cancel>,
    pub quirks: Quirks,
    pub settled: Option<Settled>,
}

/// What becomes of a batch that nobody cancels.
#[derive(Debug)]
pub(super) enum Fate {
    Invalid {
        at: Timestamp,
        errors: Vec<LineError>,
    },
    Runs(Course),
}

#[derive(Debug)]
pub(super) struct Course {
    pub in_progress_at: Timestamp,
    /// `None` when some line never ends.
    pub finalizing_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub total: usize,
    /// When each line ends, ascending: answered, and failed.
    answered: Vec<Timestamp>,
    failed: Vec<Timestamp>,
    /// Given up when the batch is settled; its files keep what they need.
    pub run: Option<Arc<Run>>,
}

#[derive(Debug)]
pub(super) struct Cancel {
    pub at: Timestamp,
    pub done: Timestamp,
    /// Lines that end by then are answered and billed.
    pub cutoff: Timestamp,
}

/// What is fixed when a batch is terminal.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub output_file_id: Option<String>,
    pub error_file_id: Option<String>,
    pub usage: Usage,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Validating => "validating",
            Status::Failed => "failed",
            Status::InProgress => "in_progress",
            Status::Finalizing => "finalizing",
            Status::Completed => "completed",
            Status::Expired => "expired",
            Status::Cancelling => "cancelling",
            Status::Cancelled => "cancelled",
        }
    }
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

/// When each line of a batch ends, in milliseconds from its beginning.
pub(super) fn draw_ends(
    lines: &[super::validate::Line],
    batch: &str,
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
    let shared = Draw::new(settings.seed, "batch", batch.as_bytes());
    let mut common = shared;
    let common_normal = common.normal();
    let stalled = common.unit() < stalled_share;
    let stalled_lines = if stalled { common.unit() } else { 0.0 };
    let correlation = line_correlation.clamp(0.0, 1.0);
    let end_of = |index: usize, line: &super::validate::Line| {
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

impl Job {
    pub fn status(&self, now: Timestamp) -> Status {
        if let Some(cancel) = &self.cancel {
            return match now >= cancel.done {
                true => Status::Cancelled,
                false => Status::Cancelling,
            };
        }
        match &self.fate {
            Fate::Invalid { at, .. } if now >= *at => Status::Failed,
            Fate::Runs(course) if now >= self.terminal_at() => {
                match course.completed_at.is_some_and(|at| at <= self.expires_at) {
                    true => Status::Completed,
                    false => Status::Expired,
                }
            }
            Fate::Runs(course) if course.finalizing_at.is_some_and(|at| now >= at) => {
                Status::Finalizing
            }
            Fate::Runs(course) if now >= course.in_progress_at => Status::InProgress,
            _ => Status::Validating,
        }
    }

    pub fn terminal_at(&self) -> Timestamp {
        match (&self.cancel, &self.fate) {
            (Some(cancel), _) => cancel.done,
            (None, Fate::Invalid { at, .. }) => *at,
            (None, Fate::Runs(course)) => course
                .completed_at
                .map_or(self.expires_at, |at| at.min(self.expires_at)),
        }
    }

    /// When lines stop ending.
    fn cutoff(&self) -> Timestamp {
        match &self.cancel {
            Some(cancel) => cancel.cutoff,
            None => self.expires_at,
        }
    }

    /// Lines of a valid input.
    pub fn lines(&self) -> usize {
        match &self.fate {
            Fate::Runs(course) => course.total,
            Fate::Invalid { .. } => 0,
        }
    }

    /// Each line's ending, in the order of the files, once the batch is terminal.
    /// Lines that a fault or a directive makes missing are left out.
    pub fn endings(&self, shuffle: bool) -> Vec<(u32, Ending)> {
        let Fate::Runs(Course { run: Some(run), .. }) = &self.fate else {
            return Vec::new();
        };
        let cutoff = self.cutoff();
        if run.began > cutoff {
            return Vec::new();
        }
        let code = match self.cancel {
            Some(_) => "batch_cancelled",
            None => "batch_expired",
        };
        let mut order: Vec<u32> = (0..run.lines.len() as u32).collect();
        if shuffle {
            let draw = Draw::new(0, "order", self.id.as_bytes());
            order.sort_by_cached_key(|index| {
                (
                    run.ends[*index as usize],
                    draw.nth(u64::from(*index)).next(),
                )
            });
        }
        let ended = |index: u32| {
            let end = run.ends[index as usize];
            end != NEVER && run.began + Duration::from_millis(end) <= cutoff
        };
        let mut odd = self.quirks.missing_lines;
        let mut zero = self.quirks.zero_status;
        let mut endings = Vec::with_capacity(order.len());
        for index in order {
            let line = &run.lines[index as usize];
            if line.steer.as_ref().is_some_and(|steer| steer.missing) {
                continue;
            }
            let ending = match (ended(index), line.status) {
                (false, _) => Ending::NotRun(code),
                (true, _) if odd > 0 => {
                    odd -= 1;
                    continue;
                }
                (true, _) if zero > 0 => {
                    zero -= 1;
                    Ending::Zero
                }
                (true, 200) => Ending::Answered,
                (true, _) => Ending::Failed,
            };
            endings.push((index, ending));
        }
        endings
    }

    fn counts(&self, now: Timestamp) -> Value {
        let Fate::Runs(course) = &self.fate else {
            return json!({"total": 0, "completed": 0, "failed": 0});
        };
        let until = now.min(self.cutoff());
        if until < course.in_progress_at {
            return json!({"total": 0, "completed": 0, "failed": 0});
        }
        if self.quirks.wrong_counts {
            return json!({"total": course.total, "completed": course.total, "failed": 0});
        }
        let ended = |times: &[Timestamp]| times.partition_point(|at| *at <= until);
        json!({
            "total": course.total,
            "completed": ended(&course.answered),
            "failed": ended(&course.failed),
        })
    }

    /// The batch object as the wire has it at `now`.
    pub fn object(&self, now: Timestamp) -> BatchObject<'_> {
        let status = self.status(now);
        let seconds = |at: Timestamp| (at <= now).then(|| at.as_secs());
        let only = |when: Status, at: Timestamp| (status == when).then(|| at.as_secs());
        let course = match &self.fate {
            Fate::Runs(course) => Some(course),
            Fate::Invalid { .. } => None,
        };
        let errors = match &self.fate {
            Fate::Invalid { errors, .. } if status == Status::Failed => {
                Some(json!({"object": "list", "data": errors}))
            }
            _ => None,
        };
        let settled = self.settled.as_ref();
        let usage = settled.map(|settled| settled.usage).unwrap_or_default();
        BatchObject {
            id: &self.id,
            object: "batch",
            endpoint: &self.endpoint,
            model: self.model.as_deref(),
            errors,
            input_file_id: &self.input_file_id,
            completion_window: "24h",
            status: status.name(),
            output_file_id: settled.and_then(|settled| settled.output_file_id.as_deref()),
            error_file_id: settled.and_then(|settled| settled.error_file_id.as_deref()),
            created_at: self.created_at.as_secs(),
            in_progress_at: course
                .filter(|course| course.in_progress_at <= self.cutoff())
                .and_then(|course| seconds(course.in_progress_at)),
            expires_at: self.expires_at.as_secs(),
            finalizing_at: course
                .filter(|_| self.cancel.is_none())
                .and_then(|course| seconds(course.finalizing_at?)),
            completed_at: only(Status::Completed, self.terminal_at()),
            failed_at: only(Status::Failed, self.terminal_at()),
            expired_at: only(Status::Expired, self.expires_at),
            cancelling_at: self.cancel.as_ref().map(|cancel| cancel.at.as_secs()),
            cancelled_at: only(Status::Cancelled, self.terminal_at()),
            request_counts: self.counts(now),
            usage: shapes::usage_in_out(&usage),
            metadata: self.metadata.as_ref(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct BatchObject<'a> {
    id: &'a str,
    object: &'static str,
    endpoint: &'a str,
    model: Option<&'a str>,
    errors: Option<Value>,
    input_file_id: &'a str,
    completion_window: &'static str,
    status: &'static str,
    output_file_id: Option<&'a str>,
    error_file_id: Option<&'a str>,
    created_at: u64,
    in_progress_at: Option<u64>,
    expires_at: u64,
    finalizing_at: Option<u64>,
    completed_at: Option<u64>,
    failed_at: Option<u64>,
    expired_at: Option<u64>,
    cancelling_at: Option<u64>,
    cancelled_at: Option<u64>,
    request_counts: Value,
    usage: Value,
    metadata: Option<&'a Value>,
}
