//! Takes the answers from the feed, whatever else ends there.

use std::{borrow::Cow, io, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _},
    time::Instant,
};

use super::{
    End,
    caller::{Caller, Page},
    journal::Ended,
    pace::{Over, Pace},
    progress::Progress,
    run::Run,
};
use crate::{
    app::SystemClock,
    model::{deadline, id::RequestId, time::Timestamp},
    ports::Clock as _,
};

/// A request that somebody erased is in no feed: those that are open long after the
/// deadline are asked for, so many at a time, so often.
const GRACE: Duration = Duration::from_secs(60);
const ASKED: usize = 1000;
const BETWEEN: Duration = Duration::from_secs(600);
/// Requests of all over the run by which a server is recognised: some may have been erased.
pub const SAMPLED: u64 = 16;
const UNKNOWN: &str = "the server knows no request of this run that was asked for: has it another \
                       data directory, or is it another key?";

/// # Errors
/// What ends the run before all lines are answered.
pub async fn collect(run: &mut Run, caller: &Caller, progress: &mut Progress) -> Result<(), End> {
    let mut missing = Missing {
        next: Instant::now(),
        from: 0,
        has_expired: false,
    };
    let mut broken = 0;
    while run.open() > 0 {
        progress.show(run);
        let cursor = run.cursor.clone();
        match caller.feed(cursor.as_deref()).await.map_err(End::Over)? {
            Page::Lines(end, mut page) => {
                match read(run, &mut page, &caller.pace, progress).await? {
                    Read::Whole => {
                        run.go_on_after(&end)?;
                        caller.pace.well();
                        broken = 0;
                    }
                    // What was read stands, and is not asked for again.
                    Read::Broken if run.cursor != cursor => broken = 0,
                    Read::Broken => {
                        caller.pace.lost(broken).map_err(End::Over)?;
                        broken += 1;
                    }
                }
                missing.ask(run, caller).await?;
            }
            // What is kept is read from its beginning.
            Page::Expired => {
                run.cursor = None;
                missing.has_expired = true;
            }
            Page::Foreign => {
                missing.has_expired = false;
                if !caller
                    .knows_any(&run.sample(SAMPLED)?)
                    .await
                    .map_err(End::Over)?
                {
                    return Err(End::Halted(UNKNOWN.into()));
                }
                run.cursor = None;
            }
            Page::Halted(why) => return Err(End::Halted(why)),
        }
    }
    run.journal.sync()?;
    Ok(())
}

/// How a page ended.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Whole,
    /// The connection broke.
    Broken,
}

/// Takes its lines, and has the run go on after each.
async fn read(
    run: &mut Run,
    page: &mut (dyn AsyncBufRead + Send + Unpin),
    pace: &Pace,
    progress: &mut Progress,
) -> Result<Read, End> {
    let (mut text, mut cursor) = (Vec::new(), None);
    let ended = loop {
        text.clear();
        let length = tokio::select! {
            length = page.read_until(b'\n', &mut text) => length,
            () = pace.stop.cancelled() => break Err(End::Over(Over::Stopped)),
        };
        match length {
            Ok(0) => break Ok(Read::Whole),
            Ok(_) if text.ends_with(b"\n") => {}
            Ok(_) | Err(_) => break Ok(Read::Broken),
        }
        pace.well();
        let line: Line<'_> = match serde_json::from_slice(&text) {
            Ok(line) => line,
            Err(error) => {
                let why = format!("the feed has a line that cannot be read: {error}");
                break Err(End::Io(io::Error::other(why)));
            }
        };
        cursor = Some(line.cursor.to_string());
        if let Some(number) = run.index.line_of(line.id)? {
            run.end(&line.ending(number))?;
            progress.show(run);
        }
    };
    if let Some(cursor) = cursor {
        run.go_on_after(&cursor)?;
    }
    ended
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    cursor: Cow<'a, str>,
    id: RequestId,
    status_code: u16,
    #[serde(borrow)]
    status: Cow<'a, str>,
    provider_request_id: Option<String>,
    cost_usd: Option<String>,
    saved_usd: Option<String>,
    #[serde(borrow)]
    response: &'a RawValue,
}

impl<'a> Line<'a> {
    fn ending(self, line: u64) -> Ended<'a> {
        Ended {
            line,
            id: Some(self.id),
            succeeded: self.status == "succeeded",
            status: self.status_code,
            request_id: self.provider_request_id.map(Cow::Owned),
            body: Cow::Borrowed(self.response),
            error: None,
            paid: self.cost_usd.map(Cow::Owned),
            saved: self.saved_usd.map(Cow::Owned),
        }
    }
}

/// Requests that will be in no feed.
struct Missing {
    next: Instant,
    /// The line to go on from.
    from: u64,
    /// Whether the server has said that answers behind the run's cursor are gone.
    has_expired: bool,
}

impl Missing {
    /// Writes off what the server does not know, if it knows others: with another data
    /// directory it would know none.
    async fn ask(&mut self, run: &mut Run, caller: &Caller) -> Result<(), End> {
        let now = SystemClock::new().wall();
        if Instant::now() < self.next || !is_over(&run.deadline, now) {
            return Ok(());
        }
        self.next = Instant::now() + BETWEEN;
        let open = run.open_lines(self.from, ASKED)?;
        self.from = match open.len() == ASKED {
            true => open.last().map_or(0, |(line, _)| line + 1),
            false => 0,
        };
        let asked = open.len();
        let mut unknown = Vec::new();
        for (line, id) in open {
            if !caller.knows(id).await.map_err(End::Over)? {
                unknown.push((line, id));
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let is_ours = unknown.len() < asked
            || self.has_expired
            || (caller.knows_any(&run.sample(SAMPLED)?).await).map_err(End::Over)?;
        if !is_ours {
            return Err(End::Halted(UNKNOWN.into()));
        }
        for (line, id) in unknown {
            run.end(&erased(line, id))?;
        }
        Ok(())
    }
}

fn erased(line: u64, id: RequestId) -> Ended<'static> {
    Ended {
        line,
        id: Some(id),
        succeeded: false,
        status: 0,
        request_id: None,
        body: Cow::Owned(RawValue::NULL.to_owned()),
        error: Some("The request and its answer were erased, or are kept no longer.".into()),
        paid: None,
        saved: None,
    }
}

fn is_over(deadline: &str, now: Timestamp) -> bool {
    let since = |at: Timestamp| now.since(at) > GRACE;
    // One that is not ahead any more cannot be read as one.
    match deadline::parse(deadline, Timestamp::ZERO, Duration::MAX) {
        Ok(at) => since(at),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erased_ones_are_looked_for_after_the_deadline_only() {
        let now = Timestamp::from_secs(1_795_348_800);
        for (seconds, over) in [(0, false), (59, false), (61, true), (6000, true)] {
            let deadline = (now - Duration::from_secs(seconds)).to_string();
            assert_eq!(is_over(&deadline, now), over, "{deadline}");
        }
        let ahead = (now + Duration::from_secs(3600)).to_string();
        assert!(!is_over(&ahead, now));
    }
}
