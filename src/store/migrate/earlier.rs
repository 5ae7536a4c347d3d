//! Records as the formats before this one laid them out.
//!
//! - Format 3 is format 2 with two fields more at the end of a batch: which one it is a
//!   twin of, and of which a part.
//! - Format 4 is format 3 with one field more at the end of a batch, an attempt and a
//!   ledger row: what the budgets of issued keys count.
//! - Format 5 is format 4 with the tokens that were written to a cache in the midst of
//!   every usage, the batch that it came from at the end of an attempt, the slack at the
//!   end of a ledger row, and why it was left at the end of a batch.
//!
//! A record of format 2 or 3 is a beginning of the same one in format 4, which holds
//! nothing in the fields that it lacks: as many zero bytes.

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};

use super::super::{
    codec::{HEADER, is_sound, seal_with},
    records::{attempt, batch, ledger, request, unbooked},
};
use crate::{
    model::{
        attempt::{AttemptId, AttemptState, Lane},
        ledger::{LedgerKey, Slack},
        money::Usd,
        request::{Bill, Entry, Framing, Request, Source, State},
        time::Timestamp,
    },
    ports,
};

/// The most fields at its end that a record of format 2 or 3 lacks in format 4.
const MOST: usize = 3;

/// A record of an earlier format in this one's. None where that is the same, and where it
/// cannot be read.
pub fn renewed(key: &[u8], value: &Bytes) -> Option<Bytes> {
    let record = value.get(HEADER..).filter(|_| is_sound(value))?;
    match *key.first()? {
        tag if tag == batch::KIND.tag => longer(key, record),
        tag if tag == request::KIND.tag => {
            let (head, payload) = postcard::take_from_bytes::<Head>(record).ok()?;
            let done = request::Done::from(head.done?);
            let head = request::Head {
                request: head.request,
                done: Some(done),
                payload: head.payload,
            };
            Some(request::encode(&head, payload))
        }
        tag if tag == attempt::KIND.tag => {
            let attempt = read::<Attempt>(record)?;
            Some(attempt::encode(&attempt.into()))
        }
        tag if tag == unbooked::CALL.tag => {
            let call = read::<Unbooked>(record)?;
            Some(unbooked::encode_call(&call.into()))
        }
        tag if tag == ledger::KIND.tag => {
            let (key, row) = read::<(LedgerKey, LedgerRow)>(record)?;
            Some(ledger::encode(&key, &row.into()))
        }
        _ => None,
    }
}

/// A batch, whose fields of format 4 are those of this one but for the last.
fn longer(key: &[u8], record: &[u8]) -> Option<Bytes> {
    let with = |fields: usize| seal_with(&(), &[record, &[0; MOST + 1][..fields]].concat());
    let mut longer = (1..=MOST + 1).map(with);
    longer.find(|longer| batch::decode(key, longer).is_ok())
}

/// A record of format 4, or of an earlier one that lacks its last fields.
fn read<T: DeserializeOwned>(record: &[u8]) -> Option<T> {
    (0..=MOST).find_map(|fields| {
        let record = [record, &[0; MOST][..fields]].concat();
        match postcard::take_from_bytes(&record) {
            Ok((read, [])) => Some(read),
            _ => None,
        }
    })
}

#[derive(Deserialize)]
struct Usage {
    input: u64,
    cached: u64,
    output: u64,
}

impl From<Usage> for crate::model::request::Usage {
    fn from(usage: Usage) -> Self {
        Self {
            input: usage.input,
            cached: usage.cached,
            cache_write: 0,
            output: usage.output,
        }
    }
}

#[derive(Deserialize)]
struct Head {
    request: Request,
    done: Option<Done>,
    payload: request::Payload,
}

#[derive(Deserialize)]
struct Done {
    outcome: Outcome,
    sequence: u64,
}

#[derive(Deserialize)]
struct Outcome {
    state: State,
    status: u16,
    finished: Timestamp,
    source: Source,
    framing: Framing,
    reason: String,
    provider_request: Option<String>,
    usage: Usage,
    bill: Option<Bill>,
}

impl From<Done> for request::Done {
    fn from(Done { outcome, sequence }: Done) -> Self {
        let outcome = crate::model::request::Outcome {
            state: outcome.state,
            status: outcome.status,
            finished: outcome.finished,
            source: outcome.source,
            framing: outcome.framing,
            reason: outcome.reason,
            provider_request: outcome.provider_request,
            usage: outcome.usage.into(),
            bill: outcome.bill,
        };
        Self { outcome, sequence }
    }
}

#[derive(Deserialize)]
struct Attempt {
    id: AttemptId,
    lane: Lane,
    remote: Option<String>,
    started: Timestamp,
    state: AttemptState,
    ended: Option<Timestamp>,
    note: String,
    usage: Usage,
    bill: Option<Bill>,
    reserved: Option<Usd>,
    most: Option<Usd>,
}

impl From<Attempt> for crate::model::attempt::Attempt {
    fn from(attempt: Attempt) -> Self {
        Self {
            id: attempt.id,
            lane: attempt.lane,
            remote: attempt.remote,
            started: attempt.started,
            state: attempt.state,
            ended: attempt.ended,
            note: attempt.note,
            usage: attempt.usage.into(),
            bill: attempt.bill,
            reserved: attempt.reserved,
            most: attempt.most,
            from: None,
        }
    }
}

#[derive(Deserialize)]
struct Unbooked {
    entry: Entry,
    model: String,
    tag: Option<String>,
    attempt: Attempt,
}

impl From<Unbooked> for ports::Unbooked {
    fn from(call: Unbooked) -> Self {
        Self {
            entry: call.entry,
            model: call.model,
            tag: call.tag,
            attempt: call.attempt.into(),
        }
    }
}

#[derive(Deserialize)]
struct LedgerRow {
    requests: u64,
    succeeded: u64,
    late: u64,
    rescued: u64,
    paid_twice: u64,
    unaccounted: u64,
    unpriced: u64,
    usage: Usage,
    paid: Usd,
    standard: Usd,
    rescue_paid: Usd,
    reckoned: Usd,
}

impl From<LedgerRow> for crate::model::ledger::LedgerRow {
    fn from(row: LedgerRow) -> Self {
        Self {
            requests: row.requests,
            succeeded: row.succeeded,
            late: row.late,
            rescued: row.rescued,
            paid_twice: row.paid_twice,
            unaccounted: row.unaccounted,
            unpriced: row.unpriced,
            usage: row.usage.into(),
            paid: row.paid,
            standard: row.standard,
            rescue_paid: row.rescue_paid,
            reckoned: row.reckoned,
            slack: Slack::default(),
        }
    }
}
