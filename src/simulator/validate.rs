//! Reading a batch's input file: every line checked, one bad line fails the
//! batch (WIRE.md §1).

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    answers::{Answer, Endpoint, Usage},
    blob::Blob,
    body::{Body, Directive, text_of},
    log::Note,
    settings::Settings,
};

/// The endpoints that a batch may name.
pub(super) const ENDPOINTS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
];

/// One entry of `errors.data`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LineError {
    pub code: String,
    /// 1-based.
    pub line: Option<u64>,
    pub message: String,
    pub param: Option<String>,
}

/// A line as it stands in the file.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub custom_id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    pub body: Option<&'a RawValue>,
}

/// A valid line: where it stands, and what will become of it.
#[derive(Debug)]
pub(super) struct Line {
    pub offset: u64,
    pub len: u32,
    pub fingerprint: u128,
    pub usage: Usage,
    /// The HTTP status that it ends with.
    pub status: u16,
    pub steer: Option<Box<Directive>>,
}

#[derive(Debug, Default)]
pub(super) struct Scan {
    pub model: Option<String>,
    pub lines: Vec<Line>,
    /// What the log keeps, with the custom id, in line order.
    pub notes: Vec<(Box<str>, Note)>,
    pub prompt_tokens: u64,
}

/// Checks the whole file; at most `errors_reported` errors come back.
pub(super) fn scan(
    input: &Arc<Blob>,
    endpoint: &str,
    settings: &Settings,
) -> io::Result<Result<Scan, Vec<LineError>>> {
    let mut scanner = Scanner {
        endpoint,
        settings,
        scan: Scan::default(),
        errors: Vec::new(),
        custom_ids: HashSet::new(),
        inputs: 0,
    };
    let mut reader = BufReader::with_capacity(1 << 16, input.reader());
    let (mut buffer, mut offset, mut number) = (Vec::new(), 0, 0);
    // A blank line is bad only if another line follows it.
    let mut blank = None;
    loop {
        buffer.clear();
        let read = reader.read_until(b'\n', &mut buffer)?;
        if read == 0 {
            break;
        }
        number += 1;
        if buffer.trim_ascii().is_empty() {
            blank = blank.or(Some(number));
        } else {
            if let Some(number) = blank.take() {
                scanner.fail(number, bad_json());
            }
            scanner.line(number, &buffer, offset);
        }
        offset += read as u64;
        if scanner.errors.len() >= settings.limits.errors_reported {
            break;
        }
    }
    Ok(scanner.finish())
}

/// What `POST /v1/files` checks at once: something is there, and its first line is
/// a JSON object.
pub(super) fn check_upload(input: &Arc<Blob>) -> io::Result<Result<(), &'static str>> {
    let mut first = Vec::new();
    BufReader::new(input.reader()).read_until(b'\n', &mut first)?;
    if input.len() == 0 {
        return Ok(Err("File is empty."));
    }
    let parsed = serde_json::from_slice::<Envelope>(&first);
    Ok(parsed
        .map(|_| ())
        .map_err(|_| "Invalid file format: line 1 is not a JSON object."))
}

struct Scanner<'a> {
    endpoint: &'a str,
    settings: &'a Settings,
    scan: Scan,
    errors: Vec<LineError>,
    custom_ids: HashSet<Box<str>>,
    inputs: u64,
}

type Fault = (&'static str, Option<&'static str>, String);

fn bad_json() -> Fault {
    let message = "This line is not parseable as valid JSON.";
    ("invalid_json_line", None, message.to_owned())
}

fn missing(param: &'static str) -> Fault {
    let message = format!("Missing required parameter: '{param}'.");
    ("missing_required_parameter", Some(param), message)
}

fn invalid(param: &'static str, message: &str) -> Fault {
    ("invalid_request", Some(param), message.to_owned())
}

impl Scanner<'_> {
    fn fail(&mut self, line: u64, (code, param, message): Fault) {
        if self.errors.len() < self.settings.limits.errors_reported {
            self.errors.push(LineError {
                code: code.to_owned(),
                line: Some(line),
                message,
                param: param.map(str::to_owned),
            });
        }
    }

    fn line(&mut self, number: u64, bytes: &[u8], offset: u64) {
        if let Err(fault) = self.check(bytes, offset) {
            self.fail(number, fault);
        }
    }

    fn check(&mut self, bytes: &[u8], offset: u64) -> Result<(), Fault> {
        let text = std::str::from_utf8(bytes).map_err(|_| bad_json())?;
        let envelope: Envelope = serde_json::from_str(text).map_err(|_| bad_json())?;
        let raw_id = envelope.custom_id.ok_or_else(|| missing("custom_id"))?;
        let custom_id = text_of(raw_id)
            .ok_or_else(|| invalid("custom_id", "'custom_id' must be a string."))?
            .into_boxed_str();
        let method = envelope.method.ok_or_else(|| missing("method"))?;
        if method.get() != "\"POST\"" {
            return Err(invalid("method", "'method' must be 'POST'."));
        }
        let url = envelope.url.ok_or_else(|| missing("url"))?;
        let url = text_of(url).unwrap_or_default();
        if url != self.endpoint {
            let message = format!(
                "The URL '{url}' does not match the batch's endpoint '{}'.",
                self.endpoint
            );
            return Err(("invalid_url", Some("url"), message));
        }
        let raw = envelope.body.ok_or_else(|| missing("body"))?.get();
        let body = Body::parse(raw).map_err(|_| invalid("body", "'body' must be an object."))?;
        self.check_body(&body)?;
        if !self.custom_ids.insert(custom_id.clone()) {
            let message = format!("The custom_id '{custom_id}' is used more than once.");
            return Err(("duplicate_custom_id", Some("custom_id"), message));
        }
        self.accept(raw, &body, custom_id, bytes.len(), offset);
        Ok(())
    }

    fn check_body(&mut self, body: &Body) -> Result<(), Fault> {
        if body.is_true("stream") {
            let message = "Streaming is not supported in batch requests.";
            return Err((
                "streaming_unsupported",
                Some("body.stream"),
                message.to_owned(),
            ));
        }
        if body.directive().invalid {
            let message = "The simulator was told to find this line invalid.";
            return Err(("invalid_value", Some("body.metadata"), message.to_owned()));
        }
        let model = body.text("model").ok_or_else(|| missing("body.model"))?;
        if !self.settings.models.contains_key(&model) {
            let message =
                format!("The model '{model}' does not exist or cannot be used in batches.");
            return Err(("model_not_found", Some("body.model"), message));
        }
        let first = self.scan.model.get_or_insert_with(|| model.clone());
        if *first != model {
            let message = format!("The model '{model}' is not the batch's model '{first}'.");
            return Err(("model_mismatch", Some("body.model"), message));
        }
        Ok(())
    }

    fn accept(&mut self, raw: &str, body: &Body, custom_id: Box<str>, len: usize, offset: u64) {
        // Images and videos are taken but not answered.
        let answer = Endpoint::of_path(self.endpoint)
            .map(|endpoint| Answer::to_body(endpoint, body.clone(), self.settings));
        let (fingerprint, usage, status, steer, questions) = match answer {
            Some(Ok(answer)) => {
                self.inputs += answer.questions.len() as u64;
                let status = answer.directive.status.unwrap_or(200);
                (
                    answer.fingerprint,
                    answer.usage,
                    status,
                    answer.directive,
                    answer.questions,
                )
            }
            refused => {
                let error = refused.and_then(Result::err);
                let status = error.map_or(400, |error| error.status.as_u16());
                let usage = Usage::default();
                (
                    body.fingerprint(),
                    usage,
                    status,
                    body.directive(),
                    body.questions(),
                )
            }
        };
        self.scan.prompt_tokens += body.prompt_tokens();
        if self.settings.log_requests {
            let kept = self.settings.keep_bodies.then_some(raw);
            let note = Note::of(fingerprint, &questions, kept);
            self.scan.notes.push((custom_id, note));
        }
        self.scan.lines.push(Line {
            offset,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            fingerprint,
            usage,
            status,
            steer: (steer != Directive::default()).then(|| Box::new(steer)),
        });
    }

    fn finish(mut self) -> Result<Scan, Vec<LineError>> {
        let limits = &self.settings.limits;
        let whole = |code: &str, message: String| LineError {
            code: code.to_owned(),
            line: None,
            message,
            param: None,
        };
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        if self.scan.lines.is_empty() {
            self.errors
                .push(whole("empty_file", "The input file is empty.".to_owned()));
        } else if self.scan.lines.len() > limits.batch_lines {
            let message = format!("A batch may have at most {} requests.", limits.batch_lines);
            self.errors.push(whole("invalid_request", message));
        } else if self.endpoint == "/v1/embeddings" && self.inputs > limits.embedding_inputs {
            let message = format!("At most {} inputs a batch.", limits.embedding_inputs);
            self.errors.push(whole("invalid_request", message));
        }
        if self.errors.is_empty() {
            Ok(self.scan)
        } else {
            Err(self.errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<(String, Option<u64>)> {
        let blob = Arc::new(Blob::Memory(text.to_owned().into()));
        let settings = Settings::default();
        match scan(&blob, "/v1/chat/completions", &settings).unwrap() {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(|e| (e.code, e.line)).collect(),
        }
    }

    fn line(id: &str, more: &str) -> String {
        format!(
            r#"{{"custom_id":"{id}","method":"POST","url":"/v1/chat/completions","body":{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"x"}}]{more}}}}}"#
        )
    }

    #[test]
    fn every_code_of_the_wire_document() {
        let good = line("a", "");
        let url = r#"{"custom_id":"b","method":"POST","url":"/v1/embeddings","body":{}}"#;
        let other = r#"{"custom_id":"b","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4.1"}}"#;
        let unknown = other.replace("gpt-4.1", "gpt-nope");
        let no_body = r#"{"custom_id":"b","method":"POST","url":"/v1/chat/completions"}"#;
        let get = line("b", "").replace("POST", "GET");
        for (second, code) in [
            ("{oops", "invalid_json_line"),
            ("[1]", "invalid_json_line"),
            (r#"{"method":"POST"}"#, "missing_required_parameter"),
            (no_body, "missing_required_parameter"),
            (url, "invalid_url"),
            (&line("b", r#","stream":true"#), "streaming_unsupported"),
            (&unknown, "model_not_found"),
            (other, "model_mismatch"),
            (&get, "invalid_request"),
            (&line("a", ""), "duplicate_custom_id"),
        ] {
            let errors = codes(&format!("{good}\n{second}\n"));
            assert_eq!(errors, [(code.to_owned(), Some(2))], "{second}");
        }
        assert_eq!(codes("\n \n"), [("empty_file".to_owned(), None)]);
        assert_eq!(codes(&format!("{good}\n\n{}\n", line("b", ""))).len(), 1);
        assert_eq!(codes(&format!("{good}\n{}\n\n", line("b", ""))), []);
    }

    #[test]
    fn errors_stop_at_a_handful() {
        assert_eq!(codes(&"{\n".repeat(500)).len(), 10);
    }

    #[test]
    fn odd_numbers_and_surrogates_are_valid_lines() {
        let odd = r#","x":1e400,"y":0.100000000000000000000000000001,"z":"\ud800\u0000""#;
        assert_eq!(codes(&line("a", odd)), []);
    }
}
