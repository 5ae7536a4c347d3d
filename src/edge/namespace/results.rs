//! `GET /offpeak/v1/results`: a tenant's finished requests in commit order, one
//! JSON line each, for callers with a million of them.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, timeout_at};

use super::{
    Tenant,
    cursor::FeedCursor,
    query::{FeedQuery, bad_cursor},
    view::Shown,
};
use crate::{
    edge::{
        Edge, auth,
        errors::{self, ApiError},
        kept::{KeptAnswer, Unread},
        memory::SMALL,
        prefer::Preference,
        replay::Assembler,
        waiting::{Wait, Waits},
    },
    engine::{Engine, FeedError},
    model::{
        body::walk::compact,
        endpoint::Endpoint,
        id::{RequestId, TenantId},
        money::Usd,
        request::{Framing, Outcome, Request},
        time::Timestamp,
    },
    ports::{FeedEntry, FeedPage, StoreError},
};

/// `after` of the next call.
const CURSOR: HeaderName = HeaderName::from_static("offpeak-cursor");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Answers are read one at a time while the caller takes them, so an answer of
/// this path holds one result in memory, however many it carries.
pub async fn feed(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = FeedQuery::parse(query.as_deref())?;
    let lines = headers.get_all("prefer").iter();
    let preferred = Preference::parse(lines.map(HeaderValue::as_bytes)).wait;
    let wait = query.wait.or(preferred).unwrap_or_default();
    let wait = wait.min(edge.settings.hold.max_wait);

    let mark = |cursor: &[u8]| edge.engine.cursor_mark(tenant, cursor);
    let after = match query.after.as_deref() {
        None => None,
        Some(FeedQuery::END) => Some(FeedCursor(edge.engine.feed_end(tenant).await?)),
        Some(text) => Some(FeedCursor::decode(text, mark).ok_or_else(bad_cursor)?),
    };
    let asked = (after, query.limit());
    let whose = || Ok(auth::caller(&edge, &headers, &uri)?.tenant);
    let mut page = read(&edge.engine, tenant, asked).await?;
    let mut soon = false;
    if page.entries.is_empty() && !wait.is_zero() {
        match may_wait(&edge, tenant).await? {
            Some(_waits) => page = next_page(&edge, whose, asked, wait).await?,
            None => soon = true,
        }
    }
    let before = after.map_or(0, |cursor| cursor.0);
    let last = page.entries.last().map_or(before, |entry| entry.sequence);
    let mut lines = Box::pin(lines_of(edge.clone(), page.entries));
    // What fails before anything is sent can still be said.
    let first = lines.next().await.transpose()?;
    let body = Body::from_stream(stream::iter(first.map(Ok)).chain(lines));
    let fixed = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = (fixed, [(CURSOR, FeedCursor(last).encode(mark))], body).into_response();
    if soon {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, errors::seconds(SOON));
        return Ok(response);
    }
    if query.wait.is_none() && preferred.is_some() {
        let applied = format!("wait={}", wait.as_secs());
        if let Ok(applied) = HeaderValue::from_str(&applied) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
    }
    Ok(response)
}

/// When who may not wait is to ask again.
const SOON: Duration = Duration::from_secs(5);

/// A place among the tenant's who wait. Of the provider's keys anybody can think one up:
/// a key that has never made a call waits for nothing.
async fn may_wait(edge: &Edge, tenant: TenantId) -> Result<Option<Waits>, StoreError> {
    let engine = &edge.engine;
    let known = engine.issues_keys() || engine.open_requests(tenant) > 0;
    if !known && !super::has_called(engine, tenant).await? {
        return Ok(None);
    }
    Ok(edge.waiting.enter(tenant, Wait::Feed))
}

/// What has ended behind the cursor; where that is nothing, what ends next, for
/// as long as the caller waits. `whose` is asked again then: meanwhile the tenant may
/// have moved to another key, and whoever has the old one is nobody to it.
async fn next_page(
    edge: &Edge,
    whose: impl Fn() -> Result<TenantId, ApiError>,
    asked: (Option<FeedCursor>, usize),
    wait: Duration,
) -> Result<FeedPage, ApiError> {
    let until = Instant::now() + wait;
    let tenant = whose()?;
    // Before the first read, or an ending in between would wake nobody.
    let mut waiter = edge.engine.feed_waiter(tenant);
    loop {
        let page = read(&edge.engine, tenant, asked).await?;
        if whose()? != tenant {
            let nothing = Vec::new();
            return Ok(FeedPage {
                entries: nothing,
                ..page
            });
        }
        if !page.entries.is_empty() {
            return Ok(page);
        }
        tokio::select! {
            woken = timeout_at(until, waiter.woken()) => if woken.is_err() {
                return Ok(page);
            },
            () = edge.stopping.cancelled() => return Ok(page),
        }
    }
}

async fn read(
    engine: &Engine,
    tenant: TenantId,
    (cursor, limit): (Option<FeedCursor>, usize),
) -> Result<FeedPage, FeedError> {
    let after = cursor.map_or(0, |cursor| cursor.0);
    let page = engine.feed(tenant, after, limit).await?;
    // Without a cursor the feed starts at what is kept; a cursor from before the
    // first ending has missed what was removed since.
    if cursor.is_some() && after < page.floor {
        return Err(FeedError::Expired { floor: page.floor });
    }
    Ok(page)
}

/// A failure cuts the connection: the cursor of the last whole line goes on.
fn lines_of(
    edge: Arc<Edge>,
    entries: Vec<FeedEntry>,
) -> impl Stream<Item = Result<Bytes, Unread>> + Send + 'static {
    stream::iter(entries)
        .then(move |entry| {
            let edge = edge.clone();
            async move { line_of(&edge, entry).await.transpose() }
        })
        .filter_map(std::future::ready)
}

/// Nothing where the request was erased since.
async fn line_of(edge: &Edge, entry: FeedEntry) -> Result<Option<Bytes>, Unread> {
    let (id, engine) = (entry.key.id, &edge.engine);
    let Some(outline) = engine.outline(entry.key, SMALL).await? else {
        return Ok(None);
    };
    let Some((outcome, kept)) = outline.ending else {
        tracing::error!(%id, "in the feed, and open");
        let open = io::Error::other("a result that has not ended");
        return Err(StoreError::Io(open).into());
    };
    let kept = KeptAnswer::new(engine.clone(), entry.key, kept);
    let (answer, portion) = match kept.whole(&edge.memory).await {
        Ok(whole) => whole,
        Err(Unread::Erased) => return Ok(None),
        Err(error) => {
            tracing::warn!(%id, %error, "a result cannot be told");
            return Err(error);
        }
    };
    let mark = |cursor: &[u8]| engine.cursor_mark(entry.key.tenant, cursor);
    let cursor = FeedCursor(entry.sequence).encode(mark);
    let line = line(cursor, &outline.request, &outcome, &answer).map_err(StoreError::Io)?;
    Ok(Some(match portion {
        Some(portion) => portion.of(line),
        None => line,
    }))
}

#[derive(Serialize)]
struct Line<'a> {
    cursor: String,
    id: Shown<RequestId>,
    endpoint: &'static str,
    tag: Option<&'a str>,
    status_code: u16,
    status: &'static str,
    finished_at: Shown<Timestamp>,
    provider_request_id: Option<&'a str>,
    cost_usd: Option<Shown<Usd>>,
    saved_usd: Option<Shown<Usd>>,
    response: &'a RawValue,
}

fn line(cursor: String, request: &Request, outcome: &Outcome, answer: &[u8]) -> io::Result<Bytes> {
    let response = response(request.endpoint, outcome.framing, answer)?;
    let mut line = serde_json::to_vec(&Line {
        cursor,
        id: Shown(request.key.id),
        endpoint: request.endpoint.path(),
        tag: request.tag.as_deref(),
        status_code: outcome.status,
        status: outcome.state.as_str(),
        finished_at: Shown(outcome.finished),
        provider_request_id: outcome.provider_request.as_deref(),
        cost_usd: outcome.bill.map(|bill| Shown(bill.paid)),
        saved_usd: outcome.bill.map(|bill| Shown(bill.standard - bill.paid)),
        response: &response,
    })?;
    line.push(b'\n');
    Ok(line.into())
}

/// The answer as one JSON value on one line; a stream as the answer that it
/// tells. What is no JSON, a proxy's error page say, is a string.
fn response(endpoint: Endpoint, framing: Framing, answer: &[u8]) -> io::Result<Box<RawValue>> {
    let json = match framing {
        Framing::Json => on_one_line(answer)?,
        Framing::EventStream => {
            let mut assembler = Assembler::new(endpoint);
            assembler.push(answer);
            match assembler.finish() {
                Ok(whole) => on_one_line(&whole)?,
                Err(_) => None,
            }
        }
    };
    match json {
        Some(json) => Ok(json),
        None if answer.is_empty() => Ok(RawValue::NULL.to_owned()),
        None => Ok(to_raw_value(&String::from_utf8_lossy(answer))?),
    }
}

/// Byte for byte, but for the line breaks between tokens that live answers have:
/// with those go the other blanks. Nothing where it is no JSON.
fn on_one_line(answer: &[u8]) -> io::Result<Option<Box<RawValue>>> {
    let Ok(raw) = serde_json::from_slice::<&RawValue>(answer) else {
        return Ok(None);
    };
    if !raw.get().contains(['\n', '\r']) {
        return Ok(Some(raw.to_owned()));
    }
    let mut line = Vec::with_capacity(answer.len());
    compact(raw.get(), &mut line);
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    Ok(Some(RawValue::from_string(line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(answer: &str) -> String {
        let response = response(Endpoint::ChatCompletions, Framing::Json, answer.as_bytes());
        response.unwrap().get().to_owned()
    }

    #[test]
    fn an_answer_is_byte_for_byte() {
        for answer in [
            r#"{"b": 1e400, "a":0.100000000000000000000000000000, "a":2}"#,
            r#"{"text":"\u0000 \ud800 \n"}"#,
            "[]",
            "\"text\"",
        ] {
            assert_eq!(json(answer), answer);
        }
    }

    #[test]
    fn a_pretty_answer_stays_on_one_line() {
        assert_eq!(
            json("{\n  \"a b\": \"c \\n d\",\r\n\t\"n\": 1.50\n}\n"),
            r#"{"a b":"c \n d","n":1.50}"#
        );
    }

    #[test]
    fn what_is_no_json_is_a_string() {
        assert_eq!(json("<h1>Bad\nGateway</h1>"), r#""<h1>Bad\nGateway</h1>""#);
        assert_eq!(json(""), "null");
        assert_eq!(json("1 2"), "\"1 2\"");
    }

    #[test]
    fn a_stream_is_the_answer_it_tells() {
        let stream = b"data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\
            \"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\
            \"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let whole = response(Endpoint::ChatCompletions, Framing::EventStream, stream).unwrap();
        let whole: serde_json::Value = serde_json::from_str(whole.get()).unwrap();
        assert_eq!(whole["object"], "chat.completion");
        assert_eq!(whole["choices"][0]["message"]["content"], "hi");

        let cut = response(Endpoint::ChatCompletions, Framing::EventStream, b"data: {");
        assert_eq!(cut.unwrap().get(), "\"data: {\"");
    }
}
