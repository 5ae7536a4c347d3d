//! Background responses: queued now, answered when somebody asks after they are
//! done.

use serde_json::{Value, json};

use super::{
    Sim,
    answers::Answer,
    bill::Lane,
    draw::Draw,
    error::ApiError,
    faults::{Kind, Operation},
    front::Caller,
    order::Order,
    shapes::{self, Frame},
    stored::StoredResponse,
};

/// Queues a response and tells it as it stands. One with a completion window meets
/// it, unless a fault or `slow` says otherwise. With `failure` it ends as failed,
/// and is not billed.
pub(super) fn queue(
    sim: &Sim,
    caller: &Caller,
    answer: &Answer,
    frame: &Frame,
    order: Order,
    failure: Option<ApiError>,
    draw: &mut Draw,
) -> Value {
    let latency = &sim.settings.latency;
    let drawn = match order.lane {
        Lane::Background8h => {
            draw.lognormal(latency.background_8h_median, latency.background_sigma)
        }
        Lane::Background2h => {
            draw.lognormal(latency.background_2h_median, latency.background_sigma)
        }
        _ => draw.lognormal(latency.background_median, latency.live_sigma),
    };
    let took = match order.window {
        None => drawn,
        Some(window) => {
            let overrun = |kind: &Kind| matches!(kind, Kind::Overrun { .. });
            match sim.faults.lock().strike_lane(Operation::Responses, overrun) {
                Some(Kind::Overrun { by }) => window + by,
                _ => drawn.min(window),
            }
        }
    } + answer.directive.slow;
    let charge = failure.is_none().then(|| {
        (
            answer.model.clone(),
            order.lane,
            answer.usage,
            answer.fingerprint,
        )
    });
    let done = match failure {
        None => shapes::whole(answer, frame),
        Some(error) => {
            let mut failed = shapes::response(answer, frame, "failed");
            failed["error"] = json!({"code": "server_error", "message": error.message});
            failed
        }
    };
    let (mut world, now) = sim.world();
    let stored = StoredResponse {
        done,
        waiting: shapes::response(answer, frame, "queued"),
        starts_at: now + took / 4,
        ends_at: now + took,
        charge,
        cancelled: false,
    };
    let object = stored.object(now);
    world.responses.add(&caller.key, &frame.id("resp_"), stored);
    object
}
