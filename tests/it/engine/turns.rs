//! Whose turn it is, how long batches gather, and how their lines stand.

use axum::body::Body;
use http_body_util::BodyExt;
use offpeak::{
    model::endpoint::Endpoint,
    simulator::{Kind, Operation, key_id},
};
use serde_json::json;
use tower::ServiceExt;

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    crash::How,
    world::{Allow, World, refusal},
};

/// When a key's batches reached the provider, in their order.
fn created(world: &World, key: &str) -> Vec<u64> {
    let (log, key) = (world.sim.log(), key_id(key));
    let of_key = log.batches.iter().filter(|batch| batch.key == key);
    of_key.map(|batch| batch.created_at).collect()
}

#[tokio::test(start_paused = true)]
async fn one_tenants_uploads_do_not_hold_up_anothers() {
    let world = World::with(|settings, _| {
        settings.packing.max_lines = 1;
        settings.submit.max_concurrent = 1;
    })
    .await;
    world.faults(Operation::UploadFile, Kind::Delay { by: MINUTE }, 40);
    world
        .ask_many(20, |n| ask(format!("q{n}")).within(2 * HOUR))
        .await;
    world.pass(90 * SECOND).await;
    let asked = world.now().as_secs();
    world.ask(&ask("another").key("sk-other")).await;
    world.pass(5 * MINUTE).await;
    let first = created(&world, "sk-other").first().copied();
    let waited = first.expect("its batch is there") - asked;
    assert!(waited <= 125, "one upload before its own: {waited} s");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_tenants_packing_does_not_hold_up_anothers() {
    let world = World::with(|settings, _| settings.packing.max_lines = 1).await;
    world.engine().pause();
    world
        .ask_many(30, |n| ask(format!("q{n}")).within(2 * HOUR))
        .await;
    // Three reads a batch, of which each takes a second.
    world.trouble.on("queued", How::Slow(SECOND), 10_000);
    world.engine().resume();
    world.pass(10 * SECOND).await;
    let asked = world.now().as_secs();
    world.ask(&ask("another").key("sk-other")).await;
    world.pass(2 * MINUTE).await;
    let first = created(&world, "sk-other").first().copied();
    let waited = first.expect("its batch is there") - asked;
    assert!(waited <= 8, "one batch before its own: {waited} s");
    world.finish().await;
}

/// One call every five seconds, for half an hour.
async fn trickle(world: &World) -> usize {
    for number in 0..360 {
        let call = ask(format!("q{number}")).within(20 * HOUR);
        world.ask(&call).await;
        world.pass(5 * SECOND).await;
    }
    world.sim.log().batches.len()
}

#[tokio::test(start_paused = true)]
async fn batches_gather_longer_where_control_calls_are_scarce() {
    let plenty = World::new().await;
    let plenty = trickle(&plenty).await;
    assert!(plenty >= 150, "{plenty} batches");
    let world = World::with(|settings, _| settings.watch.polls_per_second = 0.5).await;
    let scarce = trickle(&world).await;
    assert!((8..60).contains(&scarce), "{scarce} batches");
    let polls = world.sim.log().operations[&Operation::GetBatch];
    assert!(polls < 900, "{polls} polls in half an hour");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn batches_gather_longer_where_creates_are_throttled_and_then_less_again() {
    let world = World::new().await;
    let status = refusal(429, Some(70));
    world.faults(Operation::CreateBatch, status, 5);
    world.ask(&ask("first")).await;
    world.pass(7 * MINUTE).await;
    let before = world.sim.log().batches.len();
    assert_eq!(before, 1, "taken at the sixth try");
    let ask_some = async |name: &str| {
        let before = world.sim.log().batches.len();
        for number in 0..12 {
            world
                .ask(&ask(format!("{name}{number}")).within(20 * HOUR))
                .await;
            world.pass(10 * SECOND).await;
        }
        world.pass(6 * MINUTE).await;
        world.sim.log().batches.len() - before
    };
    assert_eq!(ask_some("throttled").await, 1);
    world.pass(HOUR).await;
    assert_eq!(ask_some("free").await, 12);
    world.finish().await;
}

fn with_prompt(system: &str, text: &str) -> Ask {
    let mut call = ask(text);
    let body = json!({"model": "gpt-4o-mini", "messages": [
        {"role": "system", "content": system}, {"role": "user", "content": text}]});
    call.body = Some(body.to_string());
    call
}

#[tokio::test(start_paused = true)]
async fn lines_that_begin_alike_stand_side_by_side() {
    let world = World::new().await;
    let systems = ["be brief", "be kind", "be exact"];
    let keys = world
        .ask_many(30, |n| with_prompt(systems[n % 3], &format!("q{n:02}")))
        .await;
    let batch = world.submitted().await;
    let path = format!("/v1/files/{}/content", batch.input_file.unwrap());
    let request = http::Request::get(path)
        .header("authorization", "Bearer sk-test")
        .body(Body::empty())
        .unwrap();
    let response = world.sim.router().oneshot(request).await.unwrap();
    let file = response.into_body().collect().await.unwrap().to_bytes();
    let file = String::from_utf8(file.to_vec()).unwrap();
    let order: Vec<usize> = file
        .lines()
        .map(|line| {
            let stands = |system: &&str| line.contains(*system);
            systems.iter().position(stands).unwrap()
        })
        .collect();
    let mut groups = order.clone();
    groups.dedup();
    assert_eq!((order.len(), groups.len()), (30, 3), "{order:?}");
    for outcome in world.all_done(&keys).await {
        super::world::succeeded(&outcome);
    }
    world.finish().await;
}

/// The provider counts the lines of the file, which is in another order than the
/// calls.
#[tokio::test(start_paused = true)]
async fn the_bad_line_of_an_ordered_file_is_the_one_that_is_refused() {
    let world = World::new().await;
    let good = |n: usize| with_prompt(["be brief", "be kind"][n % 2], &format!("q{n}"));
    let mut keys = world.ask_many(7, good).await;
    let mut bad = with_prompt("be exact", "bad");
    bad.endpoint = Endpoint::ChatCompletions;
    bad.body = bad
        .body
        .map(|body| body.replace("\"messages\"", "\"messagez\""));
    let bad = world.ask(&bad).await;
    keys.extend(world.ask_many(6, |n| good(n + 7)).await);
    assert_eq!(world.outcome(bad).await.status, 400);
    for outcome in world.all_done(&keys).await {
        super::world::succeeded(&outcome);
    }
    world.finish_allowing(Allow { ..Allow::default() }).await;
}
