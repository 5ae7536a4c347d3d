//! `offpeak watch`: a running server, looked at once a second; a screen on a terminal,
//! a line a second elsewhere.

mod screen;
mod view;

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    pin::{Pin, pin},
    process::ExitCode,
    time::Duration,
};

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{screen::Screen, view::Seen};
use super::{
    Failure, operate,
    server::{Server, Who},
};
use crate::{app::SystemClock, ports::Clock as _};

/// `q` or Ctrl-C ends it. Not on a terminal, it says how things stand once a second.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
}

const EVERY: Duration = Duration::from_secs(1);

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let server = &args.server;
    // A wrong token or no server is no view.
    let seen = Seen {
        now: Some(look(server).await?),
        ..Seen::default()
    };
    let tasks = TaskTracker::new();
    let stop = super::stop_on_signal(&tasks);
    match stdout().is_terminal() && !server.json {
        true => live(server, seen, stop).await,
        false => plain(server, seen, stop).await,
    }
}

async fn look(server: &Server) -> Result<view::Look, Failure> {
    let who = Who::Operator;
    let status = server.get(who, &who.path("status")).await?;
    let savings = server.get(who, &who.path("savings")).await?;
    Ok(view::Look { status, savings })
}

async fn live(
    server: &Server,
    mut seen: Seen,
    stop: CancellationToken,
) -> Result<ExitCode, Failure> {
    let mut screen = Screen::open()?;
    let mut ticks = ticks();
    // A server that does not answer keeps nobody from ending it.
    let mut looking = pin!(None);
    loop {
        screen.draw(&seen.text(server.base(), SystemClock::new().wall()))?;
        tokio::select! {
            () = stop.cancelled() => break,
            event = screen.event() => match event? {
                screen::Event::End => break,
                screen::Event::Redraw => {}
            },
            Some(looked) = under_way(looking.as_mut()) => {
                looking.set(None);
                seen.add(looked);
            }
            _ = ticks.tick(), if looking.is_none() => looking.set(Some(look(server))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a future comes to; None where there is none.
async fn under_way<F: Future>(future: Pin<&mut Option<F>>) -> Option<F::Output> {
    match future.as_pin_mut() {
        Some(future) => Some(future.await),
        None => None,
    }
}

async fn plain(
    server: &Server,
    mut seen: Seen,
    stop: CancellationToken,
) -> Result<ExitCode, Failure> {
    let mut ticks = ticks();
    loop {
        let line = match (&seen.now, &seen.trouble) {
            (_, Some(trouble)) => trouble.clone(),
            (Some(look), None) if server.json => look.status.to_string(),
            (Some(look), None) => plain_line(&look.status),
            (None, None) => String::new(),
        };
        // Who read it may have gone.
        if writeln!(stdout(), "{line}").is_err() {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            looked = look(server) => seen.add(looked),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn plain_line(status: &Value) -> String {
    let at = status["now"].as_str().unwrap_or_default();
    let line = format!("{at} {}", operate::headline(status));
    anstream::adapter::strip_str(&line).to_string()
}

/// The first look was taken.
fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}
