//! A request as its caller sees it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{
    engine::View,
    model::{
        attempt::{Attempt, AttemptId, AttemptState, Lane},
        id::{BatchId, RequestId},
        money::Usd,
        request::{OnLate, Place, Request, Usage},
        time::Timestamp,
    },
    ports::DeliveryStatus,
};

/// Everything that is known of a request, less its body and its answer.
/// Instants are RFC 3339, money is decimal US dollars in strings.
#[derive(Serialize)]
pub struct RequestView<'a> {
    id: Shown<RequestId>,
    object: &'static str,
    status: &'static str,
    endpoint: &'static str,
    model: &'a str,
    tag: Option<&'a str>,
    lane: Lane,
    reason: &'a str,
    guarantee: &'static str,
    on_late: OnLate,
    admitted_at: Shown<Timestamp>,
    deadline: Shown<Timestamp>,
    finished_at: Option<Shown<Timestamp>>,
    /// It ended after its deadline, or is open past it.
    late: bool,
    place: Option<PlaceView>,
    attempts: Vec<AttemptView<'a>>,
    webhook: Option<WebhookView<'a>>,
    /// The answer's HTTP status.
    status_code: Option<u16>,
    provider_request_id: Option<&'a str>,
    usage: Option<UsageView>,
    cost_usd: Option<Shown<Usd>>,
    standard_usd: Option<Shown<Usd>>,
    saved_usd: Option<Shown<Usd>>,
    /// Billed by the provider for answers that came when there was one.
    also_paid_usd: Option<Shown<Usd>>,
    links: Links,
}

impl<'a> RequestView<'a> {
    pub fn new(view: &'a View, now: Timestamp) -> Self {
        let request = &view.request;
        let outcome = view.outcome.as_ref();
        let bill = outcome.and_then(|outcome| outcome.bill);
        let late_bills = view.attempts.iter().filter_map(late_bill);
        RequestView {
            id: Shown(request.key.id),
            object: "offpeak.request",
            status: view.state.as_str(),
            endpoint: request.endpoint.path(),
            model: &request.model,
            tag: request.tag.as_deref(),
            lane: view.lane(),
            reason: &view.reason,
            guarantee: view.request.cohort.guarantee.as_str(),
            on_late: request.on_late,
            admitted_at: Shown(request.admitted),
            deadline: Shown(request.deadline),
            finished_at: outcome.map(|outcome| Shown(outcome.finished)),
            late: outcome.map_or(now, |outcome| outcome.finished) > request.deadline,
            place: view.place.map(PlaceView::from),
            attempts: view.attempts.iter().map(AttemptView::from).collect(),
            webhook: webhook(request, view.delivery.as_ref()),
            status_code: outcome.map(|outcome| outcome.status),
            provider_request_id: outcome.and_then(|it| it.provider_request.as_deref()),
            usage: outcome.map(|outcome| UsageView::from(outcome.usage)),
            cost_usd: bill.map(|bill| Shown(bill.paid)),
            standard_usd: bill.map(|bill| Shown(bill.standard)),
            saved_usd: bill.map(|bill| Shown(bill.standard - bill.paid)),
            also_paid_usd: sum(late_bills).map(Shown),
            links: Links::of(request),
        }
    }
}

fn late_bill(attempt: &Attempt) -> Option<Usd> {
    let bill = attempt.bill?;
    (attempt.state == AttemptState::Late).then_some(bill.paid)
}

/// Nothing where there is nothing to add up.
fn sum(amounts: impl Iterator<Item = Usd>) -> Option<Usd> {
    amounts.reduce(|total, amount| total + amount)
}

#[derive(Serialize)]
struct PlaceView {
    /// `queue`, `batch` or `live`.
    kind: &'static str,
    batch_id: Option<Shown<BatchId>>,
}

impl From<Place> for PlaceView {
    fn from(place: Place) -> Self {
        let (kind, batch_id) = match place {
            Place::Queue(_) => ("queue", None),
            Place::Line(batch) => ("batch", Some(Shown(batch))),
            Place::Live => ("live", None),
        };
        PlaceView { kind, batch_id }
    }
}

#[derive(Serialize)]
struct AttemptView<'a> {
    lane: Lane,
    batch_id: Option<Shown<BatchId>>,
    /// The provider's id of a background response.
    provider_id: Option<&'a str>,
    state: AttemptState,
    started_at: Shown<Timestamp>,
    ended_at: Option<Shown<Timestamp>>,
    note: &'a str,
    usage: UsageView,
    cost_usd: Option<Shown<Usd>>,
}

impl<'a> From<&'a Attempt> for AttemptView<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        AttemptView {
            lane: attempt.lane,
            batch_id: match attempt.id {
                AttemptId::Batch(batch) => Some(Shown(batch)),
                AttemptId::Live(_) => None,
            },
            provider_id: attempt.remote.as_deref(),
            state: attempt.state,
            started_at: Shown(attempt.started),
            ended_at: attempt.ended.map(Shown),
            note: &attempt.note,
            usage: attempt.usage.into(),
            cost_usd: attempt.bill.map(|bill| Shown(bill.paid)),
        }
    }
}

/// Where a webhook goes, and how that stands.
#[derive(Serialize)]
pub struct WebhookView<'a> {
    target: &'a str,
    /// `waiting` (for the request's ending), `pending`, `delivered` or `dead`.
    status: &'static str,
    event_id: String,
    tries: u32,
    next_try_at: Option<Shown<Timestamp>>,
    delivered_at: Option<Shown<Timestamp>>,
    given_up_at: Option<Shown<Timestamp>>,
    last_error: Option<&'a str>,
}

impl<'a> WebhookView<'a> {
    pub fn new(id: RequestId, target: &'a str, delivery: Option<&'a DeliveryStatus>) -> Self {
        let mut view = WebhookView {
            target,
            status: delivery.map_or("waiting", DeliveryStatus::as_str),
            event_id: id.event(),
            tries: 0,
            next_try_at: None,
            delivered_at: None,
            given_up_at: None,
            last_error: None,
        };
        match delivery {
            None => {}
            Some(DeliveryStatus::Pending { next, tries, last }) => {
                view.tries = *tries;
                view.next_try_at = Some(Shown(*next));
                view.last_error = last.as_deref();
            }
            Some(DeliveryStatus::Delivered { at, tries }) => {
                view.tries = *tries;
                view.delivered_at = Some(Shown(*at));
            }
            Some(DeliveryStatus::Dead { at, tries, last }) => {
                view.tries = *tries;
                view.given_up_at = Some(Shown(*at));
                view.last_error = Some(last);
            }
        }
        view
    }
}

fn webhook<'a>(
    request: &'a Request,
    delivery: Option<&'a DeliveryStatus>,
) -> Option<WebhookView<'a>> {
    let target = request.webhook.as_deref()?;
    Some(WebhookView::new(request.key.id, target, delivery))
}

/// Tokens as the provider counted them.
#[derive(Serialize)]
pub struct UsageView {
    input_tokens: u64,
    cached_tokens: u64,
    cache_write_tokens: u64,
    output_tokens: u64,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        UsageView {
            input_tokens: usage.input,
            cached_tokens: usage.cached,
            cache_write_tokens: usage.cache_write,
            output_tokens: usage.output,
        }
    }
}

#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    own: String,
    /// Polls, and once it has ended gives, the answer.
    result: String,
}

impl Links {
    fn of(request: &Request) -> Links {
        let id = request.key.id;
        Links {
            own: format!("/offpeak/v1/requests/{id}"),
            result: format!("{}/{id}", request.endpoint.path()),
        }
    }
}

/// A day since the Unix epoch: `2026-11-22`, in UTC.
pub fn day(day: u32) -> String {
    let text = Timestamp::from_secs(u64::from(day) * 86_400).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

/// Serialises as its text form.
pub struct Shown<T>(pub T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        endpoint::Endpoint,
        id::{CallDigest, CredentialId, DestinationId, RequestKey, TenantId},
        request::{Bill, Bucket, Cohort, Framing, Guarantee, Outcome, Shape, Source, State},
    };

    const ADMITTED: Timestamp = Timestamp::from_secs(1_763_832_346);

    fn request() -> Request {
        let deadline = ADMITTED + Duration::from_secs(3600);
        Request {
            key: RequestKey {
                tenant: TenantId([7; 16]),
                id: RequestId::new(ADMITTED, 1 << 100),
            },
            endpoint: Endpoint::ChatCompletions,
            model: "gpt-4o-mini".into(),
            credential: CredentialId([8; 16]),
            cohort: Cohort {
                destination: DestinationId([9; 16]),
                on_late: OnLate::Rescue,
                guarantee: Guarantee::Firm,
                bucket: Bucket::of(deadline, Duration::from_secs(5)),
            },
            admitted: ADMITTED,
            deadline,
            on_late: OnLate::Rescue,
            tag: Some("nightly-eval".into()),
            webhook: None,
            idempotency: None,
            digest: CallDigest([1; 16]),
            held: false,
            shape: Shape::Plain,
            line_bytes: 200,
            inputs: 1,
            lane: Lane::Batch,
            reason: "the batch lane meets the deadline".into(),
        }
    }

    fn view(
        request: Request,
        outcome: Option<Outcome>,
        place: Option<Place>,
        state: State,
    ) -> View {
        let reason = outcome
            .as_ref()
            .map_or(&request.reason, |outcome| &outcome.reason)
            .clone();
        View {
            reason,
            request,
            outcome,
            place,
            state,
            attempts: Vec::new(),
            delivery: None,
        }
    }

    fn json(view: &View, now: Timestamp) -> serde_json::Value {
        serde_json::to_value(RequestView::new(view, now)).unwrap()
    }

    #[test]
    fn a_line_of_a_batch() {
        let batch = BatchId::new(ADMITTED, 5);
        let view = view(request(), None, Some(Place::Line(batch)), State::Placed);
        insta::assert_json_snapshot!(RequestView::new(&view, ADMITTED));
    }

    #[test]
    fn an_answer_that_was_rescued_and_paid_twice() {
        let bill = |paid| Bill {
            paid: Usd::from_pico(paid),
            standard: Usd::from_pico(3_000_000_000),
        };
        let mut request = request();
        request.webhook = Some("billing".into());
        let outcome = Outcome {
            state: State::Succeeded,
            status: 200,
            finished: request.deadline + Duration::from_millis(1),
            source: Source::Live(Lane::Standard),
            framing: Framing::Json,
            reason: "rescued".into(),
            provider_request: Some("req_1".into()),
            usage: Usage {
                input: 1000,
                cached: 10,
                cache_write: 20,
                output: u64::MAX,
            },
            bill: Some(bill(3_000_000_000)),
        };
        let late = Attempt {
            id: AttemptId::Batch(BatchId::new(ADMITTED, 5)),
            lane: Lane::Batch,
            remote: None,
            started: ADMITTED,
            state: AttemptState::Late,
            ended: Some(outcome.finished),
            note: "its batch was faster than its cancel".into(),
            usage: outcome.usage,
            bill: Some(bill(1_500_000_000)),
            reserved: None,
            most: None,
            from: None,
        };
        let mut view = view(request, Some(outcome), None, State::Succeeded);
        view.attempts.push(late);
        view.delivery = Some(DeliveryStatus::Pending {
            next: ADMITTED,
            tries: 2,
            last: Some("503".into()),
        });
        insta::assert_json_snapshot!(RequestView::new(&view, ADMITTED));
    }

    #[test]
    fn a_live_request_is_in_the_lane_of_its_open_attempt() {
        let attempt = |number, lane, state| Attempt {
            reserved: None,
            most: None,
            from: None,
            id: AttemptId::Live(number),
            lane,
            remote: None,
            started: ADMITTED,
            state,
            ended: None,
            note: String::new(),
            usage: Usage::default(),
            bill: None,
        };
        let live = |planned, attempts| {
            let request = Request {
                lane: planned,
                ..request()
            };
            let mut view = view(request, None, Some(Place::Live), State::Placed);
            view.attempts = attempts;
            json(&view, ADMITTED)["lane"].clone()
        };
        let lost = attempt(1, Lane::Flex, AttemptState::Unaccounted);
        let open = attempt(2, Lane::Background2h, AttemptState::Open);
        assert_eq!(live(Lane::Batch, vec![]), "standard");
        assert_eq!(live(Lane::Flex, vec![lost.clone()]), "flex");
        assert_eq!(live(Lane::Flex, vec![lost, open]), "background-2h");
    }

    #[test]
    fn an_open_request_is_late_from_its_deadline_on() {
        let cohort = Place::Queue(request().cohort);
        let view = view(request(), None, Some(cohort), State::Queued);
        let deadline = view.request.deadline;
        assert_eq!(json(&view, deadline)["late"], false);
        assert_eq!(
            json(&view, deadline + Duration::from_millis(1))["late"],
            true
        );
    }
}
