//! The trace that a caller says its call is part of.

use http::{HeaderMap, HeaderName};

use crate::model::trace::TraceParent;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// None where there is no valid `traceparent`, and where there are several: which of them
/// counts nobody knows.
pub fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let parent = given.next()?.to_str().ok()?;
    match given.next() {
        None => TraceParent::parse(parent),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_header_counts_and_no_two() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (given, is_parent) in [
            (&[][..], false),
            (&[valid], true),
            (&["00-nonsense"], false),
            (&[valid, valid], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(TRACEPARENT, value.parse().unwrap());
            }
            assert_eq!(parent(&headers).is_some(), is_parent, "{given:?}");
        }
    }
}
