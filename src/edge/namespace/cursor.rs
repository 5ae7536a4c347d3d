//! Opaque cursors. What they hold is ours to change, which is why they name
//! their kind and callers see base64.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::model::id::{ReceiverId, RequestId, RequestKey, TenantId};

/// Where a listing goes on: behind this request, towards older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCursor(pub RequestId);

/// Where the feed goes on: behind this place in the commit order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCursor(pub u64);

/// Where a listing of webhooks goes on: behind this request, or in the dead letters
/// behind that of this receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookCursor {
    Newest(RequestId),
    Dead(ReceiverId, RequestId),
}

/// Where an operator's listing of all tenants goes on, who may know how much they ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcrossCursor {
    /// Towards earlier endings than this place in the commit order.
    Ended(u64),
    /// Behind this dead letter.
    Dead(ReceiverId, RequestKey),
}

const ENDED: u8 = b'e';
const ALL_DEAD: u8 = b'a';

const HOOKS: u8 = b'h';
const DEAD: u8 = b'd';
/// Bytes of a tenant's mark that stand in its cursors.
const MARK: usize = 8;

const LIST: u8 = b'l';
const FEED: u8 = b'f';
const FEED_PAD: u8 = b'p';

impl ListCursor {
    pub fn encode(self) -> String {
        encode(LIST, self.0.as_bytes())
    }

    pub fn decode(text: &str) -> Option<Self> {
        decode(LIST, text).map(|bytes| ListCursor(RequestId::from_bytes(bytes)))
    }
}

/// The place is counted over all tenants: read by one of them it would tell how much
/// the others have asked. So it is encrypted, with the tenant's mark of it in the place
/// of a nonce (as SIV modes do), and only what was given out to the tenant decrypts.
impl FeedCursor {
    pub fn encode(self, mark: impl Fn(&[u8]) -> [u8; 16]) -> String {
        let place = self.0.to_be_bytes();
        let given = shortened(mark(&[&[FEED], &place[..]].concat()));
        let pad = shortened(mark(&[&[FEED_PAD], &given[..]].concat()));
        encode(FEED, &[given, xor(place, pad)].concat())
    }

    pub fn decode(text: &str, mark: impl Fn(&[u8]) -> [u8; 16]) -> Option<Self> {
        let bytes: [u8; 2 * MARK] = decode(FEED, text)?;
        let (given, hidden) = bytes.split_first_chunk::<MARK>()?;
        let pad = shortened(mark(&[&[FEED_PAD], &given[..]].concat()));
        let cursor = FeedCursor(u64::from_be_bytes(xor(hidden.try_into().ok()?, pad)));
        (cursor.encode(mark) == text).then_some(cursor)
    }
}

fn shortened(mark: [u8; 16]) -> [u8; MARK] {
    std::array::from_fn(|at| mark[at])
}

fn xor(a: [u8; MARK], b: [u8; MARK]) -> [u8; MARK] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

impl HookCursor {
    /// `mark` makes the tenant's mark of a cursor: another tenant's is none.
    pub fn encode(self, mark: impl FnOnce(&[u8]) -> [u8; 16]) -> String {
        let (kind, place) = match self {
            HookCursor::Newest(id) => (HOOKS, id.as_bytes().to_vec()),
            HookCursor::Dead(receiver, id) => (DEAD, [receiver.0, *id.as_bytes()].concat()),
        };
        let mark = mark(&[&[kind], &place[..]].concat());
        encode(kind, &[&place[..], &mark[..MARK]].concat())
    }

    pub fn decode(text: &str, mark: impl FnOnce(&[u8]) -> [u8; 16]) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (place, given) = bytes.split_last_chunk::<MARK>()?;
        if mark(place)[..MARK] != given[..] {
            return None;
        }
        let (kind, place) = place.split_first()?;
        match *kind {
            HOOKS => place.try_into().ok().map(|id| {
                let id = RequestId::from_bytes(id);
                HookCursor::Newest(id)
            }),
            DEAD => {
                let (receiver, id) = place.split_first_chunk()?;
                let id = RequestId::from_bytes(id.try_into().ok()?);
                Some(HookCursor::Dead(ReceiverId(*receiver), id))
            }
            _ => None,
        }
    }
}

impl AcrossCursor {
    pub fn encode(self) -> String {
        match self {
            AcrossCursor::Ended(sequence) => encode(ENDED, &sequence.to_be_bytes()),
            AcrossCursor::Dead(receiver, RequestKey { tenant, id }) => {
                encode(ALL_DEAD, &[tenant.0, receiver.0, *id.as_bytes()].concat())
            }
        }
    }

    pub fn decode(text: &str) -> Option<Self> {
        if let Some(sequence) = decode(ENDED, text) {
            return Some(AcrossCursor::Ended(u64::from_be_bytes(sequence)));
        }
        let bytes: [u8; 48] = decode(ALL_DEAD, text)?;
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (receiver, id) = rest.split_first_chunk()?;
        let (tenant, id) = (
            TenantId(*tenant),
            RequestId::from_bytes(id.try_into().ok()?),
        );
        Some(AcrossCursor::Dead(
            ReceiverId(*receiver),
            RequestKey { tenant, id },
        ))
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

    fn mark_of(tenant: u8) -> impl Fn(&[u8]) -> [u8; 16] {
        move |cursor| {
            let mut mark = [0; 16];
            let hash = blake3::hash(&[&[tenant], cursor].concat());
            mark.copy_from_slice(&hash.as_bytes()[..16]);
            mark
        }
    }

    proptest! {
        #[test]
        fn out_and_back(id: [u8; 16], sequence: u64) {
            let list = ListCursor(RequestId::from_bytes(id));
            prop_assert_eq!(ListCursor::decode(&list.encode()), Some(list));
            let feed = FeedCursor(sequence);
            let (ours, theirs) = (mark_of(1), mark_of(2));
            let text = feed.encode(&ours);
            prop_assert_eq!(FeedCursor::decode(&text, &ours), Some(feed));
            prop_assert_eq!(FeedCursor::decode(&text, &theirs), None);
            prop_assert_eq!(FeedCursor::decode(&list.encode(), &ours), None);
            prop_assert_eq!(ListCursor::decode(&text), None);
            let key = RequestKey { tenant: TenantId(id), id: RequestId::from_bytes(id) };
            for across in [
                AcrossCursor::Ended(sequence),
                AcrossCursor::Dead(ReceiverId([7; 16]), key),
            ] {
                prop_assert_eq!(AcrossCursor::decode(&across.encode()), Some(across));
                prop_assert_eq!(ListCursor::decode(&across.encode()), None);
            }
            prop_assert_eq!(AcrossCursor::decode(&list.encode()), None);
            let shown = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let place = sequence.to_be_bytes();
            prop_assert!(!shown.windows(8).any(|window| window == place), "in the clear");
        }

        #[test]
        fn a_webhook_cursor_is_its_tenants(id: [u8; 16], receiver: [u8; 16], tenant: u8) {
            let id = RequestId::from_bytes(id);
            let mark = |of: u8| move |cursor: &[u8]| {
                let mut mark = [of; 16];
                cursor.iter().enumerate().for_each(|(at, byte)| mark[at % 8] ^= byte);
                mark
            };
            for cursor in [HookCursor::Newest(id), HookCursor::Dead(ReceiverId(receiver), id)] {
                let text = cursor.encode(mark(tenant));
                prop_assert_eq!(HookCursor::decode(&text, mark(tenant)), Some(cursor));
                prop_assert_eq!(HookCursor::decode(&text, mark(tenant.wrapping_add(1))), None);
                prop_assert_eq!(HookCursor::decode(&text[1..], mark(tenant)), None);
                prop_assert_eq!(ListCursor::decode(&text), None);
            }
        }

        #[test]
        fn anything_else_is_none(text in ".{0,40}") {
            prop_assert_eq!(FeedCursor::decode(&text, mark_of(1)), None);
        }
    }

    #[test]
    fn a_shortened_cursor_is_none() {
        let text = FeedCursor(7).encode(mark_of(1));
        assert_eq!(
            FeedCursor::decode(&text[..text.len() - 1], mark_of(1)),
            None
        );
        assert_eq!(FeedCursor::decode("", mark_of(1)), None);
    }
}
