//! Nobody reads what a command says: that is no failure.

use std::{
    io::{PipeReader, pipe},
    process::Stdio,
};

use serde_json::json;

use super::{
    World, offpeak,
    scripted::{Scripted, known},
    terminal::Running,
};
use crate::kill::apart;

/// The end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer): (PipeReader, _) = pipe().unwrap();
    drop(reader);
    writer.into()
}

async fn code(args: &[&str], out: bool) -> Option<i32> {
    let mut command = offpeak(args);
    match out {
        true => command.stdout(unread()).stderr(Stdio::null()),
        false => command.stdout(Stdio::null()).stderr(unread()),
    };
    let mut child = Running(command.spawn().unwrap());
    apart("its end", move || child.0.wait().unwrap())
        .await
        .code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_read_enough_is_not_told_of_it() {
    let server = Scripted::start(|_| known()).await;
    for args in [
        &["requests"][..],
        &["requests", "--json"],
        &["savings", "--csv"],
        &["webhooks"],
        &["batches"],
        &["status"],
        &["watch"],
        &["keys", "list"],
        &["shadow"],
        &["dashboard"],
    ] {
        let args = [args, &["--url", &server.base]].concat();
        assert_eq!(code(&args, true).await, Some(0), "{args:?}");
    }
    for args in [
        &["completions", "bash"][..],
        &["man"],
        &["prices", "show", "gpt-4o-mini"],
        &["config", "check"],
    ] {
        assert_eq!(code(args, true).await, Some(0), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_nobody_reads_is_one() {
    let args = ["requests", "--url", "http://127.0.0.1:1"];
    assert_eq!(code(&args, false).await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_nobody_watches_ends_as_ever() {
    let world = World::start(&[]).await;
    let job = super::job::Job::new(&world, 30);
    for unread_out in [true, false] {
        let mut command = job.command(&["--wait"]);
        match unread_out {
            true => command.stdout(unread()).stderr(Stdio::null()),
            false => command.stdout(Stdio::null()).stderr(unread()),
        };
        let mut child = Running(command.spawn().unwrap());
        let ended = apart("its end", move || child.0.wait().unwrap()).await;
        assert_eq!(ended.code(), Some(0), "{}", json!(unread_out));
    }
    job.check_output();
}
