//! The end of an answer, kept while it streams by to its caller: enough to read its
//! usage, model and tier from later.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::coding::Coding;
use crate::ledger::{self, Metered};

/// Bytes kept of one answer. An ordinary one is whole within it.
const MOST: usize = 256 * 1024;
/// What stays when an answer is longer: its end.
const END: usize = MOST / 2;
/// Bytes kept of all answers together.
const MOST_OF_ALL: usize = 64 * 1024 * 1024;

/// Bytes that are kept at this moment.
#[derive(Clone, Default)]
pub struct Kept(Arc<AtomicUsize>);

/// Given back to `Kept` when dropped.
pub struct Excerpt {
    bytes: Vec<u8>,
    /// Its beginning is gone.
    cut: bool,
    /// Server-sent events, or one JSON document.
    streamed: bool,
    /// Of what is kept: of no use without its beginning.
    coding: Option<Coding>,
    kept: Kept,
}

impl Excerpt {
    pub fn new(streamed: bool, coding: Option<Coding>, kept: Kept) -> Excerpt {
        Excerpt {
            bytes: Vec::new(),
            cut: false,
            streamed,
            coding,
            kept,
        }
    }

    /// Takes the next piece. False where there is no room for it: the excerpt is of
    /// no use any more.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        if self.coding.is_some() && self.bytes.len() + piece.len() > MOST {
            return false;
        }
        let piece = match piece.len().checked_sub(MOST) {
            None => piece,
            Some(over) => {
                self.drop_front(self.bytes.len());
                self.cut = true;
                &piece[over..]
            }
        };
        if self.bytes.len() + piece.len() > MOST {
            let stays = END.saturating_sub(piece.len());
            self.drop_front(self.bytes.len().saturating_sub(stays));
        }
        let all = &self.kept.0;
        if all.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > MOST_OF_ALL {
            all.fetch_sub(piece.len(), Ordering::Relaxed);
            return false;
        }
        self.bytes.extend_from_slice(piece);
        true
    }

    /// None where it cannot be read, or there is no room for it.
    fn decoded(&self, coding: Coding) -> Option<Excerpt> {
        let mut text = Excerpt::new(self.streamed, None, self.kept.clone());
        let mut room = true;
        let read = coding.decode(&self.bytes, |piece| {
            room = text.push(piece);
            room
        });
        (read.is_ok() && room).then_some(text)
    }

    fn drop_front(&mut self, count: usize) {
        if count > 0 {
            self.cut = true;
            self.bytes.drain(..count);
            self.kept.0.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// What the answer says of its cost. A first event that is cut is no JSON.
    pub fn read(&self) -> Metered {
        if let Some(coding) = self.coding {
            return self
                .decoded(coding)
                .map_or_else(Metered::default, |it| it.read());
        }
        match (self.streamed, self.cut) {
            (true, _) => ledger::meter_stream(&self.bytes),
            (false, false) => ledger::meter(&self.bytes),
            (false, true) => ledger::meter(&last_members(&self.bytes)),
        }
    }
}

impl Drop for Excerpt {
    fn drop(&mut self) {
        self.kept.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// An object of those members of a JSON object that are whole in its end: of a long
/// list of embeddings, the model and the usage behind it. Read backwards, because
/// only from the end is it known what is inside a string.
fn last_members(end: &[u8]) -> Vec<u8> {
    let (mut at, mut depth, mut members) = (end.len(), 0_usize, None);
    while at > 0 {
        at -= 1;
        match end[at] {
            b'"' => match string_start(&end[..at]) {
                Some(start) => at = start,
                None => break,
            },
            b'}' | b']' => depth += 1,
            b'{' | b'[' if depth <= 1 => break,
            b'{' | b'[' => depth -= 1,
            b',' if depth == 1 => members = Some(at + 1),
            _ => {}
        }
    }
    match members {
        Some(start) => [b"{", &end[start..]].concat(),
        None => Vec::new(),
    }
}

/// Where the string began that a quote behind `before` ends.
fn string_start(before: &[u8]) -> Option<usize> {
    let mut at = before.len();
    loop {
        at = before[..at].iter().rposition(|&byte| byte == b'"')?;
        let escapes = before[..at].iter().rev();
        if escapes.take_while(|&&byte| byte == b'\\').count() % 2 == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::coding;
    use proptest::prelude::*;

    use super::*;

    fn excerpt(streamed: bool, pieces: &[&[u8]]) -> Excerpt {
        let mut excerpt = Excerpt::new(streamed, None, Kept::default());
        for piece in pieces {
            assert!(excerpt.push(piece));
        }
        excerpt
    }

    const USAGE: &str = r#""model":"m","usage":{"prompt_tokens":7,"completion_tokens":1}"#;

    #[test]
    fn a_long_answer_tells_its_cost_at_its_end() {
        let long = format!(
            r#"{{"object":"list","data":[[{}0]],{USAGE}}}"#,
            "1,".repeat(MOST)
        );
        for size in [100, 5_000, MOST - 1, MOST, MOST + 1, long.len()] {
            let pieces: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let excerpt = excerpt(false, &pieces);
            let metered = excerpt.read();
            assert!(excerpt.bytes.len() <= MOST);
            assert_eq!(
                (metered.usage.input, metered.model.as_deref()),
                (7, Some("m"))
            );
        }
        let first = format!(r#"{{{USAGE},"data":[{}0]}}"#, "1,".repeat(MOST));
        assert!(!excerpt(false, &[first.as_bytes()]).read().known);
    }

    #[test]
    fn a_long_stream_tells_its_cost_in_its_last_events() {
        let event = format!(
            "data: {{\"model\":\"m\",\"x\":\"{}\"}}\n\n",
            "x".repeat(900)
        );
        let mut pieces = vec![event.as_bytes(); 1_000];
        let last = format!("data: {{{USAGE}}}\n\n");
        pieces.extend([last.as_bytes(), b"data: [DONE]\n\n"]);
        let metered = excerpt(true, &pieces).read();
        assert!(metered.known && metered.model.as_deref() == Some("m"));
    }

    #[test]
    fn what_is_kept_of_all_answers_is_bounded_and_given_back() {
        let kept = Kept::default();
        let mut held = Vec::new();
        loop {
            let mut excerpt = Excerpt::new(false, None, kept.clone());
            let room = excerpt.push(&[b'x'; 100_000]) && excerpt.push(&[b'x'; 200_000]);
            held.push(excerpt);
            if !room {
                break;
            }
        }
        assert!((300..700).contains(&held.len()), "{}", held.len());
        assert!(kept.0.load(Ordering::Relaxed) <= MOST_OF_ALL);
        drop(held);
        assert_eq!(kept.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn members_are_found_from_the_end() {
        for (end, found) in [
            (
                r#"1]],"a":{"usage":1,"b":[2]},"c":"x"}"#,
                r#"{"a":{"usage":1,"b":[2]},"c":"x"}"#,
            ),
            (r#"cut \"a\",","c":"x,\"}{\\" }"#, r#"{"c":"x,\"}{\\" }"#),
            (r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
            (r#"{"a":{"b":1,"c":2}}"#, ""),
            ("1,2,3", ""),
            ("", ""),
        ] {
            assert_eq!(
                String::from_utf8(last_members(end.as_bytes())).unwrap(),
                found,
                "{end}"
            );
        }
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_only_true_members_are_found(
            text in "[\"\\\\a,{}\\[\\]:]{0,30}", at in 0usize..200,
        ) {
            let whole = serde_json::json!({
                "a": {"usage": text, "model": [text]}, "usage": {"input_tokens": 3}, "z": text,
            });
            let bytes = whole.to_string().into_bytes();
            let members = last_members(&bytes[at.min(bytes.len())..]);
            if !members.is_empty() {
                let found: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(&members).unwrap();
                for (name, value) in found {
                    prop_assert_eq!(&whole[&name], &value);
                }
            }
        }
    }

    #[test]
    fn a_compressed_answer_is_read_whole_or_not_at_all() {
        for (name, bytes) in coding::tests::compressed() {
            let kept = Kept::default();
            let mut excerpt = Excerpt::new(false, Coding::named(name), kept.clone());
            assert!(bytes.chunks(7).all(|piece| excerpt.push(piece)), "{name}");
            let metered = excerpt.read();
            assert!(metered.known, "{name}");
            assert_eq!(
                (metered.usage.input, metered.usage.output),
                (7, 3),
                "{name}"
            );
            assert!(
                !excerpt.push(&vec![0; MOST]),
                "{name}: its beginning would be gone"
            );
            drop(excerpt);
            assert_eq!(kept.0.load(Ordering::Relaxed), 0, "{name}");
        }
        let mut broken = Excerpt::new(false, Some(Coding::Gzip), Kept::default());
        assert!(broken.push(b"no gzip") && !broken.read().known);
    }
}
