//! One line of a batch input file (WIRE.md §1).

use super::{endpoint::Endpoint, id::RequestId};

const BEFORE_ID: &str = r#"{"custom_id":""#;
const BEFORE_URL: &str = r#"","method":"POST","url":""#;
const BEFORE_BODY: &str = r#"","body":"#;
const END: &str = "}\n";

/// Appends `{"custom_id":"op_…","method":"POST","url":"/v1/…","body":…}` and a
/// newline. `body` goes in byte for byte: it must be one JSON value without raw
/// line breaks.
pub fn write_line(out: &mut Vec<u8>, id: RequestId, endpoint: Endpoint, body: &[u8]) {
    out.reserve(line_length(endpoint, body.len()));
    out.extend_from_slice(BEFORE_ID.as_bytes());
    out.extend_from_slice(id.to_string().as_bytes());
    out.extend_from_slice(BEFORE_URL.as_bytes());
    out.extend_from_slice(endpoint.path().as_bytes());
    out.extend_from_slice(BEFORE_BODY.as_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(END.as_bytes());
}

/// Where a line's body begins.
pub const fn body_start(endpoint: Endpoint) -> usize {
    line_length(endpoint, 0) - END.len()
}

/// Exact bytes of the line for a body of `body` bytes, its newline included.
pub const fn line_length(endpoint: Endpoint, body: usize) -> usize {
    BEFORE_ID.len()
        + RequestId::LEN
        + BEFORE_URL.len()
        + endpoint.path().len()
        + BEFORE_BODY.len()
        + body
        + END.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Line<'a> {
        custom_id: RequestId,
        method: &'a str,
        url: &'a str,
        #[serde(borrow)]
        body: &'a RawValue,
    }

    proptest! {
        #[test]
        fn the_line_holds_what_it_was_given(
            id: [u8; 16],
            endpoint in prop::sample::select(&Endpoint::ALL[..]),
            text: String,
        ) {
            let id = RequestId::from_bytes(id);
            let body = serde_json::to_vec(&text).unwrap();
            let mut line = Vec::new();
            write_line(&mut line, id, endpoint, &body);

            prop_assert_eq!(line.len(), line_length(endpoint, body.len()));
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert!(!line.contains(&b'\n'));
            let read: Line = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(read.custom_id, id);
            prop_assert_eq!(read.method, "POST");
            prop_assert_eq!(read.url, endpoint.path());
            prop_assert_eq!(read.body.get().as_bytes(), &body[..]);
        }
    }
}
