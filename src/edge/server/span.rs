//! What every line of the log says that comes of one call: its name, and the id of the
//! request that it became, once there is one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::{HeaderMap, Request};
use tracing::{Span, field};

/// Calls that gave themselves no name.
static UNNAMED: AtomicU64 = AtomicU64::new(0);

/// The longest name that is taken over, in bytes. OpenAI takes 512.
const LONGEST: usize = 128;

/// Of a call that Offpeak answers. Who fills in `id` is whoever learns it.
pub fn answering<B>(request: &Request<B>) -> Span {
    let span = tracing::info_span!("call", call = field::Empty, id = field::Empty);
    match own_name(request.headers()) {
        Some(name) => span.record("call", name),
        None => span.record("call", UNNAMED.fetch_add(1, Relaxed)),
    };
    span
}

/// Of a call that passes straight through: on their way nothing is made for a log that
/// does not want it.
pub fn passing<B>(request: &Request<B>) -> Span {
    let span = tracing::debug_span!("passing", call = field::Empty);
    if !span.is_disabled() {
        match own_name(request.headers()) {
            Some(name) => span.record("call", name),
            None => span.record("call", UNNAMED.fetch_add(1, Relaxed)),
        };
    }
    span
}

/// The name that a caller or a proxy in front gave its call, where it is plain: nobody
/// writes what he likes into the log.
fn own_name(headers: &HeaderMap) -> Option<&str> {
    let given = ["x-client-request-id", "x-request-id"];
    let mut names = given.into_iter().filter_map(|name| headers.get(name));
    let name = names.next()?.to_str().ok()?;
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.:".contains(&c);
    let fits = (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_plain);
    fits.then_some(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_plain_name_is_taken_over_and_no_other() {
        let long = "x".repeat(LONGEST + 1);
        for (header, name, taken) in [
            ("x-client-request-id", "0b1f-42.a:b_c", true),
            ("x-request-id", "req_1", true),
            ("x-request-id", "", false),
            ("x-request-id", "a b", false),
            ("x-request-id", "a\"}", false),
            ("x-request-id", long.as_str(), false),
            ("request-id", "req_1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header, HeaderValue::from_str(name).unwrap());
            assert_eq!(
                own_name(&headers),
                taken.then_some(name),
                "{header}: {name}"
            );
        }
    }
}
