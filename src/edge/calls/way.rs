//! Where a call goes: what its method, path, query and headers say.

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, request::Parts, uri::PathAndQuery};

use crate::{
    edge::{
        Edge,
        errors::ApiError,
        poll,
        prefer::Preference,
        route::{self, DEADLINE, DEADLINE_ALIAS},
    },
    model::{deadline, endpoint::Endpoint, id::RequestId, time::Timestamp},
};

/// Where a call goes.
pub enum Way {
    /// Upstream; with a deadline, and why it does not count.
    Through(Option<&'static str>),
    /// It asks about one of our ids.
    Ours(poll::Target),
    Defer(Endpoint, Timestamp),
}

impl Way {
    /// Takes `/within/…` off the path.
    ///
    /// # Errors
    /// A deadline that cannot be read or met, an id of ours that stands where it
    /// cannot, a call that cannot have a deadline where deadlines are strict, or
    /// that is to be answered elsewhere or later.
    pub fn of(edge: &Edge, parts: &mut Parts) -> Result<Way, ApiError> {
        let within = take_prefix(&mut parts.uri)?;
        if let Some(target) = poll::target(&parts.method, parts.uri.path()) {
            return target.map(Way::Ours);
        }
        if parts.uri.query().is_some_and(names_ours) {
            return Err(ApiError::not_found(
                "Offpeak's own ids (`op_…`) are unknown to the provider, and cannot stand in a query.",
            ));
        }
        let settings = &edge.settings.deadline;
        let lines = [DEADLINE, DEADLINE_ALIAS]
            .into_iter()
            .flat_map(|name| parts.headers.get_all(name))
            .map(|value| value.as_bytes());
        let now = edge.engine.now();
        let Some(deadline) = deadline::resolve(lines, within.as_deref(), now, settings.max)? else {
            return Ok(Way::Through(None));
        };
        let listed = &edge.engine.settings().admission.endpoints;
        match route::deferrable(&parts.method, &parts.uri, listed) {
            Some(endpoint) => Ok(Way::Defer(endpoint, deadline)),
            None if settings.strict => {
                let why = "cannot have a deadline: no batch takes it";
                Err(not_deferrable(parts, why, listed).param("Offpeak-Deadline"))
            }
            None if leaves(parts) => {
                let why = "cannot be answered later (`Prefer: respond-async`): it would be sold \
                           at once, at full price";
                Err(not_deferrable(parts, why, listed).param("Prefer"))
            }
            None => Ok(Way::Through(Some("not-deferrable"))),
        }
    }
}

/// A call of an endpoint that Offpeak knows, whose caller does not wait for the answer.
/// What other calls say of that is of no account: SDKs put default headers on all.
fn leaves(parts: &Parts) -> bool {
    let lines = parts.headers.get_all("prefer").iter();
    parts.method == Method::POST
        && Endpoint::from_path(parts.uri.path()).is_some()
        && Preference::parse(lines.map(HeaderValue::as_bytes)).respond_async
}

fn not_deferrable(parts: &Parts, why: &str, listed: &[String]) -> ApiError {
    let (method, path) = (&parts.method, parts.uri.path());
    let listed = listed.join(", ");
    let accepted = format!("POST to {listed}, or the call without a deadline");
    let message = format!("{method} {path} {why}. Accepted: {accepted}.");
    ApiError::bad("not_deferrable", message)
}

fn names_ours(query: &str) -> bool {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.any(|(_, value)| value.parse::<RequestId>().is_ok())
}

/// `/within/6h/v1/x` becomes `/v1/x` and `6h`.
fn take_prefix(uri: &mut Uri) -> Result<Option<String>, ApiError> {
    let Some(rest) = uri.path().strip_prefix("/within/") else {
        return Ok(None);
    };
    let not_found = || {
        ApiError::not_found(
            "Accepted below /within/: a deadline and then the API's path, as in /within/6h/v1.",
        )
    };
    let (segment, path) = rest
        .find('/')
        .map(|at| rest.split_at(at))
        .ok_or_else(not_found)?;
    if path != "/v1" && !path.starts_with("/v1/") {
        return Err(not_found());
    }
    let segment = segment.to_owned();
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    *uri = PathAndQuery::from_maybe_shared(Bytes::from(path))
        .map_err(|_| not_found())?
        .into();
    Ok(Some(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_comes_off_and_the_query_stays() {
        for (uri, segment, left) in [
            ("/within/6h/v1/models", Some("6h"), "/v1/models"),
            (
                "/within/1day%202h/v1/a?b=%20c",
                Some("1day%202h"),
                "/v1/a?b=%20c",
            ),
            ("/within/6h/v1", Some("6h"), "/v1"),
            ("/v1/within/6h", None, "/v1/within/6h"),
        ] {
            let mut uri: Uri = uri.parse().unwrap();
            let taken = take_prefix(&mut uri).unwrap();
            assert_eq!(
                (taken.as_deref(), uri.to_string().as_str()),
                (segment, left)
            );
        }
        for uri in [
            "/within/6h",
            "/within/6h/",
            "/within/6h/metrics",
            "/within/6h/v10",
        ] {
            assert!(take_prefix(&mut uri.parse().unwrap()).is_err(), "{uri}");
        }
    }
}
