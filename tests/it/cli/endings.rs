//! How else `offpeak submit` ends, and goes on.

use std::{fs, sync::Arc, time::Duration};

use offpeak::{app::SystemClock, model::time::Timestamp, ports::Clock as _};
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use super::{
    World,
    job::{Job, Point, check_bought_once, line},
    said,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_wait_it_leaves_and_with_it_collects() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 20);
    let left = job.run(&["--tag", "nightly"]).await;
    assert_eq!(left.code, Some(0), "{left:?}");
    assert!(
        left.out.contains("20 lines are with the server"),
        "{left:?}"
    );
    assert!(!job.out().exists());
    // Said otherwise, it is not this run.
    for (args, told) in [
        (&["--wait"][..], "--tag nightly"),
        (&["--wait", "--tag", "other"], "--tag nightly"),
        (&["--tag", "nightly", "--on-late", "wait"], "--tag nightly"),
    ] {
        let refused = job.run(args).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains(told), "{refused:?}");
    }
    let collected = job.run(&["--tag", "nightly", "--wait"]).await;
    assert_eq!(collected.code, Some(0), "{collected:?}");
    assert!(
        collected.out.contains("20 succeeded, 0 failed"),
        "{collected:?}"
    );
    job.check_output();
    check_bought_once(&world, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_lines_stand_in_the_output_with_their_errors() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 5);
    let mut lines: Vec<Value> = (0..5)
        .map(|number| serde_json::from_str(&line(number)).unwrap())
        .collect();
    // The provider fails this one, has no such model, and a batch takes no such body.
    lines[1]["body"]["metadata"] = json!({"sim": "status=400"});
    lines[2]["body"]["model"] = "no-such-model".into();
    lines[3]["body"]["messages"] = Value::Null;
    // A bare body has no name.
    lines[4] = lines[4]["body"].take();
    let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
    fs::write(&job.input, text).unwrap();

    let said = job.run(&["--wait", "--json"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let summary: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&summary["succeeded"], &summary["failed"]),
        (&json!(2), &json!(3))
    );
    let out = fs::read_to_string(job.out()).unwrap();
    let out: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seen: Vec<_> = out
        .iter()
        .map(|line| {
            let status = line["response"]["status_code"].as_u64().unwrap();
            (line["custom_id"].as_str().unwrap(), status)
        })
        .collect();
    let expected = [
        ("call-0", 200),
        ("call-1", 400),
        ("call-2", 404),
        ("call-3", 400),
        ("line-5", 200),
    ];
    assert_eq!(seen, expected);
    for (at, code) in [(2, "model_not_found"), (3, "missing_required_parameter")] {
        let error = &out[at]["response"]["body"]["error"];
        assert_eq!(error["code"], code, "{error}");
    }
    // What is refused is not asked again, and the outcome is told again.
    let again = job.run(&["--wait"]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_begin_leaves_no_trace() {
    let world = World::start(&[]).await;
    let mut job = Job::new(&world, 3);
    let text = fs::read_to_string(&job.input).unwrap();

    fs::write(&job.input, format!("{text}nonsense\n")).unwrap();
    let bad = job.run(&[]).await;
    assert!(bad.code == Some(2) && bad.err.contains("line 4"), "{bad:?}");
    fs::write(
        &job.input,
        r#"{"model":"text-embedding-3-small","input":"a"}"#,
    )
    .unwrap();
    let bad = job.run(&[]).await;
    assert!(
        bad.code == Some(2) && bad.err.contains("--endpoint"),
        "{bad:?}"
    );
    fs::write(&job.input, &text).unwrap();

    let mut keyless = job.command(&[]);
    keyless.env_remove("OPENAI_API_KEY");
    let bad = said(keyless).await;
    assert!(
        bad.code == Some(2) && bad.err.contains("OPENAI_API_KEY"),
        "{bad:?}"
    );

    job.deadline = "15M";
    let bad = job.run(&[]).await;
    assert!(bad.code == Some(2) && bad.err.contains("months"), "{bad:?}");
    job.deadline = "1h";

    // The provider itself is no Offpeak; and nobody is there.
    let provider = world.provider.upstream();
    for base in [provider.trim_end_matches("/v1"), "http://127.0.0.1:1"] {
        job.base = base.to_owned();
        let bad = job.run(&[]).await;
        assert!(bad.code == Some(2) && bad.err.contains(base), "{bad:?}");
    }
    job.base = world.base();
    let left = fs::read_dir(world.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    let of_a_run = |name: &std::ffi::OsString| name.to_string_lossy().contains(".out.");
    assert!(!left.iter().any(of_a_run), "{left:?}");

    fs::write(job.out(), "somebody's").unwrap();
    let bad = job.run(&[]).await;
    assert!(bad.code == Some(2) && bad.err.contains("--out"), "{bad:?}");
    assert_eq!(fs::read_to_string(job.out()).unwrap(), "somebody's");
    assert_eq!(world.provider.simulator.bill().rows.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_provider_refuses_ends_it_at_the_first_line() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 50);
    let mut command = job.command(&["--wait"]);
    command.env("OPENAI_API_KEY", "sk-bad");
    let refused = said(command).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("401"), "{refused:?}");
    // With the right one the same command goes on.
    let said = job.run(&["--wait"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_its_file_and_its_key() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 30);
    let text = fs::read_to_string(&job.input).unwrap();
    assert_eq!(job.run(&[]).await.code, Some(0));

    fs::write(&job.input, text.replace("Question 7.", "Question 77.")).unwrap();
    let refused = job.run(&["--wait"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .err
            .contains("is not the file that this run began with"),
        "{refused:?}"
    );
    fs::write(&job.input, &text).unwrap();

    let mut command = job.command(&["--wait"]);
    command.env("OPENAI_API_KEY", "sk-another");
    let refused = said(command).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("another key"), "{refused:?}");

    assert_eq!(job.run(&["--wait"]).await.code, Some(0));
    job.check_output();
    check_bought_once(&world, 30).await;
    // The answers are gone, and buying them again is nobody's guess.
    fs::remove_file(job.out()).unwrap();
    let refused = job.run(&["--wait"]).await;
    assert!(
        refused.code == Some(2) && refused.err.contains("is gone"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_has_passed_is_extended_for_what_was_not_sent() {
    let world = World::start(&[]).await;
    let mut job = Job::new(&world, 60);
    job.deadline = "3s";
    let slowly = ["--wait", "--concurrency", "1"];
    let said = job.interrupted(&slowly, Point::Taken(5), Signal::INT).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    let journal = fs::read_to_string(job.journal()).unwrap();
    let header: Value = serde_json::from_str(journal.lines().next().unwrap()).unwrap();
    let deadline = header["begun"]["deadline"].as_str().unwrap().to_owned();
    let deadline: Timestamp =
        offpeak::model::deadline::parse(&deadline, Timestamp::ZERO, Duration::MAX).unwrap();
    let clock = SystemClock::new();
    while clock.wall() <= deadline {
        sleep(clock.wall().until(deadline)).await;
    }
    let refused = job.run(&["--wait"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("has passed"), "{refused:?}");
    job.deadline = "1h";
    let refused = job.run(&["--wait"]).await;
    assert!(
        refused.code == Some(2) && refused.err.contains("--extend"),
        "{refused:?}"
    );
    let said = job.run(&["--wait", "--extend"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_ends_it_in_time_and_its_next_start_goes_on() {
    let world = World::start(&[]).await;
    let mut job = Job::new(&world, 300);
    let impatient = ["--wait", "--patience", "1s"];
    let start = world.server.up().start;
    let (said, ()) = tokio::join!(
        job.run(&impatient),
        killed_at(&world, &job, Point::Taken(100))
    );
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.err.contains("does not answer"), "{said:?}");
    world.server.again().await;
    job.base = world.server.after(start).await.base.to_string();
    let said = job.run(&impatient).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, 300).await;
}

async fn killed_at(world: &World, job: &Job, point: Point) {
    job.comes_to(point).await;
    world.server.signal(Signal::KILL);
    world.server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_is_waited_for() {
    let world = World::start(&[]).await;
    let front = Front::start(&world.base()).await;
    let mut job = Job::new(&world, 300);
    job.base = front.base.clone();
    let restarts = async {
        for point in [Point::Taken(100), Point::Ended(1)] {
            let start = world.server.up().start;
            killed_at(&world, &job, point).await;
            world.server.again().await;
            front.turn_to(&world.server.after(start).await.base);
        }
    };
    let (said, ()) = tokio::join!(job.run(&["--wait"]), restarts);
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, 300).await;
}

/// An address that stays while the server behind it is started anew.
struct Front {
    base: String,
    behind: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Front {
    async fn start(base: &str) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new(String::new()));
        let mut serving = JoinSet::new();
        let to = behind.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut caller, _)) = listener.accept().await {
                let to = to.lock().clone();
                connections.spawn(async move {
                    // Where nobody is there, the caller is hung up on.
                    if let Ok(mut server) = TcpStream::connect(to).await {
                        let _either_side_ends = copy_bidirectional(&mut caller, &mut server).await;
                    }
                });
            }
        });
        let front = Front {
            base: format!("http://{address}"),
            behind,
            _serving: serving,
        };
        front.turn_to(base);
        front
    }

    fn turn_to(&self, base: &str) {
        *self.behind.lock() = base.trim_start_matches("http://").to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_waited_for() {
    let world = World::start(&[("OFFPEAK_ADMISSION__MAX_OPEN", "40")]).await;
    let job = Job::new(&world, 150);
    let said = job.run(&["--wait"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, 150).await;
    let refused = world.counted("offpeak_requests_refused_total{code=\"queue_full\"}");
    assert!(refused.await > 0, "the queue was never full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_do_not_write_one_output() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 500);
    let slowly = ["--wait", "--concurrency", "1"];
    let second = async {
        job.comes_to(Point::Taken(1)).await;
        job.run(&slowly).await
    };
    let (first, refused) = tokio::join!(job.run(&slowly), second);
    assert!(
        refused.code == Some(2) && refused.err.contains("is in use"),
        "{refused:?}"
    );
    assert_eq!(first.code, Some(0), "{first:?}");
    job.check_output();
    check_bought_once(&world, 500).await;
}

impl World {
    /// A counter as the server's metrics have it; 0 where it is not among them.
    async fn counted(&self, series: &str) -> u64 {
        let _another_was_first = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = client.get(format!("{}/metrics", self.base())).send().await;
        let metrics = reply.unwrap().text().await.unwrap();
        let value = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
        metrics.lines().find_map(value).unwrap_or_default()
    }
}
