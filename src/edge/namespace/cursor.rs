//! Opaque cursors. What they hold is ours to change, which is why they name
//! their kind and callers see base64.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::model::id::RequestId;

/// Where a listing goes on: behind this request, towards older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCursor(pub RequestId);

/// Where the feed goes on: behind this place in the commit order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCursor(pub u64);

const LIST: u8 = b'l';
const FEED: u8 = b'f';

impl ListCursor {
    pub fn encode(self) -> String {
        encode(LIST, self.0.as_bytes())
    }

    pub fn decode(text: &str) -> Option<Self> {
        decode(LIST, text).map(|bytes| ListCursor(RequestId::from_bytes(bytes)))
    }
}

impl FeedCursor {
    pub fn encode(self) -> String {
        encode(FEED, &self.0.to_be_bytes())
    }

    pub fn decode(text: &str) -> Option<Self> {
        decode(FEED, text).map(|bytes| FeedCursor(u64::from_be_bytes(bytes)))
    }
}

fn encode(kind: u8, bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&[kind], bytes].concat())
}

fn decode<const N: usize>(kind: u8, text: &str) -> Option<[u8; N]> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (first, rest) = bytes.split_first()?;
    (*first == kind).then(|| rest.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn out_and_back(id: [u8; 16], sequence: u64) {
            let list = ListCursor(RequestId::from_bytes(id));
            prop_assert_eq!(ListCursor::decode(&list.encode()), Some(list));
            let feed = FeedCursor(sequence);
            prop_assert_eq!(FeedCursor::decode(&feed.encode()), Some(feed));
            prop_assert_eq!(FeedCursor::decode(&list.encode()), None);
            prop_assert_eq!(ListCursor::decode(&feed.encode()), None);
        }

        #[test]
        fn anything_else_is_none(text in ".{0,40}") {
            if let Some(cursor) = FeedCursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }

    #[test]
    fn a_shortened_cursor_is_none() {
        let text = FeedCursor(7).encode();
        assert_eq!(FeedCursor::decode(&text[..text.len() - 1]), None);
        assert_eq!(FeedCursor::decode(""), None);
    }
}
