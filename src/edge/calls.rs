//! Calls with a deadline, and the few others that [`super::route`] cannot tell
//! from them: sorted ([`way`]), then passed through, answered from what is known
//! of one of our ids, or read, checked ([`prepare`]) and taken in ([`mod@defer`]).

mod defer;
mod prepare;
mod tier;
mod way;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, request::Parts};

use self::{defer::defer, way::Way};
use super::{Edge, errors, passthrough::Passthrough, poll, read, route::DEADLINE_ALIAS, stub};

/// Every path that is not Offpeak's own.
pub async fn handle(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let most = edge.body_bounds();
    let way = match Way::of(&edge, &mut parts) {
        Ok(way) => way,
        Err(error) => {
            read::discard(body, most).await;
            let response = error.into_response();
            errors::count(&edge, &response);
            return response;
        }
    };
    match way {
        Way::Through(reason) => Box::pin(through(&edge, parts, body, reason)).await,
        Way::Ours(target) => {
            let (headers, uri) = (parts.headers, parts.uri);
            read::discard(body, most).await;
            let answered = Box::pin(poll::answer(edge, target, headers, uri)).await;
            answered.unwrap_or_else(IntoResponse::into_response)
        }
        Way::Defer(endpoint, deadline) => {
            Box::pin(defer(edge, parts, body, endpoint, deadline)).await
        }
    }
}

/// Passes a call on as if it had no deadline.
async fn through(
    edge: &Edge,
    mut parts: Parts,
    body: Body,
    reason: Option<&'static str>,
) -> Response {
    strip_ours(&mut parts.headers);
    // The server's own, for its thread's connections.
    let own = parts.extensions.remove::<Arc<Passthrough>>();
    let passthrough = own.as_deref().unwrap_or(&edge.passthrough);
    let response = passthrough.forward(Request::from_parts(parts, body)).await;
    let mut response = response.map(Body::new);
    if let Some(reason) = reason {
        response
            .headers_mut()
            .insert("offpeak-reason", stub::safe(reason));
    }
    response
}

fn strip_ours(headers: &mut HeaderMap) {
    let ours: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("offpeak-") || **name == DEADLINE_ALIAS)
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_does_not_go_upstream() {
        let mut headers = HeaderMap::new();
        for name in [
            "offpeak-deadline",
            "x-deadline",
            "offpeak-tag",
            "prefer",
            "authorization",
        ] {
            headers.insert(name, http::HeaderValue::from_static("x"));
        }
        strip_ours(&mut headers);
        let mut left: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "prefer"]);
    }
}
