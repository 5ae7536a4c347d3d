//! What a live call asks for besides an answer: tier, stream, background.

use std::time::Duration;

use serde_json::Value;

use super::{
    Simulator,
    answers::{Answer, Endpoint},
    bill::Lane,
    error::ApiError,
    front::Caller,
};

/// How the call wants to be run.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub lane: Lane,
    pub tier: &'static str,
    pub stream: bool,
    pub background: bool,
    /// The completion window of a background call.
    pub window: Option<Duration>,
}

impl Order {
    pub fn read(sim: &Simulator, caller: &Caller, answer: &Answer) -> Result<Self, ApiError> {
        let body = &answer.body;
        let model = &sim.settings.models[&answer.model];
        let (mut lane, tier) = match body.text("service_tier").as_deref() {
            None | Some("auto" | "default") => (Lane::Standard, "default"),
            Some("priority") if model.priority.is_some() => (Lane::Priority, "priority"),
            Some("flex") if model.flex.is_some() => (Lane::Flex, "flex"),
            Some(tier) => {
                let message = format!("Invalid service_tier argument: '{tier}' for this model.");
                return Err(ApiError::invalid(
                    "service_tier",
                    Some("invalid_value"),
                    message,
                ));
            }
        };
        let takes_background = answer.endpoint == Endpoint::Responses;
        let background = takes_background && body.is_true("background");
        let options: Value = body.get("background_options").unwrap_or_default();
        let window = options["completion_window"].as_str();
        let stream = body.is_true("stream")
            && !matches!(
                answer.endpoint,
                Endpoint::Embeddings | Endpoint::Moderations
            );
        let refuse = |param: &str, message: &str| {
            Err(ApiError::invalid(param, Some("invalid_value"), message))
        };
        if background {
            if body.get("store") == Some(false) {
                return refuse("background", "Background mode requires store=true.");
            }
            if window.is_some() && stream {
                return refuse("stream", "A completion window cannot be streamed.");
            }
            lane = match (window, lane) {
                (None, Lane::Standard) => Lane::Background,
                (None, lane) => lane,
                (Some("8h"), Lane::Standard) => Lane::Background8h,
                (Some("2h"), Lane::Standard) => Lane::Background2h,
                _ => {
                    let param = "background_options.completion_window";
                    return refuse(param, "Takes '8h' or '2h' on the standard tier.");
                }
            };
        }
        if takes_background
            && let Some(previous) = body.text("previous_response_id")
            && !sim.world().0.responses.contains(&caller.key, &previous)
        {
            let message = format!("Previous response with id '{previous}' not found.");
            let code = Some("previous_response_not_found");
            return Err(ApiError::invalid("previous_response_id", code, message));
        }
        let hours = match lane {
            Lane::Background8h => Some(8),
            Lane::Background2h => Some(2),
            _ => None,
        };
        Ok(Order {
            lane,
            tier,
            stream,
            background,
            window: hours.map(|hours| Duration::from_secs(hours * 3600)),
        })
    }
}
