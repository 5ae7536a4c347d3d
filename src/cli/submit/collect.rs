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
    index::Standing,
    journal::Ended,
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

/// # Errors
/// What ends the run before all lines are answered.
pub async fn collect(run: &mut Run, caller: &Caller, progress: &mut Progress) -> Result<(), End> {
    let mut missing = Missing {
        next: Instant::now(),
        from: 0,
    };
    while run.open() > 0 {
        progress.show(run);
        let cursor = run.cursor.clone();
        match caller.feed(cursor.as_deref()).await.map_err(End::Over)? {
            Page::Lines(end, lines) => match read(run, lines, progress).await? {
                Some(0) => {
                    run.go_on_after(&end)?;
                    missing.ask(run, caller).await?;
                }
                Some(_) => run.go_on_after(&end)?,
                // It broke off: what was read stands, and is passed over next time.
                None => {}
            },
            // What is kept is read from its beginning.
            Page::Expired => run.cursor = None,
            Page::Halted(why) => return Err(End::Halted(why)),
        }
    }
    run.journal.sync()?;
    Ok(())
}

/// The number of lines, if the page came whole.
async fn read(
    run: &mut Run,
    mut page: Box<dyn AsyncBufRead + Send + Unpin>,
    progress: &mut Progress,
) -> io::Result<Option<u64>> {
    let (mut text, mut lines) = (Vec::new(), 0);
    loop {
        text.clear();
        match page.read_until(b'\n', &mut text).await {
            Ok(0) => return Ok(Some(lines)),
            Ok(_) if text.ends_with(b"\n") => {}
            Ok(_) | Err(_) => return Ok(None),
        }
        lines += 1;
        let line: Line<'_> = serde_json::from_slice(&text)?;
        let Some(number) = run.index.line_of(line.id)? else {
            continue;
        };
        run.end(&line.ending(number))?;
        progress.show(run);
    }
}

#[derive(Deserialize)]
struct Line<'a> {
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
}

impl Missing {
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
        for (line, id) in open {
            let standing = run.index.standing(line)?;
            if matches!(standing, Standing::Taken(_))
                && !caller.knows(id).await.map_err(End::Over)?
            {
                run.end(&erased(line, id))?;
            }
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
