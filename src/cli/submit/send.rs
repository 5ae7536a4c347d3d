//! Sends what the server does not have yet.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::{
    End,
    caller::{Caller, Line, Sent, Terms},
    index::Standing,
    input::{Call, Input, Lines},
    progress::Progress,
    run::Run,
};
use crate::model::endpoint::Endpoint;

/// Bodies on their way, unless one alone has more.
const MOST_BYTES: usize = 64 << 20;

/// Every line once, however often this is interrupted: what was sent and not written down
/// is sent again with the same `Idempotency-Key`.
///
/// Of each endpoint one line goes alone until one is taken: a server that answers it at
/// once instead has sold no more than that.
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
    let (mut taken_at, mut waiting) = (Vec::new(), None);
    loop {
        while ended.is_none()
            && !all_read
            && under_way.len() < concurrency
            && (bytes < MOST_BYTES || under_way.is_empty())
        {
            let next = match waiting.take() {
                Some(line) => Ok(Some(line)),
                None => next_unsent(&mut lines, run, bare),
            };
            let line = match next {
                Ok(Some(line)) => line,
                Ok(None) => {
                    all_read = true;
                    break;
                }
                Err(error) => {
                    ended = Some(End::Io(error));
                    break;
                }
            };
            let goes_alone = !taken_at.contains(&line.endpoint);
            if goes_alone && !under_way.is_empty() {
                waiting = Some(line);
                break;
            }
            bytes += line.body.len();
            under_way.push(async move {
                let sent = caller.send(&line, terms).await;
                (line, sent)
            });
            if goes_alone {
                break;
            }
        }
        let Some((line, sent)) = under_way.next().await else {
            break;
        };
        bytes -= line.body.len();
        match sent {
            Sent::Taken(id) => {
                run.taken(line.number, id)?;
                if !taken_at.contains(&line.endpoint) {
                    taken_at.push(line.endpoint);
                }
            }
            Sent::Refused(status, body) => run.refused(line.number, status, body)?,
            // The first reason is told; what comes after is its consequence.
            Sent::Halted(why) => ended = ended.or(Some(End::Halted(why))),
            Sent::Over(over) => ended = ended.or(Some(End::Over(over))),
        }
        progress.show(run);
    }
    run.journal.sync()?;
    ended.map_or(Ok(()), Err)
}

fn next_unsent(
    lines: &mut Lines<'_>,
    run: &Run,
    bare: Option<Endpoint>,
) -> io::Result<Option<Line>> {
    while let Some((number, text)) = lines.next()? {
        if run.index.standing(number)? != Standing::Unsent {
            continue;
        }
        let call = Call::parse(text, bare).map_err(io::Error::other)?;
        return Ok(Some(Line {
            number,
            endpoint: call.endpoint,
            body: Bytes::copy_from_slice(call.body.as_bytes()),
            idempotency_key: run.header.idempotency_key(number),
        }));
    }
    Ok(None)
}
