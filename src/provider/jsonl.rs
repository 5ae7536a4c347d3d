//! Result files, line by line (WIRE.md §1, "Lines").

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::ports::{LineAnswer, ProviderError, ResultLine};

/// The longest line that is read, in bytes. The longest honest one is an
/// embeddings answer of 2,048 inputs, at 3,072 dimensions of some 20 characters
/// about 126 MB.
const LONGEST: usize = 256 * 1024 * 1024;

/// The code of a line that was run or not, but whose answer cannot be read.
const NO_ANSWER: &str = "no_answer";

/// A shorter body is copied out of the piece it came in (some 400 KB), so that
/// an answer that somebody keeps does not keep its neighbours.
const COPIED: usize = 64 * 1024;

type Pieces = BoxStream<'static, Result<Bytes, ProviderError>>;

/// The lines of an output or error file. A line that cannot be read names no
/// request, so it is counted in the log and passed over: its request is in
/// neither file. Only a failed transfer is an error, and it is the last item.
///
/// `framed`: whether the transfer itself tells a cut from an end. Where it does
/// not, a file that ends inside a line was cut.
pub(crate) fn results(
    pieces: Pieces,
    file: String,
    framed: bool,
) -> impl Stream<Item = Result<ResultLine, ProviderError>> + Send + 'static {
    let reading = Reading {
        lines: Lines::new(pieces),
        unreadable: 0,
        file,
        framed,
    };
    stream::unfold(reading, |mut reading| async move {
        let item = reading.next().await?;
        Some((item, reading))
    })
}

/// The `custom_id`s of an input file. It is our own, so each line is readable.
pub(super) fn input_lines(
    pieces: Pieces,
) -> impl Stream<Item = Result<String, ProviderError>> + Send + 'static {
    #[derive(Deserialize)]
    struct Named {
        custom_id: String,
    }
    stream::unfold(Lines::new(pieces), |mut lines| async move {
        let id = match lines.next().await? {
            Err(error) => Err(error),
            Ok(Line::TooLong) => Err(ProviderError::Malformed("an endless line".to_owned())),
            Ok(Line::Whole(line) | Line::Unended(line)) => serde_json::from_slice(&line)
                .map(|named: Named| named.custom_id)
                .map_err(|error| ProviderError::Malformed(format!("an input line: {error}"))),
        };
        Some((id, lines))
    })
}

struct Reading {
    lines: Lines,
    unreadable: u64,
    file: String,
    framed: bool,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<ResultLine, ProviderError>> {
        loop {
            let (line, ended) = match self.lines.next().await {
                None => break,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(Line::Whole(line))) => (result(&line), true),
                Some(Ok(Line::Unended(line))) => (result(&line), false),
                Some(Ok(Line::TooLong)) => (None, true),
            };
            match line {
                Some(line) => return Some(Ok(line)),
                None if !ended && !self.framed => {
                    let cut = "the file ends inside a line".to_owned();
                    return Some(Err(ProviderError::Lost(cut)));
                }
                None => self.unreadable += 1,
            }
        }
        if self.unreadable > 0 {
            tracing::warn!(
                file = self.file,
                lines = self.unreadable,
                "a result file has lines that cannot be read"
            );
        }
        None
    }
}

/// `None` where the line names no request.
fn result(line: &Bytes) -> Option<ResultLine> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        custom_id: Cow<'a, str>,
        #[serde(borrow)]
        response: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let outer: Outer = serde_json::from_slice(line).ok()?;
    let answer = outer
        .response
        .and_then(|response| answered(line, response))
        .unwrap_or_else(|| not_run(outer.error));
    Some(ResultLine {
        custom_id: outer.custom_id.into_owned(),
        answer,
    })
}

/// `None` where there is no HTTP status or no body: `status_code:0` has been
/// seen (WIRE.md §1).
fn answered(line: &Bytes, response: &RawValue) -> Option<LineAnswer> {
    #[derive(Deserialize)]
    struct Response<'a> {
        status_code: u16,
        #[serde(default, borrow)]
        request_id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        body: Option<&'a RawValue>,
    }
    let response: Response = serde_json::from_str(response.get()).ok()?;
    let body = response.body?;
    (100..=599)
        .contains(&response.status_code)
        .then(|| LineAnswer::Answered {
            status: response.status_code,
            request: response
                .request_id
                .filter(|id| !id.is_empty())
                .map(Cow::into_owned),
            body: own(line, body.get().as_bytes()),
        })
}

fn own(line: &Bytes, body: &[u8]) -> Bytes {
    if body.len() < COPIED {
        Bytes::copy_from_slice(body)
    } else {
        line.slice_ref(body)
    }
}

fn not_run(error: Option<&RawValue>) -> LineAnswer {
    let error: Value = error
        .and_then(|error| serde_json::from_str(error.get()).ok())
        .unwrap_or_default();
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    LineAnswer::NotRun {
        code: text(&error["code"]).unwrap_or_else(|| NO_ANSWER.to_owned()),
        message: text(&error["message"])
            .or_else(|| text(&error))
            .unwrap_or_default(),
    }
}

/// Lines out of pieces. After an error there is nothing more.
struct Lines {
    pieces: Option<Pieces>,
    splitter: Splitter,
}

impl Lines {
    fn new(pieces: Pieces) -> Lines {
        Lines {
            pieces: Some(pieces),
            splitter: Splitter::new(LONGEST),
        }
    }

    async fn next(&mut self) -> Option<Result<Line, ProviderError>> {
        loop {
            if let Some(line) = self.splitter.next() {
                return Some(Ok(line));
            }
            match self.pieces.as_mut()?.next().await {
                Some(Ok(piece)) => self.splitter.push(piece),
                Some(Err(error)) => {
                    self.pieces = None;
                    return Some(Err(error));
                }
                None => {
                    self.pieces = None;
                    return self.splitter.finish().map(Ok);
                }
            }
        }
    }
}

/// A line that is not blank, without its line break.
#[derive(Debug, PartialEq)]
enum Line {
    Whole(Bytes),
    /// The last of a file, without a line break behind it.
    Unended(Bytes),
    /// Longer than the bound, and skipped.
    TooLong,
}

/// Splits at line breaks, however the bytes come. Holds less than one line and
/// one piece; a line that lies within a piece is not copied.
struct Splitter {
    longest: usize,
    piece: Bytes,
    partial: BytesMut,
    skipping: bool,
}

impl Splitter {
    fn new(longest: usize) -> Splitter {
        Splitter {
            longest,
            piece: Bytes::new(),
            partial: BytesMut::new(),
            skipping: false,
        }
    }

    /// Only once `next` has nothing more.
    fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty());
        self.piece = piece;
    }

    fn next(&mut self) -> Option<Line> {
        while let Some(length) = self.piece.iter().position(|&byte| byte == b'\n') {
            let end = self.piece.split_to(length);
            self.piece.advance(1);
            let too_long = self.skipping || self.partial.len() + end.len() > self.longest;
            self.skipping = false;
            if too_long {
                self.partial.clear();
                return Some(Line::TooLong);
            }
            let line = if self.partial.is_empty() {
                end
            } else {
                self.partial.extend_from_slice(&end);
                self.partial.split().freeze()
            };
            if let Some(line) = not_blank(line) {
                return Some(Line::Whole(line));
            }
        }
        let rest = std::mem::take(&mut self.piece);
        if self.partial.len() + rest.len() > self.longest {
            self.partial = BytesMut::new();
            self.skipping = true;
        }
        if !self.skipping {
            self.partial.extend_from_slice(&rest);
        }
        None
    }

    fn finish(&mut self) -> Option<Line> {
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        not_blank(self.partial.split().freeze()).map(Line::Unended)
    }
}

fn not_blank(line: Bytes) -> Option<Bytes> {
    let trimmed = line.trim_ascii();
    (!trimmed.is_empty()).then(|| line.slice_ref(trimmed))
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    fn read(line: &'static str) -> Option<LineAnswer> {
        result(&Bytes::from_static(line.as_bytes())).map(|line| {
            assert_eq!(line.custom_id, "a");
            line.answer
        })
    }

    fn no_run(code: &str, message: &str) -> Option<LineAnswer> {
        Some(LineAnswer::NotRun {
            code: code.to_owned(),
            message: message.to_owned(),
        })
    }

    #[test]
    fn a_body_is_kept_byte_for_byte() {
        let line = r#"{"id":"batch_req_1","custom_id":"a","response":{"status_code":200,"request_id":"r","body": {"b" : 1.10,"a":[1e400, "\u00e9\ud83d"], "b":2} },"error":null}"#;
        assert_eq!(
            read(line),
            Some(LineAnswer::Answered {
                status: 200,
                request: Some("r".to_owned()),
                body: Bytes::from_static(br#"{"b" : 1.10,"a":[1e400, "\u00e9\ud83d"], "b":2}"#),
            })
        );
    }

    #[test]
    fn a_long_body_is_not_copied() {
        let body = format!("\"{}\"", "x".repeat(COPIED));
        let line = Bytes::from(format!(
            r#"{{"custom_id":"a","response":{{"status_code":200,"body":{body}}}}}"#
        ));
        let Some(LineAnswer::Answered { body: read, .. }) = result(&line).map(|line| line.answer)
        else {
            panic!("no answer");
        };
        assert_eq!(read, body);
        assert!(line.as_ptr_range().contains(&read.as_ptr()));
    }

    #[test]
    fn http_failures_are_answers() {
        let line = r#"{"custom_id":"a","response":{"status_code":429,"request_id":"","body":{"error":{}}},"error":null}"#;
        assert_eq!(
            read(line),
            Some(LineAnswer::Answered {
                status: 429,
                request: None,
                body: Bytes::from_static(br#"{"error":{}}"#),
            })
        );
    }

    #[test]
    fn what_holds_no_answer_was_not_run() {
        for (line, code, message) in [
            (
                r#"{"custom_id":"a","response":null,"error":{"code":"batch_expired","message":"late"}}"#,
                "batch_expired",
                "late",
            ),
            (
                r#"{"custom_id":"a","response":null,"error":{"code":null}}"#,
                NO_ANSWER,
                "",
            ),
            (
                r#"{"custom_id":"a","response":null,"error":"bad"}"#,
                NO_ANSWER,
                "bad",
            ),
            (r#"{"custom_id":"a","error":{"code":17}}"#, "17", ""),
            (r#"{"custom_id":"a"}"#, NO_ANSWER, ""),
            (
                r#"{"custom_id":"a","response":{"status_code":0,"request_id":null,"body":{}},"error":null}"#,
                NO_ANSWER,
                "",
            ),
            (
                r#"{"custom_id":"a","response":{"status_code":200,"body":null},"error":null}"#,
                NO_ANSWER,
                "",
            ),
            (
                r#"{"custom_id":"a","response":{"status_code":200},"error":null}"#,
                NO_ANSWER,
                "",
            ),
            (
                r#"{"custom_id":"a","response":{"status_code":-1,"body":{}}}"#,
                NO_ANSWER,
                "",
            ),
            (r#"{"custom_id":"a","response":"?"}"#, NO_ANSWER, ""),
        ] {
            assert_eq!(read(line), no_run(code, message), "{line}");
        }
    }

    #[test]
    fn lines_without_a_name_are_unreadable() {
        for line in [
            "{}",
            "[]",
            r#"{"custom_id":1}"#,
            r#"{"custom_id":"a""#,
            "\u{0}",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    fn pieces(pieces: Vec<Result<Bytes, ProviderError>>) -> Pieces {
        stream::iter(pieces).boxed()
    }

    #[tokio::test]
    async fn a_harvest_passes_over_what_it_cannot_read() {
        let text = "\r\n{\"custom_id\":\"1\"}\r\nnonsense\n \n{\"custom_id\":\"2\"}";
        let ids: Vec<String> = results(
            pieces(vec![Ok(Bytes::from_static(text.as_bytes()))]),
            "file-1".to_owned(),
            true,
        )
        .map_ok(|line| line.custom_id)
        .try_collect()
        .await
        .unwrap();
        assert_eq!(ids, ["1", "2"]);
    }

    #[tokio::test]
    async fn a_cut_is_the_last_item() {
        let cut = ProviderError::Lost("cut".to_owned());
        let lines = pieces(vec![
            Ok(Bytes::from_static(
                b"{\"custom_id\":\"1\"}\n{\"custom_id\":\"2\"}",
            )),
            Err(cut),
        ]);
        let items: Vec<_> = results(lines, "file-1".to_owned(), true).collect().await;
        assert_eq!(items.len(), 2, "{items:?}");
        assert_eq!(items[0].as_ref().unwrap().custom_id, "1");
        assert!(matches!(items[1], Err(ProviderError::Lost(_))));
    }

    #[tokio::test]
    async fn without_framing_half_a_line_is_a_cut() {
        for (framed, items) in [(true, 1), (false, 2)] {
            let lines = pieces(vec![Ok(Bytes::from_static(
                b"{\"custom_id\":\"1\"}\n{\"custom_id\":\"2\",\"resp",
            ))]);
            let read: Vec<_> = results(lines, "file-1".to_owned(), framed).collect().await;
            assert_eq!(read.len(), items);
            assert_eq!(read.last().unwrap().is_err(), !framed);
        }
    }

    #[tokio::test]
    async fn an_input_file_gives_its_ids_in_order() {
        let lines = pieces(vec![
            Ok(Bytes::from_static(b"{\"custom_id\":\"b\",\"method\"")),
            Ok(Bytes::from_static(
                b":\"POST\"}\n{\"custom_id\":\"a\"}\n{}\n",
            )),
        ]);
        let ids: Vec<_> = input_lines(lines).collect().await;
        assert_eq!(ids[0].as_ref().unwrap(), "b");
        assert_eq!(ids[1].as_ref().unwrap(), "a");
        assert!(matches!(ids[2], Err(ProviderError::Malformed(_))));
    }

    fn split(text: &[u8], longest: usize, cuts: &[usize]) -> Vec<Line> {
        let mut splitter = Splitter::new(longest);
        let mut text = Bytes::copy_from_slice(text);
        let mut lines = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while !text.is_empty() {
            let length = cuts.next().map_or(text.len(), |&cut| cut.min(text.len()));
            splitter.push(text.split_to(length));
            lines.extend(std::iter::from_fn(|| splitter.next()));
        }
        lines.extend(splitter.finish());
        lines
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_lines(
            text in "[ab\r\n ]{0,80}",
            longest in 1usize..12,
            cuts in prop::collection::vec(1usize..9, 1..6),
        ) {
            let expected: Vec<Line> = text
                .split_inclusive('\n')
                .filter_map(|line| {
                    let content = line.strip_suffix('\n').unwrap_or(line);
                    let trimmed = content.trim_matches(|c: char| c.is_ascii_whitespace());
                    if content.len() > longest {
                        Some(Line::TooLong)
                    } else if trimmed.is_empty() {
                        None
                    } else if content.len() == line.len() {
                        Some(Line::Unended(Bytes::copy_from_slice(trimmed.as_bytes())))
                    } else {
                        Some(Line::Whole(Bytes::copy_from_slice(trimmed.as_bytes())))
                    }
                })
                .collect();
            let lines = split(text.as_bytes(), longest, &cuts);
            prop_assert_eq!(&lines, &expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]
        #[test]
        fn fifty_thousand_lines_in_pieces(cuts in prop::collection::vec(1usize..40_000, 1..50)) {
            let mut text = String::new();
            for line in 0..50_000 {
                text += &format!(
                    "{{\"custom_id\":\"{line}\",\"response\":{{\"status_code\":200,\"body\":{{\"n\":{line}}}}}}}\n"
                );
            }
            let mut text = Bytes::from(text);
            let mut chunks = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !text.is_empty() {
                let length = cuts.next().map_or(text.len(), |&cut| cut.min(text.len()));
                chunks.push(Ok(text.split_to(length)));
            }
            let lines = results(pieces(chunks), "file-1".to_owned(), true);
            let lines: Vec<_> = futures_util::FutureExt::now_or_never(lines.collect())
                .expect("nothing to wait for");
            prop_assert_eq!(lines.len(), 50_000);
            for (number, line) in lines.into_iter().enumerate() {
                let line = line.expect("a readable line");
                prop_assert_eq!(line.custom_id, number.to_string());
                prop_assert_eq!(line.answer, LineAnswer::Answered {
                    status: 200,
                    request: None,
                    body: format!("{{\"n\":{number}}}").into(),
                });
            }
        }
    }
}
