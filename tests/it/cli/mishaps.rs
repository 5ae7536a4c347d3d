//! What can befall a run of `offpeak submit` from outside: a server that is another, forgets
//! or breaks off, a file that is changed, a journal that is damaged, a full disk.

use std::{
    fs,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use axum::{body::Body, http::Response};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    Said, World,
    job::{Job, Point, check_bought_once},
    offpeak, said,
    scripted::{
        CHAT, Call, RESULTS, Scripted, asked, cursor, cut, endless, id, known, line, page, refusal,
        taken,
    },
};
use crate::kill::{apart, soon};

/// A run of so many lines, all with the server, begun long ago; the server says what
/// `later` has it say of the feed and of requests.
async fn begun<F>(lines: usize, later: F) -> (tempfile::TempDir, Scripted, Job)
where
    F: Fn(&Call) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let server = Scripted::start(move |call| match (call.path.as_str(), call.after()) {
        (CHAT, _) => taken(call.nth),
        (RESULTS, Some("end")) => page(0, &[]),
        _ => later(call),
    })
    .await;
    let job = Job::at(dir.path(), server.base.clone(), lines);
    let sent = job.run(&["--concurrency", "1"]).await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    job.is_long_over();
    (dir, server, job)
}

/// It ends at all.
async fn ends(job: &Job, args: &[&str]) -> Said {
    soon("its end", job.run(args)).await
}

fn written_off(job: &Job) -> usize {
    let journal = fs::read_to_string(job.journal()).unwrap();
    journal.matches("were erased").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_database_writes_nothing_off() {
    // The first look at the cursor is before its restart.
    let (_dir, server, mut job) = begun(20, |call| match call.path.as_str() {
        RESULTS if call.query.starts_with("limit=1&") => page(0, &[]),
        RESULTS if call.after().is_some() => refusal(400, "invalid_cursor"),
        RESULTS => page(0, &[]),
        _ => refusal(404, "not_found"),
    })
    .await;
    let refused = ends(&job, &["--wait"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.err.contains("another data directory"),
        "{refused:?}"
    );
    assert_eq!(written_off(&job), 0);
    assert!(!job.out().exists());
    // Nor at a resume.
    drop(server);
    let server = Scripted::start(|call| match call.path.as_str() {
        RESULTS => refusal(400, "invalid_cursor"),
        _ => refusal(404, "not_found"),
    })
    .await;
    job.base = server.base.clone();
    let refused = ends(&job, &["--wait"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("another server"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_reads_the_cursor_and_knows_nothing_writes_nothing_off() {
    // With the same master key in the environment, say; it came while answers were
    // waited for.
    let is_another = Arc::new(AtomicBool::new(false));
    let (_dir, _server, job) = begun(20, move |call| match call.path.as_str() {
        RESULTS => {
            is_another.fetch_or(!call.query.starts_with("limit=1&"), SeqCst);
            page(0, &[])
        }
        _ if is_another.load(SeqCst) => refusal(404, "not_found"),
        _ => known(),
    })
    .await;
    let refused = ends(&job, &["--wait"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert_eq!(written_off(&job), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_lines_do_not_keep_a_run_from_going_on() {
    const LINES: usize = 40;
    const EXPIRED: usize = 5;
    // The cursor is good, or the key is a new one and reads from the beginning.
    for refused in [None, Some("cursor_expired"), Some("invalid_cursor")] {
        let (_dir, _server, job) = begun(LINES, move |call| match asked(call, LINES) {
            Some(0..EXPIRED) => refusal(404, "not_found"),
            Some(_) => known(),
            None => match (call.after(), refused) {
                (Some("place-0"), Some("cursor_expired")) => refusal(410, "cursor_expired"),
                (Some("place-0"), Some(code)) => refusal(400, code),
                (None | Some("place-0"), _) => {
                    let kept = EXPIRED..LINES;
                    let lines: Vec<String> = kept.map(|number| line(number, number)).collect();
                    page(LINES, &lines)
                }
                (Some(_), _) => page(LINES, &[]),
            },
        })
        .await;
        let done = ends(&job, &["--wait", "--json"]).await;
        assert_eq!(done.code, Some(1), "{refused:?}: {done:?}");
        let summary: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!(summary["failed"], EXPIRED, "{refused:?}");
        assert_eq!(summary["succeeded"], LINES - EXPIRED);
        let out = fs::read_to_string(job.out()).unwrap();
        assert_eq!(out.matches("request_erased").count(), EXPIRED);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_line_is_found_while_others_of_the_key_are_answered() {
    // Of a page without an end none is ours, but the first.
    let (_dir, _server, job) = begun(2, |call| match (asked(call, 2), call.after()) {
        (Some(1), _) => refusal(404, "not_found"),
        (Some(_), _) => known(),
        (None, Some("place-0")) => page(1, &[line(1, 0)]),
        (None, _) => page(call.nth + 1, &[line(call.nth + 1, 1000 + call.nth)]),
    })
    .await;
    let done = ends(&job, &["--wait"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("1 succeeded, 1 failed"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_breaks_off_is_gone_on_with_behind_its_last_line() {
    let lines = |places: std::ops::Range<usize>| -> Vec<String> {
        places.map(|place| line(place + 1, place)).collect()
    };
    let (_dir, server, job) = begun(9, move |call| match call.after() {
        _ if asked(call, 9).is_some() => known(),
        _ if call.query.starts_with("limit=1&") => page(0, &[]),
        Some("place-0") => cut(9, lines(0..4)),
        Some("place-4") => {
            // Half a line is none.
            let mut some = lines(4..7);
            some[2].truncate(40);
            cut(9, some)
        }
        Some("place-6") => page(9, &lines(6..9)),
        after => panic!("{after:?}"),
    })
    .await;
    let done = ends(&job, &["--wait"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let asked = server.calls("GET", RESULTS);
    let after: Vec<&str> = asked.iter().skip(1).filter_map(Call::after).collect();
    let expected = [0, 0, 4, 6].map(cursor);
    assert_eq!(after, expected.each_ref().map(String::as_str));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_always_break_off_are_asked_for_slowly_and_not_for_ever() {
    let (_dir, server, job) = begun(3, |call| match call.query.starts_with("limit=1&") {
        true => page(0, &[]),
        false => cut(3, Vec::new()),
    })
    .await;
    let gone = ends(&job, &["--wait", "--patience", "2s"]).await;
    assert_eq!(gone.code, Some(3), "{gone:?}");
    assert!(gone.err.contains("does not answer"), "{gone:?}");
    // A pause that begins with 250 ms and doubles, over two seconds.
    let asked = server.calls("GET", RESULTS).len();
    assert!((3..=8).contains(&asked), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_is_heard_while_a_page_comes() {
    let (_dir, _server, job) = begun(3, |call| match call.query.starts_with("limit=1&") {
        true => page(0, &[]),
        false => endless(line(1, 0)),
    })
    .await;
    let interrupted = job.interrupted(&["--wait"], Point::Ended(1), Signal::INT);
    let said = soon("its end", interrupted).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.err.contains("1 answered"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sold_at_once_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Scripted::start(|call| match call.path.as_str() {
        CHAT => Response::builder()
            .header("offpeak-reason", "not-deferrable")
            .body(Body::from("{}"))
            .unwrap(),
        _ => page(0, &[]),
    })
    .await;
    let job = Job::at(dir.path(), server.base.clone(), 100);
    let refused = ends(&job, &["--wait"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("admission.endpoints"), "{refused:?}");
    assert_eq!(server.calls("POST", CHAT).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_endpoint_that_the_server_does_not_take_in_nothing_is_bought() {
    let world = World::start(&[("OFFPEAK_ADMISSION__ENDPOINTS", "/v1/embeddings")]).await;
    let job = Job::new(&world, 50);
    let refused = ends(&job, &["--wait"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .err
            .contains("/v1/chat/completions cannot be answered later"),
        "{refused:?}"
    );
    assert_eq!(world.provider.simulator.bill().rows.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_not_written_to_the_lines_of_a_changed_file() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 300);
    let whole = fs::read_to_string(&job.input).unwrap();
    let mut lines: Vec<&str> = whole.lines().collect();
    lines.swap(3, 5);
    let swapped = lines.join("\n") + "\n";
    let changed = async {
        job.comes_to(Point::Ended(1)).await;
        fs::write(&job.input, swapped).unwrap();
    };
    let (said, ()) = tokio::join!(job.run(&["--wait"]), changed);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.err.contains("was changed"), "{said:?}");
    assert!(!job.out().exists(), "answers at the wrong names");
    fs::write(&job.input, whole).unwrap();
    let said = job.run(&["--wait"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_is_no_new_run() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 30);
    assert_eq!(job.run(&[]).await.code, Some(0));
    let whole = fs::read_to_string(job.journal()).unwrap();
    let first = whole.replacen("\"run\"", "\"nur\"", 1);
    let middle = whole.replacen("\"line\":", "\"enil\":", 7);
    for damaged in [first, middle] {
        fs::write(job.journal(), &damaged).unwrap();
        let refused = job.run(&["--wait"]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("left as it is"), "{refused:?}");
        assert_eq!(fs::read_to_string(job.journal()).unwrap(), damaged);
    }
    fs::write(job.journal(), whole).unwrap();
    let said = job.run(&["--wait"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_interrupts_and_loses_nothing() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 100);
    // Blocks of 512 bytes that a file may have; the journal comes to more, and so does
    // the output.
    for blocks in [12, 100] {
        let command = job.command(&["--wait"]);
        let mut bounded = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        bounded
            .args(["-c", &script, "sh"])
            .arg(command.get_program());
        bounded.args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            bounded.env(name, value.unwrap());
        }
        let full = said(bounded).await;
        assert_eq!(full.code, Some(3), "{full:?}");
        assert!(full.err.contains("The same command goes on"), "{full:?}");
        assert!(!job.out().exists());
    }
    let said = job.run(&["--wait"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_whole_in_pages() {
    const HOOKS: usize = 230;
    let server = Scripted::start(|call| {
        let from: usize = call.after().map_or(0, |after| after.parse().unwrap());
        let limit = call
            .query
            .split('&')
            .find_map(|pair| pair.strip_prefix("limit="));
        let limit: usize = limit.unwrap().parse().unwrap();
        assert!(limit <= 100, "{call:?}");
        let to = HOOKS.min(from + limit);
        let data: Vec<Value> = (from..to)
            .map(|number| json!({"request_id": id(number).to_string(), "status": "dead"}))
            .collect();
        let (more, next) = (to < HOOKS, to.to_string());
        let list = json!({"object": "list", "data": data, "has_more": more,
            "next": more.then_some(next)});
        Response::new(Body::from(list.to_string()))
    })
    .await;
    let list = |args: &[&str]| {
        let mut command = offpeak(args);
        command.args(["--url", &server.base, "--json"]);
        said(command)
    };
    for (args, length, more) in [
        (&["webhooks", "--limit", "1000"][..], HOOKS, false),
        (&["webhooks", "--all", "--limit", "150"], 150, true),
        (&["webhooks"], 50, true),
        (&["requests", "--all", "--limit", "1000"], HOOKS, false),
    ] {
        let said = list(args).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        let list: Value = serde_json::from_str(&said.out).unwrap();
        let data = list["data"].as_array().unwrap();
        assert_eq!(data.len(), length, "{args:?}");
        let last = id(length - 1).to_string();
        assert_eq!(data[length - 1]["request_id"], last);
        assert_eq!(list["has_more"], more, "{args:?}");
    }
    for args in [
        &["webhooks", "test", "https://a.example", "--all"][..],
        &["webhooks", "redeliver", "https://a.example", "--all"],
    ] {
        let refused = list(args).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("without --all"), "{refused:?}");
    }
}

/// Its standard input is a pipe with a line in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_once_only_is_refused() {
    let world = World::start(&[]).await;
    let mut job = Job::new(&world, 3);
    let text = fs::read_to_string(&job.input).unwrap();
    job.input = "/dev/stdin".into();
    let out = world.path().join("answers.jsonl");
    let mut command = job.command(&["--wait", "--out", out.to_str().unwrap()]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let ended = apart("its end", move || {
        use std::io::Write as _;
        // It may have ended by then.
        let _unread = child.stdin.take().unwrap().write_all(text.as_bytes());
        child.wait_with_output().unwrap()
    });
    let refused = Said::of(ended.await);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("no regular file"), "{refused:?}");
    assert_eq!(world.provider.simulator.bill().rows.len(), 0);
}
