//! Hop-by-hop fields, which belong to one connection and end there.

use http::{HeaderMap, HeaderName, header};

use crate::edge::auth;

/// Removes the fields of RFC 9110 §7.6.1: those that `Connection` names,
/// `Connection` itself, and the older ones that were always of one hop.
///
/// `Transfer-Encoding` stays: hyper writes the framing anew on each side and
/// obeys this field where it is present, which keeps a coding under `chunked`
/// (`gzip, chunked`) and a chunked body on a method that rarely has one.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One pass over the names, because almost every message has none of them.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

static HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::UPGRADE,
];

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// What `Connection` may not name: fields that frame, address or authorise the
/// message, or say what it is. They are meant for whoever answers (RFC 9110 §7.6.1).
fn is_protected(name: &HeaderName) -> bool {
    PROTECTED.contains(name) || auth::ALLOWED.contains(name) || *name == auth::OPENAI_BETA
}

static PROTECTED: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    HeaderName::from_static("idempotency-key"),
];

/// Whether all that reads the message reads its framing alike: known codings, and
/// `chunked` once, at their end. hyper looks at the end alone; another reader may stop
/// at the beginning, or at a coding that it does not know.
pub fn has_plain_coding(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let codings: Vec<_> = codings.map(<[u8]>::trim_ascii).collect();
    let Some((last, below)) = codings.split_last() else {
        return true;
    };
    let is = |coding: &[u8], name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
    is(last, "chunked")
        && below
            .iter()
            .all(|coding| CODINGS.iter().any(|known| is(coding, known)))
}

/// The transfer codings of IANA's registry that compress (RFC 9112 §7.2).
const CODINGS: [&str; 5] = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !is_protected(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(fields: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        left.sort();
        left
    }

    #[test]
    fn removes_what_belongs_to_one_hop() {
        let left = stripped(&[
            ("connection", "close, X-Local ,, te"),
            ("connection", "x-other"),
            ("x-local", "1"),
            ("x-local", "2"),
            ("x-other", "3"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "websocket"),
            ("authorization", "Bearer k"),
            ("trailer", "x-sum"),
        ]);
        assert_eq!(left, ["authorization=Bearer k", "trailer=x-sum"]);
    }

    #[test]
    fn a_framing_that_is_read_in_one_way() {
        for (values, plain) in [
            (&[][..], true),
            (&["chunked"], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], true),
            (&["gzip", "chunked"], true),
            (&["identity, chunked"], false),
            (&["identity", "chunked"], false),
            (&["chunked", "chunked"], false),
            (&["chunked, chunked"], false),
            (&[", chunked"], false),
            (&["x, chunked"], false),
            (&["gzip"], false),
            (&[""], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::TRANSFER_ENCODING, value.parse().unwrap());
            }
            assert_eq!(has_plain_coding(&headers), plain, "{values:?}");
        }
    }

    #[test]
    fn connection_cannot_take_the_framing_or_the_key_away() {
        let left = stripped(&[
            (
                "connection",
                "content-length, transfer-encoding, host, authorization",
            ),
            ("authorization", "Bearer k"),
            ("content-length", "5"),
            ("host", "h"),
        ]);
        let kept = ["authorization=Bearer k", "content-length=5", "host=h"];
        assert_eq!(left, kept);
    }

    #[test]
    fn keeps_order_and_duplicates_of_the_rest() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let before = headers.clone();
        strip_hop_by_hop(&mut headers);
        assert!(before.iter().eq(headers.iter()));
    }
}
