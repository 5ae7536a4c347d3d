//! The input file: OpenAI's batch lines, or bare bodies, one a line.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::model::endpoint::Endpoint;

/// Longer lines are refused: no server takes such a body.
const LONGEST: u64 = 64 << 20;

/// Of a line's BLAKE3: enough to see that it is the one that was surveyed.
const MARK: usize = 8;

/// A file whose every line can be sent. It is read again while lines are sent, and when
/// their answers are written: each line is then the one that was surveyed, or nothing.
#[derive(Debug)]
pub struct Input {
    pub path: PathBuf,
    /// The one that was surveyed, whatever has its name later.
    file: File,
    /// A mark of each line that is not blank, in a file without a name.
    marks: File,
    /// BLAKE3 of all its bytes, in hex.
    pub digest: String,
    /// Lines that are not blank.
    pub lines: u64,
}

#[derive(Debug, Error)]
pub enum BadInput {
    #[error("{}: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: no regular file: it is read more than once", .0.display())]
    NotRegular(PathBuf),
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
    /// Reads all of it once, so that nothing is sent of a file with a bad line. What is
    /// to be known of its lines later is kept in `dir`, eight bytes each.
    ///
    /// # Errors
    /// The first line that cannot be sent, and a file that cannot be read.
    pub fn survey(path: &Path, bare: Option<Endpoint>, dir: &Path) -> Result<Input, BadInput> {
        let unreadable = |error| BadInput::Unreadable {
            path: path.to_owned(),
            error,
        };
        let bad = |line, why| BadInput::Line {
            path: path.to_owned(),
            line,
            why,
        };
        let unwritable = |error| BadInput::Unreadable {
            path: dir.to_owned(),
            error,
        };
        let file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(BadInput::NotRegular(path.to_owned()));
        }
        let marks = tempfile::tempfile_in(dir).map_err(unwritable)?;
        let mut marked = BufWriter::new(&marks);
        let mut hash = blake3::Hasher::new();
        let mut text = Text::of(&file);
        let mut lines = 0;
        while let Some(length) = text.advance().map_err(unreadable)? {
            hash.update(&text.line);
            if length >= LONGEST {
                return Err(bad(text.number, BadLine::TooLong));
            }
            if !text.is_blank() {
                lines += 1;
                Call::parse(&text.line, bare).map_err(|why| bad(text.number, why))?;
                marked.write_all(&mark(&text.line)).map_err(unwritable)?;
            }
        }
        marked.flush().map_err(unwritable)?;
        drop(marked);
        if lines == 0 {
            return Err(BadInput::Empty(path.to_owned()));
        }
        Ok(Input {
            path: path.to_owned(),
            file,
            marks,
            digest: hash.finalize().to_hex().to_string(),
            lines,
        })
    }

    /// From its beginning; one reader at a time.
    pub fn lines(&self) -> io::Result<Lines<'_>> {
        (&self.file).rewind()?;
        (&self.marks).rewind()?;
        Ok(Lines {
            input: self,
            text: Text::of(&self.file),
            marks: BufReader::new(&self.marks),
            read: 0,
        })
    }

    /// What it had when it was surveyed, it has no more.
    fn changed(&self) -> io::Error {
        io::Error::other(format!(
            "{} was changed while it was in use. Bring back what it was",
            self.path.display()
        ))
    }
}

fn mark(line: &[u8]) -> [u8; MARK] {
    let mut mark = [0; MARK];
    mark.copy_from_slice(&blake3::hash(line).as_bytes()[..MARK]);
    mark
}

/// The lines that are not blank, as they were surveyed.
pub struct Lines<'a> {
    input: &'a Input,
    text: Text<'a>,
    marks: BufReader<&'a File>,
    read: u64,
}

impl Lines<'_> {
    /// The next line and its number, from 0.
    ///
    /// # Errors
    /// Where it is another than was surveyed, or one is missing, or one too many.
    pub fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        while self.text.advance()?.is_some() {
            if self.text.is_blank() {
                continue;
            }
            let mut expected = [0; MARK];
            if self.read == self.input.lines {
                return Err(self.input.changed());
            }
            self.marks.read_exact(&mut expected)?;
            if mark(&self.text.line) != expected {
                return Err(self.input.changed());
            }
            self.read += 1;
            return Ok(Some((self.read - 1, &self.text.line)));
        }
        match self.read == self.input.lines {
            true => Ok(None),
            false => Err(self.input.changed()),
        }
    }
}

/// A file, a line at a time.
struct Text<'a> {
    file: BufReader<&'a File>,
    line: Vec<u8>,
    /// From 1.
    number: u64,
}

impl<'a> Text<'a> {
    fn of(file: &'a File) -> Text<'a> {
        Text {
            file: BufReader::with_capacity(1 << 16, file),
            line: Vec::new(),
            number: 0,
        }
    }

    /// The length of the next line; none at the end.
    fn advance(&mut self) -> io::Result<Option<u64>> {
        self.line.clear();
        let mut bounded = (&mut self.file).take(LONGEST);
        let length = bounded.read_until(b'\n', &mut self.line)? as u64;
        self.number += 1;
        Ok((length > 0).then_some(length))
    }

    fn is_blank(&self) -> bool {
        self.line.trim_ascii().is_empty()
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

    const CHAT: &str = r#"{"model":"m","messages":[]}"#;

    fn read(input: &Input) -> io::Result<Vec<String>> {
        let mut lines = input.lines()?;
        let mut read = Vec::new();
        while let Some((number, text)) = lines.next()? {
            assert_eq!(number, read.len() as u64);
            read.push(String::from_utf8_lossy(text.trim_ascii()).into_owned());
        }
        Ok(read)
    }

    #[test]
    fn a_file_is_surveyed_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        let survey = || Input::survey(&path, None, dir.path());
        fs::write(&path, format!("{CHAT}\n\n  \r\n{CHAT}\r\n{CHAT}")).unwrap();
        let input = survey().unwrap();
        assert_eq!(input.lines, 3);
        assert_eq!(read(&input).unwrap(), [CHAT; 3]);
        assert_eq!(read(&input).unwrap(), [CHAT; 3]);

        fs::write(&path, format!("{CHAT}\n\nnonsense\n")).unwrap();
        let error = survey().unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        fs::write(&path, "\n\n").unwrap();
        assert!(matches!(survey(), Err(BadInput::Empty(_))));
    }

    #[test]
    fn a_line_is_the_one_that_was_surveyed_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        let line = |number| format!(r#"{{"model":"m","messages":[],"seed":{number}}}"#);
        let text = |numbers: &[u32]| -> String {
            numbers.iter().map(|number| line(*number) + "\n").collect()
        };
        fs::write(&path, text(&[1, 2, 3])).unwrap();
        let input = Input::survey(&path, None, dir.path()).unwrap();
        // Swapped, another, cut off, emptied, one more; and what it was.
        for (numbers, whole) in [
            (&[1, 3, 2][..], false),
            (&[1, 2, 4], false),
            (&[1, 2], false),
            (&[], false),
            (&[1, 2, 3, 3], false),
            (&[1, 2, 3], true),
        ] {
            fs::write(&path, text(numbers)).unwrap();
            let read = read(&input);
            assert_eq!(read.is_ok(), whole, "{numbers:?}: {read:?}");
        }
        fs::write(&path, text(&[1, 2, 3]).replace('\n', "\n\n")).unwrap();
        assert!(read(&input).is_ok());
        // Another file of that name is nothing to this run.
        fs::remove_file(&path).unwrap();
        fs::write(&path, text(&[4])).unwrap();
        assert_eq!(read(&input).unwrap().len(), 3);
    }

    #[test]
    fn what_can_be_read_once_only_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Input::survey(Path::new("/dev/null"), None, dir.path());
        assert!(matches!(refused, Err(BadInput::NotRegular(_))));
    }
}
