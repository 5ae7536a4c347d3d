//! A batch and its life. What will happen is drawn when it is created; its state
//! at any instant is computed from that, so no task waits for it.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::time::Timestamp;

use super::{
    answers::Usage,
    course::{Course, Quirks},
    draw::Draw,
    output::{Ending, NEVER},
    shapes,
    validate::LineError,
};

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
