//! What may be asked of an `op_…` id under the provider's own paths. Such an id
//! never goes upstream: what is not served here is 404.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::json;
use tracing::{Span, field};

use super::{
    Edge, ask, auth,
    errors::{self, ApiError},
    hold::{Ended, Ending, waited},
    outcome::Answer,
    prefer::Preference,
    stub::{self, Facts},
    waiting::Wait,
};
use crate::{
    engine::{Cancelled, Erased},
    model::{
        endpoint::Endpoint,
        id::{RequestId, RequestKey},
        request::Request,
    },
    ports::Head,
};

/// An `op_…` id in a path, and what is asked of it.
#[derive(Debug, PartialEq)]
pub struct Target {
    endpoint: Endpoint,
    id: RequestId,
    act: Act,
}

#[derive(Debug, PartialEq)]
enum Act {
    Get,
    Cancel,
    Delete,
}

/// Reads `/v1/{endpoint}/op_…[/cancel]`. `None` for a path without such an id, and
/// where a name of the provider's only begins like one, as a model's may.
///
/// # Errors
/// 404 for an id that is none, an endpoint that has none, and for sub-resources
/// and methods that are not served.
pub fn target(method: &Method, path: &str) -> Option<Result<Target, ApiError>> {
    let at = path.find("/op_")?;
    let (before, rest) = (&path[..at], &path[at + 1..]);
    let (id, below) = match rest.split_once('/') {
        Some((id, below)) => (id, Some(below)),
        None => (rest, None),
    };
    let (endpoint, read) = (Endpoint::from_path(before), id.parse().ok());
    if endpoint.is_none() && read.is_none() {
        return None;
    }
    let act = match (method.as_str(), below) {
        ("GET", None) => Act::Get,
        ("DELETE", None) => Act::Delete,
        ("POST", Some("cancel")) => Act::Cancel,
        _ => {
            let message = format!("{method} {path} is not served for Offpeak's own ids.");
            return Some(Err(ApiError::not_found(message)));
        }
    };
    Some(match endpoint.zip(read) {
        Some((endpoint, id)) => Ok(Target { endpoint, id, act }),
        None => Err(unknown(id)),
    })
}

/// Answers what is asked of an id.
pub async fn answer(
    edge: Arc<Edge>,
    target: Target,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let caller = auth::caller(&edge, &headers, &uri)?;
    let key = RequestKey {
        tenant: caller.tenant,
        id: target.id,
    };
    drop(caller);
    Span::current().record("id", field::display(target.id));
    match target.act {
        Act::Get => get(edge, target.endpoint, key, headers, uri).await,
        Act::Cancel => cancel(edge, target.endpoint, key).await,
        Act::Delete => delete(edge, target.endpoint, key).await,
    }
}

/// 202 and the stub while it is open, then the provider's status and body. With
/// `Prefer: wait=N` the stub is held back for as long.
async fn get(
    edge: Arc<Edge>,
    endpoint: Endpoint,
    key: RequestKey,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let streams = |pair: &str| pair.split_once('=') == Some(("stream", "true"));
    if uri
        .query()
        .is_some_and(|query| query.split('&').any(streams))
    {
        let message = "The answer to a deferred request cannot be streamed when it is fetched. \
                       Accepted: the same call without `stream=true`.";
        return Err(ApiError::bad("stream_unsupported", message).param("stream"));
    }
    let prefer = ask::preference(&headers, edge.settings.hold.max_wait);
    drop((headers, uri));
    let waiter = edge.engine.waiter(key);
    let head = head(&edge, endpoint, key).await?;
    if head.outcome.is_some() {
        return ended(&edge, key).await;
    }
    let request = Box::new(head.request);
    let Some(wait) = prefer.wait else {
        return pending(&edge, key, prefer).await;
    };
    let Some(_waits) = edge.waiting.enter(key.tenant, Wait::Poll) else {
        return pending(&edge, key, Preference::default()).await;
    };
    let mut ending = Ending::new(edge.engine.clone(), key, waiter, false);
    match waited(&edge, prefer, wait, ending.ended()).await {
        Some(ended) => told(&edge, &request, ended?).await,
        None => pending(&edge, key, prefer).await,
    }
}

async fn pending(edge: &Edge, key: RequestKey, prefer: Preference) -> Result<Response, ApiError> {
    let Some(view) = edge.engine.view(key).await? else {
        return Err(unknown(&key.id.to_string()));
    };
    // It may have ended since.
    if view.outcome.is_some() {
        return ended(edge, key).await;
    }
    Ok(stub::accepted(edge, &Facts::open(&view), prefer))
}

/// 410 `request_cancelled`, of a response 200 with its status; the answer of a
/// request that had ended before.
async fn cancel(
    edge: Arc<Edge>,
    endpoint: Endpoint,
    key: RequestKey,
) -> Result<Response, ApiError> {
    head(&edge, endpoint, key).await?;
    if let Cancelled::Unknown = edge.engine.cancel(key).await? {
        return Err(unknown(&key.id.to_string()));
    }
    pending(&edge, key, Default::default()).await
}

/// What the SDKs expect of a deletion.
async fn delete(
    edge: Arc<Edge>,
    endpoint: Endpoint,
    key: RequestKey,
) -> Result<Response, ApiError> {
    head(&edge, endpoint, key).await?;
    if edge.engine.erase(key).await? == Erased::Unknown {
        return Err(unknown(&key.id.to_string()));
    }
    let object = match endpoint {
        Endpoint::ChatCompletions => "chat.completion.deleted",
        endpoint => endpoint.object(),
    };
    let body = json!({"id": key.id, "object": object, "deleted": true}).to_string();
    Ok(errors::json(StatusCode::OK, body))
}

/// The answer of a request that has ended.
async fn ended(edge: &Edge, key: RequestKey) -> Result<Response, ApiError> {
    let unknown = || unknown(&key.id.to_string());
    let head = edge.engine.head(key).await?.ok_or_else(unknown)?;
    match Ending::look(&edge.engine, key).await? {
        Some(ended @ Ended::Done { .. }) => told(edge, &head.request, ended).await,
        Some(Ended::Gone) | None => Err(unknown()),
    }
}

async fn told(edge: &Edge, request: &Request, ended: Ended) -> Result<Response, ApiError> {
    match ended {
        Ended::Gone => Err(Answer::gone()),
        Ended::Done { outcome, answer } => {
            let answer = Answer::json(request, &outcome, *answer, &edge.memory).await?;
            Ok(answer.into_response())
        }
    }
}

async fn head(edge: &Edge, endpoint: Endpoint, key: RequestKey) -> Result<Head, ApiError> {
    match edge.engine.head(key).await? {
        Some(head) if head.request.endpoint == endpoint => Ok(head),
        _ => Err(unknown(&key.id.to_string())),
    }
}

/// Another tenant's id is as unknown as one that never was.
fn unknown(id: &str) -> ApiError {
    let shown: String = id.chars().take(64).collect();
    ApiError::not_found(format!(
        "There is no request `{shown}` of this key at this endpoint."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_paths_name_one_of_ours() {
        let id = RequestId::from_bytes([7; 16]);
        let read = |method: Method, path: &str| {
            let path = path.replace("OP", &id.to_string());
            target(&method, &path).map(|target| target.map(|target| (target.endpoint, target.act)))
        };
        for (method, path, expected) in [
            (
                Method::GET,
                "/v1/chat/completions/OP",
                Some((Endpoint::ChatCompletions, Act::Get)),
            ),
            (
                Method::POST,
                "/v1/responses/OP/cancel",
                Some((Endpoint::Responses, Act::Cancel)),
            ),
            (
                Method::DELETE,
                "/v1/embeddings/OP",
                Some((Endpoint::Embeddings, Act::Delete)),
            ),
            (Method::POST, "/v1/chat/completions/OP", None),
            (Method::GET, "/v1/chat/completions/OP/messages", None),
            (Method::GET, "/v1/responses/OP/input_items", None),
            (Method::GET, "/v1/files/OP", None),
            (Method::GET, "/v1/responses/op_1", None),
            (Method::GET, "/v1/responses/OP/op_1", None),
        ] {
            assert_eq!(read(method, path).unwrap().ok(), expected, "{path}");
        }
        for path in [
            "/v1/chat/completions/chatcmpl-op_1",
            "/v1/models/op_1",
            "/v1/files/file-1/op_1/content",
        ] {
            assert!(read(Method::GET, path).is_none(), "{path}");
        }
    }
}
