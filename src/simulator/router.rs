//! The paths, and the simulator's own ones under `/sim`.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    middleware,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Sim, batches, create, error::ApiError, faults::Fault, files, front::front, live, stored,
};

pub(super) fn router(sim: Sim) -> Router {
    let live = || post(live::answer);
    let provider = Router::new()
        .route("/v1/files", post(files::upload).get(files::list))
        .route("/v1/files/{id}", get(files::get).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", post(create::create).get(batches::list))
        .route("/v1/batches/{id}", get(batches::get))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/models", get(list_models))
        .route("/v1/models/{*id}", get(get_model))
        .route("/v1/chat/completions", live())
        .route(
            "/v1/chat/completions/{id}",
            get(stored::get_chat).delete(stored::delete_chat),
        )
        .route("/v1/responses", live())
        .route(
            "/v1/responses/{id}",
            get(stored::get_response).delete(stored::delete_response),
        )
        .route("/v1/responses/{id}/cancel", post(stored::cancel_response))
        .route("/v1/embeddings", live())
        .route("/v1/completions", live())
        .route("/v1/moderations", live())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(sim.clone(), front))
        .layer(DefaultBodyLimit::disable());
    let own = Router::new()
        .route("/sim/bill", get(bill))
        .route("/sim/log", get(log))
        .route("/sim/faults", post(add_faults).get(list_faults))
        .route("/sim/faults", delete(clear_faults))
        .route("/sim/reset", post(reset));
    own.merge(provider).with_state(sim)
}

fn model_object(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "system"})
}

async fn list_models(State(sim): State<Sim>) -> Json<Value> {
    let models = sim.settings.models.keys();
    let data: Vec<Value> = models.map(|name| model_object(name)).collect();
    Json(json!({"object": "list", "data": data}))
}

async fn get_model(
    State(sim): State<Sim>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    match sim.settings.models.contains_key(&name) {
        true => Ok(Json(model_object(&name))),
        false => Err(ApiError::model_not_found(&name).about("model")),
    }
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let message = format!("Invalid URL ({method} {})", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, Some("unknown_url"), message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("Not allowed to {method} on {}", uri.path());
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Some("method_not_supported"),
        message,
    )
}

async fn bill(State(sim): State<Sim>) -> Response {
    Json(sim.bill()).into_response()
}

async fn log(State(sim): State<Sim>) -> Response {
    Json(sim.log()).into_response()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<Value>),
    One(Value),
}

async fn add_faults(
    State(sim): State<Sim>,
    Json(given): Json<OneOrMany>,
) -> Result<Json<Value>, ApiError> {
    let given = match given {
        OneOrMany::Many(faults) => faults,
        OneOrMany::One(fault) => vec![fault],
    };
    let faults: Result<Vec<Fault>, _> = given.into_iter().map(serde_json::from_value).collect();
    let faults =
        faults.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, None, error.to_string()))?;
    let armed = faults.len();
    faults.into_iter().for_each(|fault| sim.inject(fault));
    Ok(Json(json!({"armed": armed})))
}

async fn list_faults(State(sim): State<Sim>) -> Response {
    Json(sim.faults.lock().armed()).into_response()
}

async fn clear_faults(State(sim): State<Sim>) -> StatusCode {
    sim.clear_faults();
    StatusCode::NO_CONTENT
}

async fn reset(State(sim): State<Sim>) -> StatusCode {
    sim.reset();
    StatusCode::NO_CONTENT
}
