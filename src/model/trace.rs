//! The trace that a caller's call belongs to (W3C Trace Context).

/// The caller's span, as its `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: TraceId,
    pub span: SpanId,
    /// Whether the caller keeps its part of the trace.
    pub sampled: bool,
}

/// Never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// Never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// A span that is to be told: the trace it belongs to, and the span above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    pub trace: TraceId,
    /// None for a trace that begins here.
    pub parent: Option<SpanId>,
}

impl TraceParent {
    /// Reads a `traceparent`: strictly by W3C Trace Context §3.2, because what a lenient
    /// reader makes of another text belongs to no trace. Versions to come may say more
    /// behind the flags.
    pub fn parse(text: &str) -> Option<TraceParent> {
        let (version, rest) = text.split_once('-')?;
        let (trace, rest) = rest.split_once('-')?;
        let (span, rest) = rest.split_once('-')?;
        let [version] = bytes(version)?;
        let flags = match (version, rest.split_once('-')) {
            (0xff, _) | (0, Some(_)) => return None,
            (_, Some((flags, _))) => flags,
            (_, None) => rest,
        };
        let [flags] = bytes(flags)?;
        let (trace, span) = (bytes(trace)?, bytes(span)?);
        (trace != [0; 16] && span != [0; 8]).then_some(TraceParent {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & 1 == 1,
        })
    }
}

/// Exactly as many, as lower-case hex.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if hex.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn the_specifications_own_example() {
        let parent = TraceParent::parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!(parent.trace.0[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(parent.span.0[6..], [0x33, 0x31]);
        assert!(parent.sampled);
    }

    #[test]
    fn only_the_lowest_flag_says_whether_it_is_sampled() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let parent = TraceParent::parse(&format!("00-{TRACE}-{SPAN}-{flags}")).unwrap();
            assert_eq!(parent.sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn versions_to_come_may_say_more() {
        for text in [
            format!("01-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01-what-comes"),
        ] {
            assert!(TraceParent::parse(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn whatever_else_is_no_parent() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!("00-{}é-{SPAN}-01", &TRACE[2..]),
        ] {
            assert_eq!(TraceParent::parse(&text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_upsets_it(text in "[0-9a-f-]{0,70}|.{0,70}") {
            let _ = TraceParent::parse(&text);
        }
    }
}
