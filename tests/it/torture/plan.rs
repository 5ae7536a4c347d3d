//! What each call of the load is to be: a function of the seed and its number, so
//! that a line of the feed, which names the number, is enough to check its answer.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;

use crate::kill::{
    caller::{Call, Mode},
    load::{KEYS, MODES},
};

/// Numbers from here on are of the bulk: many, asynchronous, idempotent, alike.
pub const BULK: usize = 1_000_000_000;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// The provider fails it once, then answers.
    Flaky,
    /// The provider refuses it.
    Refused,
    /// It fails its batch's validation.
    Poison,
    /// In a batch it never ends.
    Stuck,
    /// Its caller cancels it,
    Cancelled,
    /// or deletes it.
    Deleted,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub call: Call,
    pub fate: Fate,
    pub on_late: &'static str,
    /// The caller hangs up half-way, once.
    pub hangs_up: bool,
}

/// How a request ended, as one of those who tell says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub status: u16,
    /// Of the error; empty where there is none.
    pub code: String,
}

const DEADLINES: [&str; 6] = ["3s", "4s", "6s", "9s", "15s", "30s"];
/// The last one has a flex tier.
const MODELS: [&str; 4] = ["gpt-4o-mini", "gpt-4.1", "gpt-5.4", "gpt-5.4"];

impl Plan {
    pub fn of(seed: u64, number: usize, hook: &str) -> Plan {
        let mut chance = StdRng::seed_from_u64(seed ^ (number as u64).wrapping_mul(0x9e37_79b9));
        match number >= BULK {
            true => Plan::bulk(number, &mut chance),
            false => Plan::mixed(number, &mut chance, hook),
        }
    }

    fn bulk(number: usize, chance: &mut StdRng) -> Plan {
        // Few cohorts, and so far away that only the clock's great steps make it late.
        let key = KEYS[number / 512 % 2];
        let deadline = ["8m", "20m"][number / 256 % 2];
        let call = Call::new(number, key, "gpt-4o-mini", Mode::Keyed, deadline);
        let steer = chance.random_range(0..1000);
        let (fate, words) = match steer {
            0..5 => (Fate::Refused, "status=400"),
            5..10 => (Fate::Flaky, "flaky=1 tokens=40"),
            _ => (Fate::Answered, "tokens=40"),
        };
        Plan {
            call: call.steered(words),
            fate,
            on_late: "rescue",
            hangs_up: false,
        }
    }

    fn mixed(number: usize, chance: &mut StdRng, hook: &str) -> Plan {
        let mode = *MODES.choose(chance).unwrap();
        let model = *MODELS.choose(chance).unwrap();
        let key = *KEYS.choose(chance).unwrap();
        let deadline = *DEADLINES.choose(chance).unwrap();
        let on_late = *["rescue", "rescue", "rescue", "wait", "fail"]
            .choose(chance)
            .unwrap();
        let fate = fate(mode, on_late, chance);
        let mut call = Call::new(number, key, model, mode, deadline);
        if mode != Mode::Embeddings {
            call = call.steered(match fate {
                Fate::Flaky => "flaky=1 tokens=40",
                Fate::Refused => "status=400",
                Fate::Poison => "invalid",
                Fate::Stuck => "never tokens=40",
                Fate::Answered | Fate::Cancelled | Fate::Deleted => "tokens=40",
            });
        }
        if mode == Mode::Background {
            // Offpeak may add that itself, and the answer is another one then.
            call = call.with("store", true.into());
        }
        call.headers.push(("offpeak-on-late", on_late.to_owned()));
        if mode == Mode::Webhook {
            call.headers.push(("offpeak-webhook", hook.to_owned()));
        }
        Plan {
            hangs_up: call.is_found_again() && chance.random_ratio(1, 6),
            call,
            fate,
            on_late,
        }
    }

    /// Whether a request of this call may end so.
    pub fn may_end(&self, told: &Told, answer: &Value) -> bool {
        let answered = || told.status == 200 && self.call.is_answered_by(&answer.to_string());
        let refused = || told.status == 400 && !self.call.is_answered_by(&answer.to_string());
        let late = self.on_late == "fail" && told.code == "deadline_exceeded";
        late || match self.fate {
            Fate::Answered | Fate::Flaky | Fate::Stuck => answered(),
            Fate::Refused | Fate::Poison => refused(),
            // What is deleted before its end is cancelled first.
            Fate::Cancelled | Fate::Deleted => answered() || told.code == "request_cancelled",
        }
    }

    /// How many requests there may be of it at most, where its connection broke so
    /// often without an answer or a 202.
    pub fn most_requests(&self, breaks: usize, hang_ups: usize) -> usize {
        match self.call.mode {
            Mode::Keyed => 1,
            // Taken over; but for one whose answer was written when its caller left.
            Mode::Held | Mode::Stream => 1 + hang_ups,
            _ => 1 + breaks,
        }
    }
}

fn fate(mode: Mode, on_late: &str, chance: &mut StdRng) -> Fate {
    let drawn = match chance.random_range(0..100) {
        0..8 => Fate::Flaky,
        8..16 => Fate::Refused,
        16..20 => Fate::Poison,
        20..26 => Fate::Stuck,
        26..40 => Fate::Cancelled,
        40..50 => Fate::Deleted,
        _ => Fate::Answered,
    };
    let is_left_alone = matches!(mode, Mode::Async | Mode::Keyed);
    match drawn {
        // An embedding's answer cannot be steered.
        _ if mode == Mode::Embeddings => Fate::Answered,
        // It would be waited for until the provider ends the batch, a day later.
        Fate::Stuck if on_late == "wait" => Fate::Answered,
        Fate::Cancelled | Fate::Deleted if !is_left_alone => Fate::Answered,
        drawn => drawn,
    }
}
