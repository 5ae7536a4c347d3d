//! One scripted day of everything. Killed after its first commit or effect, and started
//! again; in another world after its second; and so on: nothing is lost, nothing is
//! bought twice by us, and the books are right. So too at a provider that forgets
//! `metadata`, and where rescues have a budget.
//!
//! `OFFPEAK_EVERY_STEP=1 cargo test --release --test it every_step` dies after each one;
//! `cargo test` after a sample of them.

use std::time::Duration;

use offpeak::{
    engine::{Move, MoveError, Settings},
    model::request::OnLate,
    simulator::{self, Fault, Kind, Operation},
};
use serde_json::json;

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask, credential},
    world::{Allow, World},
};

/// Two keys of one project.
const OLD: &str = "sk-acme.web.one";
const NEW: &str = "sk-acme.web.two";

const KILLED: Allow = Allow {
    lost_files: false,
    unaccounted: true,
    endless: false,
    twins: true,
};

/// A part of the day.
enum Act {
    Ask(Ask),
    /// Cancels the call of this number.
    Cancel(usize),
    Erase(usize),
    Fault(Operation, Kind),
    /// The tenant of the one key moves to the other.
    Move,
    Pass(Duration),
}

/// What is another way on another day.
type Change = fn(&mut Settings, &mut simulator::Settings);

const ORDINARY: Change = |_, _| {};

const FORGETFUL: Change = |_, provider| provider.keeps_metadata = false;

/// No rescue but the cheapest is covered, until the next day.
const THRIFTY: Change =
    |settings, _| settings.rescue.budget_usd_per_day = Some("0.00002".parse().unwrap());

fn flexible(text: &str) -> Ask {
    Ask {
        model: "o3".into(),
        ..ask(text).within(20 * MINUTE)
    }
}

fn stored(text: &str) -> Ask {
    let mut call = ask(text).response().within(9 * HOUR);
    let body = json!({"model": call.model, "input": text, "store": true});
    call.body = Some(body.to_string());
    call
}

/// Calls in every lane, and everything that can become of one.
fn script() -> Vec<Act> {
    use Act::*;
    use Operation as On;
    vec![
        Ask(ask("plain").webhook()),
        Ask(ask("held").held()),
        Ask(ask("soon").within(MINUTE)),
        Ask(ask("bad").sim("invalid")),
        Ask(ask("refused").sim("status=400")),
        Ask(ask("flaky").sim("flaky=1")),
        Pass(HOUR),
        Fault(On::CreateBatch, Kind::ReplyLost),
        Ask(ask("its create is lost")),
        Pass(HOUR),
        Fault(On::CreateBatch, Kind::Reset),
        Ask(ask("its create never came")),
        Pass(10 * MINUTE),
        Fault(On::UploadFile, Kind::ReplyLost),
        Ask(ask("its upload is lost").webhook()),
        Pass(HOUR),
        Ask(ask("never").sim("never").within(2 * HOUR)),
        Ask(ask("waits").on_late(OnLate::Wait).within(HOUR)),
        Ask(ask("fails").on_late(OnLate::Fail).sim("never").within(HOUR)),
        Pass(3 * HOUR),
        Ask(flexible("flex")),
        Fault(On::Chat, Kind::FlexShortage),
        Ask(flexible("flex is short")),
        Ask(stored("in the background")),
        Pass(HOUR),
        Ask(ask("to be cancelled").within(5 * HOUR)),
        Ask(ask("to be erased").within(5 * HOUR)),
        Pass(SECOND * 8),
        Cancel(15),
        Erase(16),
        Pass(HOUR),
        Fault(On::CreateBatch, Kind::Twice),
        Ask(ask("made twice").key("sk-other")),
        Pass(2 * HOUR),
        Fault(On::CreateBatch, Kind::MissingLines { lines: 1 }),
        Ask(ask("in neither file")),
        Fault(On::FileContent, Kind::Truncated),
        Pass(4 * HOUR),
        Fault(On::Chat, Kind::ReplyLost),
        Ask(ask("its answer is lost").within(2 * MINUTE)),
        Pass(30 * MINUTE),
        Ask(ask("in a batch when its key moves")
            .key(OLD)
            .within(6 * HOUR)),
        Pass(3 * MINUTE),
        Ask(ask("not yet in one").key(OLD).webhook().within(20 * HOUR)),
        Move,
        Ask(ask("with the new key").key(NEW)),
        Pass(HOUR),
    ]
}

/// Plays the day; where it is to die after so many steps, it does, once. Returns what
/// the world remembers of it.
async fn play(change: Change, die_after: Option<u32>) -> Vec<String> {
    let mut world = World::seeded(5, die_after, |settings, provider| {
        change(settings, provider);
        settings.packing.max_lines = 4;
        // Creates that overlap would be ordered by the machine's threads.
        settings.submit.max_concurrent = 1;
        provider.names_lines = false;
    })
    .await;
    let mut asked = Vec::new();
    for act in script() {
        match act {
            Act::Ask(call) => asked.push(world.try_ask(&call, None).await),
            Act::Cancel(number) => {
                if let Some(key) = asked[number] {
                    world.try_cancel(key, None).await;
                }
            }
            Act::Erase(number) => {
                if let Some(key) = asked[number] {
                    world.try_erase(key, None).await;
                }
            }
            Act::Fault(on, kind) => world.sim.inject(Fault::once(on, kind)),
            Act::Move => moves(&mut world).await,
            Act::Pass(time) => world.live_on(time, None).await,
        }
    }
    // Until creates that were given up are not looked out for any more.
    world.live_on(36 * HOUR, None).await;
    for key in ["sk-test", "sk-other", NEW] {
        world.note_all(key).await;
    }
    assert_eq!(world.note_all(OLD).await, 0, "all of it has moved");
    world.sim.clear_faults();
    // Who dies from here on is not started again.
    let day = world.diary();
    world.finish_allowing(KILLED).await;
    day
}

/// Whoever does not hear that it has moved asks again, and then it has.
async fn moves(world: &mut World) {
    let how = Move {
        keep_previous: false,
        force: false,
    };
    let mut moved = world.try_move(credential(OLD), credential(NEW), how).await;
    if moved.is_none() {
        let again = world.try_move(credential(OLD), credential(NEW), how).await;
        moved = match again {
            Some(Err(MoveError::UnknownPrevious)) => return,
            again => again,
        };
    }
    moved.expect("it dies once").unwrap();
}

/// Returns how many steps the day has.
async fn die_everywhere(change: Change, stride: usize) -> u32 {
    let whole = play(change, None).await;
    let steps = u32::try_from(whole.len()).unwrap();
    let all = std::env::var_os("OFFPEAK_EVERY_STEP").is_some();
    let stride = if all { 1 } else { stride };
    let mut deaths = 0;
    for step in (1..=steps).step_by(stride) {
        let diary = play(change, Some(step)).await;
        // Until then it is the same day.
        let same = diary.iter().zip(&whole).take(step as usize);
        for (number, (a, b)) in same.enumerate() {
            assert_eq!(a, b, "step {number} of the day that dies after {step}");
        }
        deaths += 1;
    }
    println!("{steps} steps in a day, {deaths} deaths");
    steps
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_wherever_it_dies() {
    let steps = die_everywhere(ORDINARY, 37).await;
    assert!(steps > 150, "the day has {steps} steps only");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_where_the_provider_forgets_metadata() {
    die_everywhere(FORGETFUL, 83).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_where_rescues_have_a_budget() {
    die_everywhere(THRIFTY, 89).await;
}
