//! Which calls are ours and which go straight through: the one look that
//! every call pays for, at its head only.

use http::{HeaderName, Method, Request, Uri};

use super::auth;
use crate::model::endpoint::Endpoint;

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The upstream, byte for byte.
    Passthrough,
    /// This process: it carries a deadline, names an `op_` id, or is one of
    /// our own paths.
    Deferred,
}

/// When the answer is needed (DESIGN.md §1).
pub const DEADLINE: HeaderName = HeaderName::from_static("offpeak-deadline");
/// The alias of [`DEADLINE`].
pub const DEADLINE_ALIAS: HeaderName = HeaderName::from_static("x-deadline");

/// Reads method-independent facts of the head: two headers, the path, the
/// query. Errs towards [`Route::Deferred`], whose router may still pass a
/// call through.
pub fn route<B>(request: &Request<B>) -> Route {
    let ours = request.headers().contains_key(DEADLINE)
        || request.headers().contains_key(DEADLINE_ALIAS)
        || is_our_path(request.uri().path())
        || request.uri().query().is_some_and(names_our_id);
    match ours {
        true => Route::Deferred,
        false => Route::Passthrough,
    }
}

/// What a batch line can say of a call: an endpoint that is on the list, and no
/// query but the credential's.
pub fn deferrable(method: &Method, uri: &Uri, listed: &[String]) -> Option<Endpoint> {
    let endpoint = Endpoint::from_path(uri.path()).filter(|_| method == Method::POST)?;
    let query = uri.query().unwrap_or_default();
    let plain = query.is_empty() || query.split('&').all(auth::is_api_version);
    let found = listed.iter().any(|one| one == endpoint.path());
    (found && plain).then_some(endpoint)
}

fn is_our_path(path: &str) -> bool {
    path.starts_with("/within/")
        || path.starts_with("/offpeak/")
        || matches!(path, "/offpeak" | "/metrics" | "/healthz" | "/readyz")
        || path.contains("/op_")
}

/// An id as a query value, as in `?after=op_…`.
fn names_our_id(query: &str) -> bool {
    query.contains("=op_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_our_calls_from_the_upstreams() {
        use Route::*;
        let table: &[(&str, Option<&str>, Route)] = &[
            ("/v1/chat/completions", None, Passthrough),
            ("/v1/chat/completions", Some("offpeak-deadline"), Deferred),
            ("/v1/models", Some("Offpeak-Deadline"), Deferred),
            ("/v1/models", Some("X-Deadline"), Deferred),
            ("/v1/models", Some("x-deadlines"), Passthrough),
            ("/v1/models", Some("prefer"), Passthrough),
            ("/within/6h/v1/models", None, Deferred),
            ("/within/1day%202h/v1/models", None, Deferred),
            ("/within", None, Passthrough),
            ("/v1/within/6h", None, Passthrough),
            ("/offpeak/v1/requests", None, Deferred),
            ("/offpeak/", None, Deferred),
            ("/offpeak", None, Deferred),
            ("/offpeakish", None, Passthrough),
            ("/healthz", None, Deferred),
            ("/readyz", None, Deferred),
            ("/metrics", None, Deferred),
            ("/v1/metrics", None, Passthrough),
            ("/v1/chat/completions/op_01", None, Deferred),
            ("/v1/responses/op_01/cancel", None, Deferred),
            ("/v1/responses/resp_op_01", None, Passthrough),
            ("/v1/chat/completions?after=op_01", None, Deferred),
            (
                "/v1/chat/completions?after=chatcmpl-op_1",
                None,
                Passthrough,
            ),
            ("/", None, Passthrough),
            ("*", None, Passthrough),
        ];
        for (uri, header, expected) in table {
            let mut request = Request::builder().uri(*uri);
            if let Some(name) = header {
                request = request.header(*name, "6h");
            }
            let request = request.body(()).unwrap();
            assert_eq!(route(&request), *expected, "{uri} {header:?}");
        }
    }
}
