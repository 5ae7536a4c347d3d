//! Sends what the server does not have yet.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::{
    End,
    caller::{Caller, Line, Sent, Terms},
    index::Standing,
    input::{BadLine, Call, Input, Lines},
    pace::Over,
    progress::Progress,
    run::Run,
};
use crate::model::endpoint::Endpoint;

/// Bodies on their way, unless one alone has more.
const MOST_BYTES: usize = 64 << 20;

/// Every line once, however often this is interrupted: what was sent and not written down
/// is sent again with the same `Idempotency-Key`.
///
/// # Errors
/// What ends the run before all lines are sent. What was under way is seen through.
pub async fn send_all(
    run: &mut Run,
    input: &Input,
    bare: Option<Endpoint>,
    (caller, terms): (&Caller, &Terms),
    concurrency: usize,
    progress: &mut Progress,
) -> Result<(), End> {
    let mut lines = input.lines()?;
    let mut under_way = FuturesUnordered::new();
    let (mut bytes, mut ended, mut all_read) = (0, None, false);
    loop {
        while ended.is_none()
            && !all_read
            && under_way.len() < concurrency
            && (bytes < MOST_BYTES || under_way.is_empty())
        {
            let Some(line) = next_unsent(&mut lines, run, bare)? else {
                all_read = true;
                break;
            };
            bytes += line.body.len();
            under_way.push(async move {
                let sent = caller.send(&line, terms).await;
                (line.number, line.body.len(), sent)
            });
        }
        let Some((line, length, sent)) = under_way.next().await else {
            break;
        };
        bytes -= length;
        match sent {
            Sent::Taken(id) => run.taken(line, id)?,
            Sent::Refused(status, body) => run.refused(line, status, body)?,
            // The first reason is told; what comes after is its consequence.
            Sent::Halted(why) => ended = ended.or(Some(End::Halted(why))),
            Sent::Over(over) => ended = ended.or(Some(End::Over(over))),
        }
        progress.show(run);
    }
    run.journal.sync()?;
    match ended {
        Some(end) => Err(end),
        // A stop between two lines.
        None if !all_read => Err(End::Over(Over::Stopped)),
        None => Ok(()),
    }
}

fn next_unsent(lines: &mut Lines, run: &Run, bare: Option<Endpoint>) -> io::Result<Option<Line>> {
    while let Some((number, text)) = lines.next()? {
        if number >= run.lines() {
            return Err(changed());
        }
        if run.index.standing(number)? != Standing::Unsent {
            continue;
        }
        let call = Call::parse(text, bare).map_err(|_: BadLine| changed())?;
        return Ok(Some(Line {
            number,
            endpoint: call.endpoint,
            body: Bytes::copy_from_slice(call.body.as_bytes()),
            idempotency_key: run.header.idempotency_key(number),
        }));
    }
    Ok(None)
}

/// It was read to its end before.
pub fn changed() -> io::Error {
    io::Error::other("the input file was changed while it was read")
}
