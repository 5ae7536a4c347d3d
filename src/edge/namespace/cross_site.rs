//! Browsers: a page on the web can make its visitor's browser call `127.0.0.1`, or
//! have its own name stand for that address (DNS rebinding). No answer here carries
//! CORS headers, no `GET` changes anything, and:
//!
//! - Offpeak's own paths are refused to what a browser says comes from another site's
//!   page ([`guard`]);
//! - who presents no key is told nothing under a foreign name ([`check_host`]): to a
//!   rebound name the browser sends no `Origin`, and it has no key to send either.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use url::Url;

use crate::edge::{Edge, errors::ApiError};

/// Refuses what comes from a page of another site.
pub async fn guard(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    match is_cross_site(request.headers(), public_url(&edge).as_ref()) {
        true => forbidden(
            "cross_site",
            "A page of another site asks here. Offpeak's own paths answer to pages of the \
             same origin only, and to server.public_url's.",
        )
        .into_response(),
        false => next.run(request).await,
    }
}

/// For who presents no key.
///
/// # Errors
/// 403 where `Host` is neither an address nor `localhost` nor the name in
/// `server.public_url`.
pub fn check_host(headers: &HeaderMap, edge: &Edge) -> Result<(), ApiError> {
    match is_own_name(headers, public_url(edge).as_ref()) {
        true => Ok(()),
        false => Err(forbidden(
            "foreign_host",
            "Without a key, calls are told about by address, as localhost, or under the name \
             in server.public_url: another name may be a web page's.",
        )),
    }
}

/// Set by browsers, and by no page.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

fn is_cross_site(headers: &HeaderMap, public: Option<&Url>) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let Some(origin) = origin
        .to_str()
        .ok()
        .and_then(|origin| Url::parse(origin).ok())
    else {
        return true;
    };
    let same = headers
        .get(header::HOST)
        .is_some_and(|host| host.as_bytes() == origin.authority().as_bytes());
    !same && public.is_none_or(|public| public.origin() != origin.origin())
}

fn is_own_name(headers: &HeaderMap, public: Option<&Url>) -> bool {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (values.next(), values.next()) else {
        return false;
    };
    let url = host.to_str().map(|host| format!("http://{host}/"));
    let Some(url) = url.ok().and_then(|url| Url::parse(&url).ok()) else {
        return false;
    };
    let name = url.host_str().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || public.is_some_and(|public| public.host_str() == Some(name))
}

fn public_url(edge: &Edge) -> Option<Url> {
    Url::parse(&edge.engine.settings().webhook.public_url).ok()
}

fn forbidden(code: &'static str, message: &str) -> ApiError {
    ApiError::invalid(StatusCode::FORBIDDEN, code, message)
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
    fn a_page_of_another_site_is_told_by_its_browser() {
        let public = Url::parse("https://offpeak.example").unwrap();
        for (fields, cross) in [
            (&[][..], false),
            (&[("host", "evil.example:8080")], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("origin", "http://127.0.0.1:8080"),
                ],
                false,
            ),
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("origin", "http://127.0.0.1:3000"),
                ],
                true,
            ),
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("origin", "https://evil.example"),
                ],
                true,
            ),
            (&[("host", "127.0.0.1:8080"), ("origin", "null")], true),
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("origin", "https://offpeak.example"),
                ],
                false,
            ),
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("origin", "http://offpeak.example"),
                ],
                true,
            ),
            (&[("origin", "https://evil.example")], true),
        ] {
            let found = is_cross_site(&headers(fields), Some(&public));
            assert_eq!(found, cross, "{fields:?}");
        }
    }

    #[test]
    fn a_name_that_is_ours() {
        let public = Url::parse("https://offpeak.example").unwrap();
        for (host, own) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("10.1.2.3", true),
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("offpeak.example", true),
            ("offpeak.example:8443", true),
            ("evil.example:8080", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
            ("127.0.0.1/@evil.example", true),
        ] {
            let found = is_own_name(&headers(&[("host", host)]), Some(&public));
            assert_eq!(found, own, "{host}");
        }
        assert!(!is_own_name(&headers(&[]), None));
        let two = headers(&[("host", "127.0.0.1"), ("host", "evil.example")]);
        assert!(!is_own_name(&two, None));
    }
}
