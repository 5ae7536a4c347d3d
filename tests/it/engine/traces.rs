//! What is told of requests to whoever watches.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use offpeak::{
    engine::Call,
    model::{
        id::{RequestId, RequestKey},
        request::State,
        timeline::Happened,
        trace::{Sampled, SpanId, TraceId, TraceParent},
    },
    ports::{CallSpan, RequestSpan, SpanCounts, Traces},
};
use tokio::sync::mpsc;

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    crash::How,
    world::{Allow, LIVE, World},
};

/// Keeps what it is told. It watches as callers do, and else everything.
struct Watcher {
    told: mpsc::Sender<RequestSpan>,
    lost: AtomicU64,
}

impl Traces for Watcher {
    fn request(&self, id: RequestId, parent: Option<TraceParent>) -> Option<Sampled> {
        match parent {
            Some(parent) => parent.sampled.then_some(Sampled {
                trace: parent.trace,
                parent: Some(parent.span),
            }),
            None => Some(Sampled {
                trace: TraceId(*id.as_bytes()),
                parent: None,
            }),
        }
    }

    fn call(&self, _parent: Option<TraceParent>) -> Option<Sampled> {
        unreachable!("no call passes through an engine")
    }

    fn tell_request(&self, span: RequestSpan) {
        self.told.try_send(span).unwrap();
    }

    fn tell_call(&self, _span: CallSpan) {
        unreachable!("no call passes through an engine")
    }

    fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    fn counts(&self) -> SpanCounts {
        SpanCounts {
            dropped: self.lost.load(Relaxed),
            ..SpanCounts::default()
        }
    }
}

/// A world that is watched, and what is told of it.
async fn watched() -> (World, mpsc::Receiver<RequestSpan>) {
    let (told, spans) = mpsc::channel(100);
    let mut world = World::new().await;
    world.traces = Some(Arc::new(Watcher {
        told,
        lost: AtomicU64::new(0),
    }));
    world.restart(None).await;
    (world, spans)
}

fn parent(sampled: bool) -> TraceParent {
    TraceParent {
        trace: TraceId([7; 16]),
        span: SpanId([9; 8]),
        sampled,
    }
}

async fn ask_within(world: &World, trace: Option<TraceParent>, ask: Ask) -> RequestKey {
    let call = Call {
        trace,
        ..ask.call(world.engine())
    };
    let key = world.engine().admit(call).await.unwrap().request.key;
    world.note(key, "traced");
    key
}

fn happened(span: &RequestSpan) -> Vec<Happened> {
    span.events.iter().map(|event| event.what).collect()
}

#[tokio::test(start_paused = true)]
async fn a_rescued_request_is_told_of_once_with_all_that_happened() {
    let (world, mut spans) = watched().await;
    let slow = ask("slow").sim("never").within(3 * HOUR);
    let key = ask_within(&world, Some(parent(true)), slow).await;
    let outcome = world.outcome(key).await;
    let span = spans.recv().await.unwrap();
    assert_eq!(span.request.key, key);
    assert_eq!(span.outcome, outcome);
    assert_eq!(outcome.source, LIVE);
    assert_eq!(
        span.sampled,
        Sampled {
            trace: TraceId([7; 16]),
            parent: Some(SpanId([9; 8])),
        }
    );
    use Happened as H;
    let course = happened(&span);
    assert!(course.starts_with(&[H::Admitted, H::Packed, H::Submitted]));
    assert!(course.ends_with(&[H::Rescued, H::AttemptStarted, H::Answered]));
    assert!(
        span.events
            .windows(2)
            .all(|pair| pair[0].at.unwrap() <= pair[1].at.unwrap())
    );
    for event in &span.events {
        let silent = event.what == H::AttemptStarted;
        assert!(silent || event.reason.is_some(), "{event:?}");
    }
    world.finish().await;
    assert!(spans.try_recv().is_err(), "told of twice");
    assert_eq!(world.engine().spans(), SpanCounts::default());
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_does_not_keep_is_not_told_of() {
    let (world, mut spans) = watched().await;
    let not = ask_within(&world, Some(parent(false)), ask("not kept")).await;
    world.outcome(not).await;
    let kept = ask_within(&world, None, ask("kept")).await;
    world.outcome(kept).await;
    assert_eq!(spans.recv().await.unwrap().request.key, kept);
    world.finish().await;
    assert!(spans.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_outlives_the_process_begins_a_trace_of_its_own() {
    let (mut world, mut spans) = watched().await;
    let key = ask_within(&world, Some(parent(true)), ask("long")).await;
    world.pass(MINUTE).await;
    world.restart(None).await;
    world.outcome(key).await;
    let span = spans.recv().await.unwrap();
    let own = Sampled {
        trace: TraceId(*key.id.as_bytes()),
        parent: None,
    };
    assert_eq!((span.request.key, span.sampled), (key, own));
    assert_eq!(happened(&span)[0], Happened::Admitted);
    world.finish_allowing(Allow::UNACCOUNTED).await;
    assert!(spans.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_counted() {
    let (world, mut spans) = watched().await;
    world.trouble.on("delivery_status", How::Corrupt, 1);
    for ask in [ask("unread"), ask("read")] {
        let key = world.ask(&ask).await;
        world.outcome(key).await;
    }
    assert!(spans.recv().await.is_some());
    world.finish().await;
    assert_eq!(world.engine().spans().dropped, 1);
    assert!(spans.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_told_of() {
    let (world, mut spans) = watched().await;
    world.engine().pause();
    let cancelled = ask_within(&world, None, ask("cancelled")).await;
    world.engine().cancel(cancelled).await.unwrap();
    let span = spans.recv().await.unwrap();
    assert_eq!(span.outcome.state, State::Cancelled);
    assert_eq!(happened(&span), [Happened::Admitted, Happened::Cancelled]);
    world.engine().resume();
    world.finish().await;
}

/// What is read slowly is waited for.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_untold_at_a_stop() {
    let (world, mut spans) = watched().await;
    let keys = world.ask_many(20, |n| ask(format!("{n}"))).await;
    world.trouble.on("delivery_status", How::Slow(SECOND), 20);
    world.all_done(&keys).await;
    world.engine().stop(MINUTE).await;
    let mut told = Vec::new();
    while let Ok(span) = spans.try_recv() {
        told.push(span.request.key);
    }
    told.sort();
    let mut keys = keys;
    keys.sort();
    assert_eq!(told, keys);
}
