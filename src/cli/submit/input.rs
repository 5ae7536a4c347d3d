//! The input file: OpenAI's batch lines, or bare bodies, one a line.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::model::endpoint::Endpoint;

/// Longer lines are refused: no server takes such a body.
const LONGEST: u64 = 64 << 20;

/// A file whose every line can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub path: PathBuf,
    /// BLAKE3 of all its bytes, in hex.
    pub digest: String,
    /// Lines that are not blank.
    pub lines: u64,
}

#[derive(Debug, Error)]
pub enum BadInput {
    #[error("{}: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}, line {line}: {why} (nothing was sent)", .path.display())]
    Line {
        path: PathBuf,
        /// From 1, blank lines counted, as editors do.
        line: u64,
        why: BadLine,
    },
    #[error("{}: there is no line in it", .0.display())]
    Empty(PathBuf),
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadLine {
    #[error("no JSON object: {0}")]
    NoObject(String),
    #[error("more than {} MB", LONGEST >> 20)]
    TooLong,
    #[error("a batch line without a `body` that is an object")]
    NoBody,
    #[error("a batch line without a `url`")]
    NoUrl,
    #[error("method `{0}`: only POST can wait for a batch")]
    Method(String),
    #[error("url `{url}`: calls that can wait go to {paths}", paths = paths())]
    Url { url: String },
    #[error(
        "a body that does not show its endpoint (only `messages` does): say --endpoint, one of {}",
        paths()
    )]
    Ambiguous,
}

fn paths() -> String {
    Endpoint::ALL.map(Endpoint::path).join(", ")
}

impl Input {
    /// Reads all of it once, so that nothing is sent of a file with a bad line.
    ///
    /// # Errors
    /// The first line that cannot be sent, and a file that cannot be read.
    pub fn survey(path: &Path, bare: Option<Endpoint>) -> Result<Input, BadInput> {
        let unreadable = |error| BadInput::Unreadable {
            path: path.to_owned(),
            error,
        };
        let bad = |line, why| BadInput::Line {
            path: path.to_owned(),
            line,
            why,
        };
        let mut lines = Lines::open(path).map_err(unreadable)?;
        let mut hash = blake3::Hasher::new();
        while let Some(length) = lines.advance().map_err(unreadable)? {
            hash.update(&lines.text);
            if length >= LONGEST {
                return Err(bad(lines.physical, BadLine::TooLong));
            }
            if !lines.is_blank() {
                lines.read += 1;
                Call::parse(&lines.text, bare).map_err(|why| bad(lines.physical, why))?;
            }
        }
        if lines.read == 0 {
            return Err(BadInput::Empty(path.to_owned()));
        }
        Ok(Input {
            path: path.to_owned(),
            digest: hash.finalize().to_hex().to_string(),
            lines: lines.read,
        })
    }

    pub fn lines(&self) -> io::Result<Lines> {
        Lines::open(&self.path)
    }
}

/// The lines that are not blank, one at a time.
pub struct Lines {
    file: BufReader<File>,
    text: Vec<u8>,
    physical: u64,
    read: u64,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Lines> {
        Ok(Lines {
            file: BufReader::with_capacity(1 << 16, File::open(path)?),
            text: Vec::new(),
            physical: 0,
            read: 0,
        })
    }

    /// The next line and its number, from 0.
    pub fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        while self.advance()?.is_some() {
            if !self.is_blank() {
                self.read += 1;
                return Ok(Some((self.read - 1, &self.text)));
            }
        }
        Ok(None)
    }

    /// Its bytes; none at the end.
    fn advance(&mut self) -> io::Result<Option<u64>> {
        self.text.clear();
        let mut bounded = (&mut self.file).take(LONGEST);
        let length = bounded.read_until(b'\n', &mut self.text)? as u64;
        self.physical += 1;
        Ok((length > 0).then_some(length))
    }

    fn is_blank(&self) -> bool {
        self.text.trim_ascii().is_empty()
    }
}

/// One line: the call that it asks for.
#[derive(Debug)]
pub struct Call<'a> {
    pub custom_id: Option<Cow<'a, str>>,
    pub endpoint: Endpoint,
    /// As it stands in the file, byte for byte.
    pub body: &'a str,
}

/// What tells a batch line from a bare body.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    custom_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
}

impl<'a> Call<'a> {
    /// `bare` is the endpoint of lines that are bodies and nothing else.
    ///
    /// # Errors
    /// What is neither, and what no batch takes: it would be bought at full price.
    pub fn parse(line: &'a [u8], bare: Option<Endpoint>) -> Result<Call<'a>, BadLine> {
        let no_object = |error: &dyn std::fmt::Display| BadLine::NoObject(error.to_string());
        let text = std::str::from_utf8(line.trim_ascii()).map_err(|error| no_object(&error))?;
        // A list would be read as the fields in their order.
        if !text.starts_with('{') {
            return Err(no_object(&"it does not begin with `{`"));
        }
        let shape: Shape<'a> = serde_json::from_str(text).map_err(|error| no_object(&error))?;
        let is_line = shape.body.is_some() || shape.method.is_some() || shape.url.is_some();
        if !is_line {
            return Ok(Call {
                custom_id: None,
                endpoint: bare.or_else(|| shape.shown()).ok_or(BadLine::Ambiguous)?,
                body: text,
            });
        }
        let body = shape.body.map(RawValue::get);
        let body = body.filter(|body| body.starts_with('{'));
        let body = body.ok_or(BadLine::NoBody)?;
        if let Some(method) = shape.method.filter(|method| method != "POST") {
            return Err(BadLine::Method(method.into_owned()));
        }
        let url = shape.url.ok_or(BadLine::NoUrl)?;
        let endpoint = Endpoint::from_path(&url).ok_or_else(|| BadLine::Url {
            url: url.into_owned(),
        })?;
        Ok(Call {
            custom_id: shape.custom_id,
            endpoint,
            body,
        })
    }
}

impl Shape<'_> {
    /// `input` is of responses, embeddings and moderations, and `prompt` of images too.
    fn shown(&self) -> Option<Endpoint> {
        let chat = self.messages.is_some() && self.input.is_none() && self.prompt.is_none();
        chat.then_some(Endpoint::ChatCompletions)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(line: &str, bare: Option<Endpoint>) -> Result<(String, Endpoint, String), BadLine> {
        let call = Call::parse(line.as_bytes(), bare)?;
        let name = call.custom_id.unwrap_or_default().into_owned();
        Ok((name, call.endpoint, call.body.to_owned()))
    }

    #[test]
    fn a_batch_line_is_its_body_byte_for_byte() {
        let body = r#"{"model": "m",  "messages":[],"seed":1e400,"n":0.10}"#;
        let line = format!(
            r#"{{"custom_id":"a\"b","method":"POST","url":"/v1/chat/completions","body":{body}}}"#
        );
        let expected = ("a\"b".into(), Endpoint::ChatCompletions, body.into());
        assert_eq!(parse(&line, None), Ok(expected));
    }

    #[test]
    fn a_bare_body_shows_its_endpoint_or_is_told() {
        let chat = r#"{"model":"m","messages":[]}"#;
        let told = |line: &str, bare| parse(line, bare).map(|(_, endpoint, _)| endpoint);
        assert_eq!(told(chat, None), Ok(Endpoint::ChatCompletions));
        for line in [
            r#"{"model":"m","input":"x"}"#,
            r#"{"model":"m","prompt":"x"}"#,
            r#"{"model":"m","messages":[],"input":"x"}"#,
            r#"{"model":"m"}"#,
        ] {
            assert_eq!(told(line, None), Err(BadLine::Ambiguous), "{line}");
            let embeddings = Some(Endpoint::Embeddings);
            assert_eq!(told(line, embeddings), Ok(Endpoint::Embeddings), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let line = |method: &str, url: &str, body: &str| {
            format!(r#"{{"custom_id":"a","method":"{method}","url":"{url}","body":{body}}}"#)
        };
        let chat = "/v1/chat/completions";
        let url = |url: &str| BadLine::Url { url: url.into() };
        let table = [
            (line("POST", chat, "[]"), BadLine::NoBody),
            (line("GET", chat, "{}"), BadLine::Method("GET".into())),
            (
                line("POST", "/v1/images/edits", "{}"),
                url("/v1/images/edits"),
            ),
            (
                line("POST", "/v1/chat/completions/", "{}"),
                url("/v1/chat/completions/"),
            ),
            (r#"{"method":"POST","url":"/v1/x"}"#.into(), BadLine::NoBody),
            (
                r#"{"method":"POST","body":{"model":"m"}}"#.into(),
                BadLine::NoUrl,
            ),
        ];
        for (line, why) in table {
            assert_eq!(parse(&line, None), Err(why), "{line}");
        }
        for line in [
            "[]",
            "1",
            "{",
            r#"{"body":{},"body":{}}"#,
            "{}x",
            "\u{feff}{}",
        ] {
            assert!(
                matches!(parse(line, None), Err(BadLine::NoObject(_))),
                "{line}"
            );
        }
    }

    #[test]
    fn a_file_is_surveyed_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        let chat = r#"{"model":"m","messages":[]}"#;
        fs::write(&path, format!("{chat}\n\n  \r\n{chat}\r\n{chat}")).unwrap();
        let input = Input::survey(&path, None).unwrap();
        assert_eq!(input.lines, 3);
        let mut lines = input.lines().unwrap();
        let mut numbers = Vec::new();
        while let Some((number, text)) = lines.next().unwrap() {
            assert_eq!(text.trim_ascii(), chat.as_bytes());
            numbers.push(number);
        }
        assert_eq!(numbers, [0, 1, 2]);

        fs::write(&path, format!("{chat}\n\nnonsense\n")).unwrap();
        let error = Input::survey(&path, None).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        fs::write(&path, "\n\n").unwrap();
        assert!(matches!(
            Input::survey(&path, None),
            Err(BadInput::Empty(_))
        ));
    }
}
