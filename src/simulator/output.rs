//! Output and error files. They are not stored: each line is made again from the
//! input file when it is read, the same every time.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::model::time::Timestamp;

use super::{
    answers::{Answer, Endpoint, id},
    blob::Blob,
    error::ApiError,
    faults,
    settings::Settings,
    shapes::{self, Frame},
    validate::{Envelope, Line},
};

/// In [`Run::ends`], for a line that never ends.
pub(super) const NEVER: u64 = u64::MAX;

/// Content is sent in pieces of about this size.
const PIECE: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub(super) enum Content {
    Stored(Arc<Blob>),
    Made(Arc<Made>),
}

/// One of the two files of a batch.
#[derive(Debug)]
pub(super) struct Made {
    pub run: Arc<Run>,
    pub settings: Arc<Settings>,
    /// Which lines, in file order.
    pub lines: Vec<(u32, Ending)>,
    pub len: OnceLock<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Answered,
    /// `status_code: 0` and an empty body.
    Zero,
    Failed,
    NotRun(&'static str),
}

/// A batch that passed validation.
#[derive(Debug)]
pub(super) struct Run {
    pub batch: String,
    pub endpoint: String,
    pub input: Arc<Blob>,
    pub lines: Vec<Line>,
    pub began: Timestamp,
    /// Milliseconds from `began` to each line's end; [`NEVER`] if it does not.
    pub ends: Vec<u64>,
}

impl Content {
    /// Bytes; for a made file this makes all of it, once.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Content::Stored(blob) => Ok(blob.len()),
            Content::Made(made) => {
                if let Some(len) = made.len.get() {
                    return Ok(*len);
                }
                let mut len = 0;
                for at in 0..made.lines.len() {
                    len += made.line(at)?.len() as u64;
                }
                Ok(*made.len.get_or_init(|| len))
            }
        }
    }

    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::try_unfold((self, 0u64), |(content, at)| async move {
            let (piece, next) = match &content {
                Content::Stored(blob) => {
                    let piece = blob.read(at, PIECE)?;
                    let next = at + piece.len() as u64;
                    (piece, next)
                }
                Content::Made(made) => made.piece(at)?,
            };
            Ok((!piece.is_empty()).then_some((piece, (content, next))))
        })
    }
}

#[derive(Serialize)]
struct OutputLine<'a> {
    id: String,
    custom_id: &'a RawValue,
    response: Option<OutputResponse>,
    error: Option<Value>,
}

#[derive(Serialize)]
struct OutputResponse {
    status_code: u16,
    request_id: String,
    body: Box<RawValue>,
}

impl Made {
    fn piece(&self, from: u64) -> io::Result<(Bytes, u64)> {
        let (mut piece, mut at) = (String::new(), from);
        while piece.len() < PIECE && (at as usize) < self.lines.len() {
            piece.push_str(&self.line(at as usize)?);
            at += 1;
        }
        Ok((piece.into(), at))
    }

    /// The `at`th line of the file, with its newline.
    fn line(&self, at: usize) -> io::Result<String> {
        let (index, ending) = self.lines[at];
        let line = &self.run.lines[index as usize];
        let bytes = self.run.input.read(line.offset, line.len as usize)?;
        let envelope: Envelope = serde_json::from_slice(&bytes)?;
        let (Some(custom_id), Some(body)) = (envelope.custom_id, envelope.body) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let run = format!("{} {index}", self.run.batch);
        let seed = self.settings.seed;
        let respond = |status_code: u16, body: &Value| -> io::Result<OutputResponse> {
            Ok(OutputResponse {
                status_code,
                request_id: id("req_", seed, &run),
                body: to_raw_value(body)?,
            })
        };
        let (response, error) = match ending {
            Ending::Answered => {
                let ended = self.run.ends[index as usize];
                let created = self.run.began + std::time::Duration::from_millis(ended);
                let frame = Frame {
                    run: &run,
                    seed,
                    created: created.as_secs(),
                    tier: "default",
                };
                (Some(respond(200, &self.answer(body, &frame)?)?), None)
            }
            Ending::Zero => (Some(respond(0, &json!({}))?), None),
            Ending::Failed => {
                let error = self.failure(line.status, body);
                (Some(respond(line.status, &error.body())?), None)
            }
            Ending::NotRun(code) => (None, Some(not_run(code))),
        };
        let line = OutputLine {
            id: id("batch_req_", seed, &run),
            custom_id,
            response,
            error,
        };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        Ok(text)
    }

    fn answer(&self, body: &RawValue, frame: &Frame) -> io::Result<Value> {
        let endpoint = Endpoint::of_path(&self.run.endpoint).ok_or(io::ErrorKind::Unsupported)?;
        let answer = Answer::to(endpoint, body.get(), &self.settings)
            .map_err(|error| io::Error::other(error.message))?;
        Ok(shapes::whole(&answer, frame))
    }

    fn failure(&self, status: u16, body: &RawValue) -> ApiError {
        let Some(endpoint) = Endpoint::of_path(&self.run.endpoint) else {
            let message = "The simulator does not answer this endpoint.";
            return ApiError::new(faults::status(status), None, message);
        };
        match Answer::to(endpoint, body.get(), &self.settings) {
            Err(error) => error,
            Ok(_) => ApiError::scripted(faults::status(status)),
        }
    }
}

fn not_run(code: &str) -> Value {
    let message = match code {
        "batch_expired" => {
            "This request could not be executed before the completion window expired."
        }
        _ => "This request was not executed because the batch was cancelled.",
    };
    json!({"code": code, "message": message})
}
