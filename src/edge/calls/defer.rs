//! A call with a deadline: read, taken in, and answered the way it asked for.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header, request::Parts};
use tracing::{Span, field};

use super::{
    prepare::{Reply, prepare},
    through,
};
use crate::{
    edge::{
        Edge, ask, auth,
        errors::{self, ApiError},
        hold::{self, Held},
        read, stream,
        waiting::{Wait, Waits},
    },
    engine::{AdmitError, Admitted, Refused},
    model::{endpoint::Endpoint, request::Shape, time::Timestamp},
    ports::StoreError,
};

/// Takes the call in and answers it. Whatever is over before the caller waits is
/// boxed, here and in [`hold`], so that a held call does not carry its room along.
pub async fn defer(
    edge: Arc<Edge>,
    parts: Parts,
    body: Body,
    endpoint: Endpoint,
    deadline: Timestamp,
) -> Response {
    let admission = Box::pin(admit(&edge, parts, body, endpoint, deadline)).await;
    let (admitted, reply, waits) = match admission {
        Ok(admitted) => admitted,
        Err(response) => {
            errors::count(&edge, &response);
            return *response;
        }
    };
    let id = admitted.request.key.id;
    Span::current().record("id", field::display(id));
    let joined = admitted.joined;
    let held = Held::new(&edge, admitted, waits);
    match reply.shape {
        _ if !reply.held && joined => Box::pin(held.accepted(&edge, reply.prefer)).await,
        _ if !reply.held => held.pending(&edge, reply.prefer, None),
        Shape::Stream { include_usage } => {
            stream::hold(edge, held, reply.prefer, include_usage).await
        }
        Shape::Plain | Shape::Background => hold::hold(edge, held, reply.prefer).await,
    }
}

/// The error is a whole response: a refusal, or the call passed through.
async fn admit(
    edge: &Arc<Edge>,
    mut parts: Parts,
    body: Body,
    endpoint: Endpoint,
    deadline: Timestamp,
) -> Result<(Admitted, Reply, Option<Waits>), Box<Response>> {
    let refuse = |error: ApiError| Box::new(error.into_response());
    let most = edge.body_bounds();
    let head = ask::plain_body(&parts.headers)
        .and_then(|()| auth::deferring(edge, &parts.headers, &parts.uri));
    let caller = match head {
        Ok(caller) => caller,
        Err(error) => {
            read::discard(body, most).await;
            return Err(refuse(error));
        }
    };
    let portion = edge.memory.begin(caller.0.tenant);
    // Counted until the call is durable.
    let (body, portion) = read::read(body, most, portion).await.map_err(refuse)?;
    let (call, reply) = prepare(edge, caller, &parts, &body, endpoint, deadline)
        .await
        .map_err(refuse)?;
    let waits = match reply.held {
        true => {
            let waits = edge.waiting.enter(call.caller.tenant, Wait::Answer);
            Some(waits.ok_or_else(|| refuse(ApiError::too_many_waiting()))?)
        }
        false => None,
    };
    // The provider knows none of our ids: passed on is what it would have been sent.
    let body = call.body.clone();
    let key = call.caller.key.as_ref();
    let leaves = call.webhook.is_some()
        || !reply.held
        || reply.prefer.respond_async
        || key.is_some_and(|key| !key.issued.passthrough);
    match edge.engine.admit(call).await {
        Ok(admitted) => Ok((admitted, reply, waits)),
        // For who does not wait on the line: a call that is passed on could not answer
        // it the way it asked for.
        Err(AdmitError::Refused(Refused::PassThrough(full))) if leaves => {
            Err(refuse(Refused::QueueFull(full).into()))
        }
        Err(AdmitError::Refused(Refused::PassThrough(full))) => {
            if parts.headers.contains_key(header::CONTENT_LENGTH) {
                let length = HeaderValue::from(body.len());
                parts.headers.insert(header::CONTENT_LENGTH, length);
            }
            let body = Body::from(portion.of(body));
            let reason = match full.of_tenant {
                true => "tenant-queue-full",
                false => "queue-full",
            };
            Err(Box::new(through(edge, parts, body, Some(reason)).await))
        }
        Err(AdmitError::Store(StoreError::Closed)) if edge.stopping.is_cancelled() => {
            Err(refuse(ApiError::shutting_down()))
        }
        Err(error) => Err(Box::new(errors::not_admitted(error))),
    }
}
