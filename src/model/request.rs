//! One deferred call, from admission to its one ending.

use std::{ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    attempt::Lane,
    endpoint::Endpoint,
    id::{BatchId, CallDigest, CredentialId, DestinationId, RequestKey},
    money::Usd,
    time::Timestamp,
};

/// What the caller asked for. Fixed at admission, but for the lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub key: RequestKey,
    pub endpoint: Endpoint,
    pub model: String,
    pub credential: CredentialId,
    pub cohort: Cohort,
    pub admitted: Timestamp,
    pub deadline: Timestamp,
    pub on_late: OnLate,
    pub tag: Option<String>,
    /// A configured endpoint's name, or an https URL.
    pub webhook: Option<String>,
    /// Fingerprint of the caller's `Idempotency-Key`.
    pub idempotency: Option<CallDigest>,
    pub digest: CallDigest,
    /// A caller waits on the connection: until the answer is delivered, the
    /// same call sent again takes this request over.
    pub held: bool,
    /// How the caller wants the answer framed.
    pub shape: Shape,
    /// Bytes of the request's JSONL line, its newline included.
    pub line_bytes: u32,
    /// Inputs of an embeddings call; 1 elsewhere.
    pub inputs: u32,
    /// The lane that was chosen, and why: by admission, and again where that one did
    /// not answer and a batch is to.
    pub lane: Lane,
    pub reason: String,
}

impl Request {
    pub fn entry(&self) -> Entry {
        Entry {
            key: self.key,
            cohort: self.cohort,
            lane: self.lane,
            deadline: self.deadline,
            line_bytes: self.line_bytes,
            inputs: self.inputs,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    Plain,
    /// Server-sent events.
    Stream {
        include_usage: bool,
    },
    /// `background: true` of the Responses API.
    Background,
}

/// What to do when the discount lane will not make it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum OnLate {
    /// Pay more to be on time.
    #[default]
    Rescue,
    /// Stay cheap and be late.
    Wait,
    /// End as failed at the deadline.
    Fail,
}

impl OnLate {
    pub const ALL: [OnLate; 3] = [OnLate::Rescue, OnLate::Wait, OnLate::Fail];

    pub const fn as_str(self) -> &'static str {
        match self {
            OnLate::Rescue => "rescue",
            OnLate::Wait => "wait",
            OnLate::Fail => "fail",
        }
    }
}

/// What was promised at admission. Firm work goes before the rest where there is
/// not enough live capacity for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    Firm,
    BestEffort,
}

impl Guarantee {
    pub const fn as_str(self) -> &'static str {
        match self {
            Guarantee::Firm => "firm",
            Guarantee::BestEffort => "best-effort",
        }
    }
}

/// The requests that may share a provider batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cohort {
    pub destination: DestinationId,
    pub on_late: OnLate,
    pub guarantee: Guarantee,
    pub bucket: Bucket,
}

/// A span of absolute time that deadlines fall into. Widths are powers of two
/// in milliseconds, so that equal slack gives equal borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bucket {
    pub start: Timestamp,
    pub width_log2: u8,
}

impl Bucket {
    const PARTS: u32 = 16;

    /// The bucket of `deadline`, at most `width` wide (and at least 1 ms).
    pub fn of(deadline: Timestamp, width: Duration) -> Bucket {
        let millis = u64::try_from(width.as_millis()).unwrap_or(u64::MAX).max(1);
        let width_log2 = millis.ilog2().min(62) as u8;
        let start = (deadline.as_millis() >> width_log2) << width_log2;
        Bucket {
            start: Timestamp::from_millis(start),
            width_log2,
        }
    }

    /// The first instant after it.
    pub fn end(&self) -> Timestamp {
        self.start + Duration::from_millis(1 << self.width_log2)
    }

    /// The beginning of the part of it that a deadline falls into, one of sixteen.
    pub fn part(&self, deadline: Timestamp) -> Timestamp {
        let width_log2 = self.width_log2.saturating_sub(Bucket::PARTS.ilog2() as u8);
        let start = (deadline.as_millis() >> width_log2) << width_log2;
        Timestamp::from_millis(start)
    }
}

/// Where a cohort's work goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    pub id: DestinationId,
    pub tenant: super::id::TenantId,
    pub credential: CredentialId,
    pub endpoint: Endpoint,
    pub model: String,
}

/// What moves between places: enough to pack, to order by deadline and to go back
/// to its queue without reading the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub key: RequestKey,
    pub cohort: Cohort,
    /// The lane that was chosen.
    pub lane: Lane,
    pub deadline: Timestamp,
    pub line_bytes: u32,
    pub inputs: u32,
}

impl Entry {
    /// Its deadline, or a little before it: what is counted by deadlines.
    pub fn due(&self) -> Timestamp {
        self.cohort.bucket.part(self.deadline)
    }

    /// A live call for it takes the place of a batch.
    pub fn is_rescue(&self) -> bool {
        self.lane == Lane::Batch
    }

    /// Whether an answer in this lane was to be on time: it is further up the ladder than
    /// was planned. Who would rather be late is there only where no batch takes the call.
    pub fn is_rescued_in(&self, lane: Option<Lane>) -> bool {
        self.cohort.on_late == OnLate::Rescue && lane.is_some_and(|lane| lane > self.lane)
    }

    pub fn live_queue(&self) -> LiveQueue {
        LiveQueue {
            destination: self.cohort.destination,
            on_late: self.cohort.on_late,
            guarantee: self.cohort.guarantee,
            rescued: self.is_rescue(),
        }
    }
}

/// Requests that wait for live calls and stand in one order, earliest deadline
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LiveQueue {
    pub destination: DestinationId,
    pub on_late: OnLate,
    pub guarantee: Guarantee,
    /// They were to be answered in a batch.
    pub rescued: bool,
}

/// Where an open request is. It is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// Waiting to be packed.
    Queue(Cohort),
    /// A line of a batch.
    Line(BatchId),
    /// Waiting for, or in, a live call.
    Live,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Placed,
    Succeeded,
    Failed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An attempt opens.
    Place,
    /// Its attempt ended without an answer.
    Return,
    Succeed,
    Fail,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a request that is {state:?} cannot {event:?}")]
pub struct Illegal {
    pub state: State,
    pub event: Event,
}

impl State {
    pub fn next(self, event: Event) -> Result<State, Illegal> {
        use {Event as E, State as S};
        match (self, event) {
            (S::Queued, E::Place) => Ok(S::Placed),
            (S::Placed, E::Return) => Ok(S::Queued),
            // Rescue moves an open attempt's request straight to another lane.
            (S::Placed, E::Place) => Ok(S::Placed),
            // A late answer can reach a request that went back to the queue.
            (S::Queued | S::Placed, E::Succeed) => Ok(S::Succeeded),
            (S::Queued | S::Placed, E::Fail) => Ok(S::Failed),
            (S::Queued | S::Placed, E::Cancel) => Ok(S::Cancelled),
            (state, event) => Err(Illegal { state, event }),
        }
    }

    pub const fn is_terminal(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Placed => "in_progress",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

impl From<&Place> for State {
    fn from(place: &Place) -> State {
        match place {
            Place::Queue(_) => State::Queued,
            Place::Line(_) | Place::Live => State::Placed,
        }
    }
}

/// How a request ended. The answer's bytes are kept beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `Succeeded`, `Failed` or `Cancelled`.
    pub state: State,
    /// The HTTP status the caller gets.
    pub status: u16,
    pub finished: Timestamp,
    pub source: Source,
    pub framing: Framing,
    pub reason: String,
    /// The provider's `x-request-id`, or the line's `request_id`.
    pub provider_request: Option<String>,
    pub usage: Usage,
    /// Unknown where the model has no price.
    pub bill: Option<Bill>,
}

impl Outcome {
    /// Errors are not billed, unless they tell tokens.
    pub fn was_billed(&self) -> bool {
        self.state == State::Succeeded || self.bill.is_some()
    }
}

/// How the answer's bytes are framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    #[default]
    Json,
    /// The server-sent events of a call that was streamed live.
    EventStream,
}

/// Who gave the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Batch(BatchId),
    /// A call outside of batches, in the lane that it is billed as.
    Live(Lane),
    /// Offpeak itself: cancelled, or failed at the deadline.
    Offpeak,
}

impl Source {
    pub const fn lane(self) -> Option<Lane> {
        match self {
            Source::Batch(_) => Some(Lane::Batch),
            Source::Live(lane) => Some(lane),
            Source::Offpeak => None,
        }
    }
}

/// Tokens as the provider counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input: u64,
    /// The part of `input` that the provider had cached.
    pub cached: u64,
    /// The part of `input` that it put into its cache, at a rate of its own.
    pub cache_write: u64,
    pub output: u64,
}

/// The most there is where a provider's numbers add up to more.
impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        for (sum, more) in [
            (&mut self.input, other.input),
            (&mut self.cached, other.cached),
            (&mut self.cache_write, other.cache_write),
            (&mut self.output, other.output),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// What an answer cost in its lane, and at the standard price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    pub paid: Usd,
    pub standard: Usd,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_ends_once() {
        for state in [State::Succeeded, State::Failed, State::Cancelled] {
            for event in [
                Event::Place,
                Event::Return,
                Event::Succeed,
                Event::Fail,
                Event::Cancel,
            ] {
                assert_eq!(state.next(event), Err(Illegal { state, event }));
            }
        }
    }

    #[test]
    fn tokens_add_up_to_the_most_there_is() {
        let most = Usage {
            input: u64::MAX,
            cached: u64::MAX,
            cache_write: u64::MAX,
            output: u64::MAX,
        };
        let mut sum = most;
        sum += most;
        assert_eq!(sum, most);
        let mut sum = Usage {
            input: 1,
            cached: 2,
            cache_write: 3,
            output: 4,
        };
        sum += sum;
        let counts = (sum.input, sum.cached, sum.cache_write, sum.output);
        assert_eq!(counts, (2, 4, 6, 8));
    }

    proptest! {
        #[test]
        fn a_deadline_is_inside_its_bucket(at in 0u64..1 << 50, width in 0u64..1 << 40) {
            let deadline = Timestamp::from_millis(at);
            let width = Duration::from_millis(width);
            let bucket = Bucket::of(deadline, width);
            prop_assert!(bucket.start <= deadline && deadline < bucket.end());
            prop_assert!(bucket.start.until(bucket.end()) <= width.max(Duration::from_millis(1)));
        }
    }
}
