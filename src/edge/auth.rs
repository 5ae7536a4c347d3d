//! Whose call it is: the key it presents, with the headers and the query that
//! change where its work runs (DESIGN.md §2, *credential*).

use http::{HeaderMap, HeaderName, Uri, header};

use super::{Edge, errors::ApiError};
use crate::{
    engine::{Caller, Engine},
    ports::Credential,
};

/// The caller, known by fingerprints of what it presents. A caller without a
/// key is a tenant too, for upstreams that want none.
///
/// # Errors
/// 400 where a header of the credential stands twice or is not printable. Where we
/// issue keys, 401 for any other.
pub fn caller(edge: &Edge, headers: &HeaderMap, uri: &Uri) -> Result<Caller, ApiError> {
    Ok(edge.engine.identify(credential(headers, uri)?)?)
}

/// The caller of a call with a deadline, which counts among those that its key may make
/// a minute; and why no batch can run it, if that is so.
///
/// # Errors
/// As [`caller`]; 429 where it is one too many.
pub fn deferring(
    edge: &Edge,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<(Caller, Option<String>), ApiError> {
    let mut presented = credential(headers, uri)?;
    let live_only = live_only(headers, &mut presented)?;
    let caller = edge.engine.identify(presented)?;
    in_turn(&edge.engine, &caller)?;
    Ok((caller, live_only))
}

/// # Errors
/// 429 for a call that is one too many for its key. SDKs send it again by themselves.
pub fn in_turn(engine: &Engine, caller: &Caller) -> Result<(), ApiError> {
    engine.take_turn(caller).map_err(|wait| {
        let rate = caller
            .key
            .as_ref()
            .and_then(|key| key.issued.requests_per_minute);
        let message = format!(
            "Rate limit reached: this key may make {} calls a minute.",
            rate.unwrap_or_default()
        );
        ApiError::limited("rate_limit_exceeded", message).retry_after(wait)
    })
}

/// What the call presents.
///
/// # Errors
/// As [`caller`].
pub fn credential(headers: &HeaderMap, uri: &Uri) -> Result<Credential, ApiError> {
    let mut presented = Vec::new();
    for name in &ALLOWED {
        if let Some(value) = single(headers, name)? {
            presented.push((name.as_str().to_owned(), value.to_owned()));
        }
    }
    Ok(Credential {
        headers: presented,
        query: api_version(uri),
    })
}

/// Whether a key is presented. `Bearer` alone is none: a shell sends that for a
/// variable that is not set.
pub fn names_key(presented: &Credential) -> bool {
    let mut headers = presented.headers.iter();
    headers.any(|(name, value)| {
        let value = value.trim();
        let blank = value.is_empty() || value.eq_ignore_ascii_case("bearer");
        !blank && (name == "authorization" || name == "api-key")
    })
}

/// Why no batch can run this call: an `OpenAI-Beta` header asks for behaviour
/// that a batch line cannot ask for. The header goes with the credential, so
/// that the live call carries it.
///
/// # Errors
/// As [`caller`].
fn live_only(headers: &HeaderMap, credential: &mut Credential) -> Result<Option<String>, ApiError> {
    let Some(value) = single(headers, &OPENAI_BETA)? else {
        return Ok(None);
    };
    let name = OPENAI_BETA.as_str().to_owned();
    credential.headers.push((name, value.to_owned()));
    Ok(Some(format!("OpenAI-Beta {value} is not batchable")))
}

/// Asks for behaviour that a batch line cannot ask for.
pub const OPENAI_BETA: HeaderName = HeaderName::from_static("openai-beta");

/// What decides where work runs.
pub static ALLOWED: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("api-key"),
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
];

/// `api-version=…`, as it came.
fn api_version(uri: &Uri) -> Option<String> {
    let mut pairs = uri.query()?.split('&');
    pairs.find(|pair| is_api_version(pair)).map(str::to_owned)
}

/// The one query parameter that a deferred call may have.
pub fn is_api_version(pair: &str) -> bool {
    pair.split('=').next() == Some("api-version")
}

/// A header that stands once at most.
///
/// # Errors
/// As [`caller`].
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let message = format!("The header `{name}` is given more than once. Give it once.");
        return Err(ApiError::bad("duplicate_header", message));
    }
    value.to_str().map(Some).map_err(|_| {
        let message = format!("The header `{name}` holds characters that are not visible ASCII.");
        ApiError::bad("invalid_header", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_what_decides_where_work_runs_is_kept() {
        let headers = headers(&[
            ("Authorization", "Bearer k"),
            ("OpenAI-Project", "p"),
            ("x-request-id", "r"),
        ]);
        let uri = "/v1/embeddings?a=b&api-version=v1".parse().unwrap();
        let found = credential(&headers, &uri).unwrap();
        let expected = [("authorization", "Bearer k"), ("openai-project", "p")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.headers, expected);
        assert_eq!(found.query.as_deref(), Some("api-version=v1"));
    }

    #[test]
    fn a_beta_goes_live_and_is_sent_along() {
        let headers = headers(&[("OpenAI-Beta", "realtime=v1")]);
        let mut found = credential(&headers, &Uri::default()).unwrap();
        let reason = live_only(&headers, &mut found).unwrap().unwrap();
        assert_eq!(reason, "OpenAI-Beta realtime=v1 is not batchable");
        assert_eq!(found.headers[0].0, "openai-beta");
    }

    #[test]
    fn a_scheme_is_no_key() {
        for (fields, expected) in [
            (&[][..], false),
            (&[("authorization", "Bearer")], false),
            (&[("authorization", "bearer ")], false),
            (&[("api-key", "")], false),
            (&[("openai-project", "p")], false),
            (&[("authorization", "Bearer k")], true),
            (&[("authorization", "Bearer"), ("api-key", "k")], true),
        ] {
            let found = credential(&headers(fields), &Uri::default()).unwrap();
            assert_eq!(names_key(&found), expected, "{fields:?}");
        }
    }

    #[test]
    fn two_keys_are_one_too_many() {
        let headers = headers(&[("authorization", "a"), ("authorization", "b")]);
        assert_eq!(
            credential(&headers, &Uri::default()).unwrap_err().status(),
            400
        );
    }
}
