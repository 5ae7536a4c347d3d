//! The `Prefer` header (RFC 7240): how long the caller wants to be held.

use std::{fmt, time::Duration};

/// What we understand of a call's preferences. Unknown ones, and values that
/// make no sense, are ignored, as RFC 7240 §2 asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// `respond-async`: a 202 at once.
    pub respond_async: bool,
    /// `wait=N`, whole seconds as asked for; the edge bounds it.
    pub wait: Option<Duration>,
}

impl Preference {
    /// Reads every line of the header. Of a preference given twice the first
    /// counts (RFC 7240 §2); parameters after `;` mean nothing here.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut preference = Preference::default();
        let mut wait = None;
        for line in lines {
            for item in split(line, b',') {
                let main = split(item, b';').next().unwrap_or_default();
                let (name, value) = name_and_value(main);
                if name.eq_ignore_ascii_case(b"respond-async") {
                    preference.respond_async = true;
                } else if name.eq_ignore_ascii_case(b"wait") && wait.is_none() {
                    wait = Some(seconds(&value));
                }
            }
        }
        preference.wait = wait.flatten();
        preference
    }

    pub fn is_empty(&self) -> bool {
        *self == Preference::default()
    }
}

/// The `Preference-Applied` value of an answer that honoured all of it; empty
/// where nothing was asked.
impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.respond_async, self.wait) {
            (true, Some(wait)) => write!(f, "respond-async, wait={}", wait.as_secs()),
            (true, None) => f.write_str("respond-async"),
            (false, Some(wait)) => write!(f, "wait={}", wait.as_secs()),
            (false, None) => Ok(()),
        }
    }
}

/// Splits at `separator` outside of quoted strings.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |&byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        byte == separator && !quoted
    })
}

fn name_and_value(item: &[u8]) -> (&[u8], Vec<u8>) {
    let mut halves = item.splitn(2, |&byte| byte == b'=');
    let name = halves.next().unwrap_or_default().trim_ascii();
    let value = halves.next().unwrap_or_default().trim_ascii();
    (name, unquoted(value))
}

/// A token as it is, a quoted string without quotes and escapes.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return value.to_vec();
    };
    let mut escaped = false;
    let keep = |byte: &&u8| {
        escaped = !escaped && **byte == b'\\';
        !escaped
    };
    inner.iter().filter(keep).copied().collect()
}

/// Delta-seconds: digits only. A number too large to hold is as long as can
/// be said.
fn seconds(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = value.iter().fold(0u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table() {
        let both = "respond-async, wait=10";
        let table: &[(&[&str], &str)] = &[
            (&[], ""),
            (&[""], ""),
            (&["respond-async"], "respond-async"),
            (&["Respond-ASYNC"], "respond-async"),
            (&["wait=10"], "wait=10"),
            (&["WAIT = 10"], "wait=10"),
            (&["wait=\"10\""], "wait=10"),
            (&["wait=\"1\\0\""], "wait=10"),
            (&["wait=0"], "wait=0"),
            (&["respond-async, wait=10"], both),
            (&["respond-async,wait=10,"], both),
            (&["respond-async", "wait=10"], both),
            (&["wait=10; foo=bar, respond-async; a=\"b,c\""], both),
            (&["foo=\"respond-async, wait=5\""], ""),
            (&["foo=\"a\\\", wait=5\", wait=10"], "wait=10"),
            (&["foo; wait=5"], ""),
            (&["wait=10, wait=20"], "wait=10"),
            (&["wait=soon, wait=20"], ""),
            (&["wait"], ""),
            (&["wait=-1"], ""),
            (&["wait=1.5"], ""),
            (&["wait=1s"], ""),
            (
                &["wait=99999999999999999999999"],
                "wait=18446744073709551615",
            ),
            (&["handling=lenient, return=minimal"], ""),
            (&["respond-async=\"\""], "respond-async"),
            (&["respond-async-not"], ""),
        ];
        for (lines, applied) in table {
            let preference = Preference::parse(lines.iter().map(|line| line.as_bytes()));
            assert_eq!(preference.to_string(), *applied, "{lines:?}");
            assert_eq!(preference.is_empty(), applied.is_empty());
        }
    }

    proptest! {
        #[test]
        fn never_panics(lines: Vec<Vec<u8>>) {
            Preference::parse(lines.iter().map(Vec::as_slice));
        }

        #[test]
        fn what_was_applied_reads_back(respond_async: bool, wait: Option<u64>) {
            let asked = Preference { respond_async, wait: wait.map(Duration::from_secs) };
            prop_assert_eq!(Preference::parse([asked.to_string().as_bytes()]), asked);
        }
    }
}
