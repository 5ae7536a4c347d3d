//! What happened to a request, told in order.

use serde::{Serialize, Serializer};

use super::{attempt::Lane, id::BatchId, money::Usd, time::Timestamp};

/// One thing that happened to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// None where nobody wrote down when.
    pub at: Option<Timestamp>,
    pub what: Happened,
    pub lane: Option<Lane>,
    pub batch: Option<BatchId>,
    /// The provider's name for the batch, the background response or the answer.
    pub provider: Option<String>,
    pub reason: Option<String>,
    pub cost: Option<Usd>,
}

/// In the order in which they happen where they happen at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happened {
    Admitted,
    /// It became a line of a batch.
    Packed,
    /// Its batch was created at the provider.
    Submitted,
    /// It was taken out of its batch, to be answered elsewhere.
    Rescued,
    /// A call of its own began.
    AttemptStarted,
    /// One ended without the answer that counts.
    AttemptEnded,
    Answered,
    Failed,
    Cancelled,
    /// Its webhook was taken.
    Delivered,
    /// It was not, and is sent again.
    DeliveryFailed,
    /// It is not sent any more.
    DeadLetter,
}

impl Happened {
    pub const fn as_str(self) -> &'static str {
        match self {
            Happened::Admitted => "admitted",
            Happened::Packed => "packed",
            Happened::Submitted => "submitted",
            Happened::Rescued => "rescued",
            Happened::AttemptStarted => "attempt_started",
            Happened::AttemptEnded => "attempt_ended",
            Happened::Answered => "answered",
            Happened::Failed => "failed",
            Happened::Cancelled => "cancelled",
            Happened::Delivered => "delivered",
            Happened::DeliveryFailed => "delivery_failed",
            Happened::DeadLetter => "dead_letter",
        }
    }
}

impl Serialize for Happened {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}
