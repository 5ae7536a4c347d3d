//! What happened to a request, as its caller and operators see it.

use serde::Serialize;

use super::view::{RequestView, Shown};
use crate::model::{
    attempt::Lane,
    id::BatchId,
    money::Usd,
    time::Timestamp,
    timeline::{Event, Happened},
};

/// A request with its timeline.
#[derive(Serialize)]
pub struct Described<'a> {
    #[serde(flatten)]
    pub request: RequestView<'a>,
    pub timeline: Vec<EventView<'a>>,
}

/// An instant is null where nobody wrote it down; such events come last.
#[derive(Serialize)]
pub struct EventView<'a> {
    at: Option<Shown<Timestamp>>,
    event: Happened,
    lane: Option<Lane>,
    batch_id: Option<Shown<BatchId>>,
    provider_id: Option<&'a str>,
    reason: Option<&'a str>,
    cost_usd: Option<Shown<Usd>>,
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        EventView {
            at: event.at.map(Shown),
            event: event.what,
            lane: event.lane,
            batch_id: event.batch.map(Shown),
            provider_id: event.provider.as_deref(),
            reason: event.reason.as_deref(),
            cost_usd: event.cost.map(Shown),
        }
    }
}
