//! The output file: OpenAI's batch output lines, in the order of the input.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    index::Standing,
    input::{Call, Input},
    journal::{Ended, Record, directory},
    run::Run,
};
use crate::model::endpoint::Endpoint;

/// Writes it beside its place and renames it there when it is whole.
///
/// # Errors
/// Of the disk; where a line has no answer, or is another than was sent.
pub fn write(run: &Run, input: &Input, bare: Option<Endpoint>, out: &Path) -> io::Result<()> {
    let directory = directory(out);
    let temporary = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(&directory)?;
    let mut writer = BufWriter::with_capacity(1 << 16, temporary);
    let mut lines = input.lines()?;
    while let Some((number, text)) = lines.next()? {
        let Standing::Ended(place) = run.index.standing(number)? else {
            return Err(io::Error::other("a line without an answer"));
        };
        let call = Call::parse(text, bare).map_err(io::Error::other)?;
        let record = run.journal.read(place)?;
        let Record::Ended(ended) = serde_json::from_slice(&record)? else {
            return Err(io::Error::other("the journal has another record there"));
        };
        let key = run.header.idempotency_key(number);
        serde_json::to_writer(&mut writer, &Line::of(call, number, &ended, &key))?;
        writer.write_all(b"\n")?;
    }
    let temporary = writer.into_inner().map_err(|error| error.into_error())?;
    temporary.as_file().sync_all()?;
    temporary.persist(out)?;
    File::open(directory)?.sync_all()
}

#[derive(Serialize)]
struct Line<'a> {
    id: Cow<'a, str>,
    custom_id: Cow<'a, str>,
    response: Option<Response<'a>>,
    error: Option<Error<'a>>,
}

#[derive(Serialize)]
struct Response<'a> {
    status_code: u16,
    request_id: Option<&'a str>,
    body: &'a RawValue,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'static str,
    message: &'a str,
}

impl<'a> Line<'a> {
    /// `unnamed` is the id of a line that the server did not take.
    fn of(call: Call<'a>, number: u64, ended: &'a Ended<'_>, unnamed: &'a str) -> Line<'a> {
        let response = Response {
            status_code: ended.status,
            request_id: ended.request_id.as_deref(),
            body: &ended.body,
        };
        let named = || format!("line-{}", number + 1).into();
        Line {
            id: ended.id.map_or(unnamed.into(), |id| id.to_string().into()),
            custom_id: call.custom_id.unwrap_or_else(named),
            response: ended.error.is_none().then_some(response),
            error: ended.error.as_deref().map(|message| Error {
                code: "request_erased",
                message,
            }),
        }
    }
}
