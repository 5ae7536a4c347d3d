//! How fast a provider may be asked: what it limits together is a [`Scope`], and
//! a scope says of every live call whether it may go, and else when to look
//! again. A scope learns from its own calls: how many the provider bears at a
//! time, what is left of its rate limits, how long a call takes.

mod concurrency;
mod pace;
mod rate_limit;
mod retries;

use std::time::Duration;

use self::{
    concurrency::Concurrency,
    pace::{Mean, Pace},
    rate_limit::Meter,
    retries::Retries,
};
use super::{
    demand::TokenRate,
    retry::{LONGEST_ASKED, LiveSettings},
};
use serde::{Deserialize, Serialize};

use crate::model::{request::Usage, time::Timestamp};

pub use self::rate_limit::{Quota, RateLimits};

/// What a provider limits together, as far as we have seen it.
#[derive(Clone, Debug)]
pub struct Scope {
    concurrency: Concurrency,
    in_flight: u32,
    /// The provider asked for silence until then.
    paused_until: Timestamp,
    requests: Meter,
    tokens: Meter,
    retries: Retries,
    pace: Pace,
    /// The share of the rate limits that is left to calls that pass through.
    kept: f64,
    /// The last time that a call was sent or came back.
    touched: Timestamp,
}

/// What was learned of a scope and holds for days: limits, and what calls take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Calls at a time, where the provider has pushed back.
    at_a_time: Option<f64>,
    /// A rate limit, and how much of it comes back a second.
    requests: Option<(f64, f64)>,
    tokens: Option<(f64, f64)>,
    pace: Mean,
}

impl Known {
    /// Whether what was read back from a disk can be used.
    pub fn is_sound(&self) -> bool {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let limits = [self.requests, self.tokens];
        self.at_a_time.is_none_or(positive)
            && limits
                .into_iter()
                .flatten()
                .all(|(limit, per_second)| positive(limit) && positive(per_second))
            && self.pace.is_sound()
    }
}

/// Whether a call may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// As many as the provider bears are on their way: the next that ends makes room.
    Full,
    /// None of the scope may go before this.
    Wait {
        until: Timestamp,
        reason: &'static str,
    },
    /// No second try may go before this; first ones may.
    RetryLater {
        until: Timestamp,
    },
}

/// What a call is to its scope while it is on its way.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    sent: Timestamp,
    epoch: u32,
    requests: f64,
    tokens: f64,
    /// What it was thought to take of the tokens.
    amount: f64,
    /// It was paid out of the retry budget.
    budgeted: bool,
}

/// Why a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    First,
    /// The provider put the last one off and said for how long: no fault of its
    /// health, and obeyed, so that the retry budget does not count it.
    Asked,
    /// The last one failed.
    Again,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The provider dealt with it, whatever it answered.
    Served { usage: Usage },
    /// The provider has too much to do: 429, 503, or no answer in time. A 429 may
    /// ask for a pause.
    Overloaded { pause: Option<Duration> },
    /// It failed in a way that says nothing about load.
    Failed,
    /// It was not sent after all.
    Unsent,
}

impl Scope {
    pub fn new(settings: &LiveSettings) -> Scope {
        Scope {
            concurrency: Concurrency::new(settings.start_concurrent, settings.max_concurrent),
            in_flight: 0,
            paused_until: Timestamp::ZERO,
            requests: Meter::default(),
            tokens: Meter::default(),
            retries: Retries::new(
                settings.retries_per_minute,
                settings.retry_share,
                settings.max_concurrent,
            ),
            pace: Pace::new(settings.expected),
            kept: settings.passthrough_share.clamp(0.0, 1.0),
            touched: Timestamp::ZERO,
        }
    }

    /// Calls that may be sent now, the rate limits aside.
    pub fn room(&self, now: Timestamp) -> u32 {
        match self.paused_until > now {
            true => 0,
            false => self.concurrency.limit().saturating_sub(self.in_flight),
        }
    }

    /// Whether a call of so many tokens of input may go.
    pub fn may_send(&self, now: Timestamp, input: u64, attempt: Try) -> Verdict {
        let wait = |until, reason| Verdict::Wait { until, reason };
        if self.paused_until > now {
            return wait(self.paused_until, "the provider asked for a pause");
        }
        if self.in_flight >= self.concurrency.limit() {
            return Verdict::Full;
        }
        let requests = self.requests.ready_at(now, 1.0, self.kept);
        if requests > now {
            return wait(requests, "few requests are left of the rate limit");
        }
        let tokens = self.tokens.ready_at(now, self.tokens_of(input), self.kept);
        if tokens > now {
            return wait(tokens, "few tokens are left of the rate limit");
        }
        let until = self.retries.ready_at(now);
        match attempt {
            Try::Again if until > now => Verdict::RetryLater { until },
            _ => Verdict::Go,
        }
    }

    /// Counts a call that [`Scope::may_send`] let go.
    pub fn send(&mut self, now: Timestamp, input: u64, attempt: Try) -> Ticket {
        let budgeted = attempt == Try::Again;
        if budgeted {
            self.retries.take(now);
        }
        self.in_flight += 1;
        self.touched = now;
        let amount = self.tokens_of(input);
        Ticket {
            sent: now,
            epoch: self.concurrency.epoch(),
            requests: self.requests.spend(1.0),
            tokens: self.tokens.spend(amount),
            amount,
            budgeted,
        }
    }

    /// The rate limits, as the reply to a call tells them.
    pub fn told(&mut self, now: Timestamp, ticket: &Ticket, limits: &RateLimits) {
        self.requests.told(now, limits.requests, ticket.requests);
        self.tokens.told(now, limits.tokens, ticket.tokens);
    }

    /// Counts a call out, and learns from how it ended.
    pub fn ended(&mut self, now: Timestamp, ticket: Ticket, how: Ended) {
        let in_flight = self.in_flight;
        self.in_flight = in_flight.saturating_sub(1);
        self.touched = now;
        match how {
            Ended::Served { usage } => {
                self.concurrency.served(in_flight);
                self.retries.served(now, ticket.budgeted);
                self.pace.served(now, ticket.sent.until(now), usage.output);
            }
            Ended::Overloaded { pause } => {
                self.concurrency.overloaded(ticket.epoch);
                if let Some(pause) = pause {
                    let until = now + pause.min(LONGEST_ASKED);
                    self.paused_until = self.paused_until.max(until);
                }
            }
            Ended::Failed => {}
            Ended::Unsent => {
                self.requests.take_back(1.0);
                self.tokens.take_back(ticket.amount);
                if ticket.budgeted {
                    self.retries.put_back(now);
                }
            }
        }
    }

    /// Two scopes turn out to be one: what is on its way counts together, and the
    /// more careful of what was learned holds.
    pub fn absorb(&mut self, other: Scope) {
        self.in_flight += other.in_flight;
        self.paused_until = self.paused_until.max(other.paused_until);
        self.touched = self.touched.max(other.touched);
        self.concurrency.absorb(&other.concurrency);
        let now = self.touched;
        self.requests.absorb(now, &other.requests);
        self.tokens.absorb(now, &other.tokens);
        self.pace.absorb(&other.pace);
    }

    /// Tokens a second that the provider takes from deferred calls, where it has said.
    pub fn tokens(&self) -> Option<TokenRate> {
        let per_second = self.tokens.per_second()? * (1.0 - self.kept);
        let output = self.pace.output().unwrap_or(0.0);
        Some(TokenRate { per_second, output })
    }

    /// Calls a second that the scope can answer in the long run: what it bears at
    /// a time by what a call takes, and no more than its limit of calls allows. Until
    /// something was seen, `live.max_concurrent` by `live.expected`.
    pub fn calls(&self, now: Timestamp) -> f64 {
        let at_a_time = f64::from(self.concurrency.sustained());
        let by_calls = at_a_time / self.latency(now).as_secs_f64().max(0.001);
        let left = 1.0 - self.kept;
        let by_requests = self.requests.per_second().map(|rate| rate * left);
        by_requests.map_or(by_calls, |rate| rate.min(by_calls))
    }

    /// What is worth to be kept while nothing is sent.
    pub fn known(&self) -> Known {
        Known {
            at_a_time: self.concurrency.found(),
            requests: self.requests.limit(),
            tokens: self.tokens.limit(),
            pace: self.pace.lasting(),
        }
    }

    /// A scope of which this is known.
    pub fn recall(&mut self, now: Timestamp, known: &Known) {
        self.touched = now;
        self.pace.recall(known.pace);
        if let Some(found) = known.at_a_time {
            self.concurrency.recall(found);
        }
        for (meter, limit) in [
            (&mut self.requests, known.requests),
            (&mut self.tokens, known.tokens),
        ] {
            if let Some(limit) = limit {
                meter.recall(now, limit);
            }
        }
    }

    /// Calls that tell it, the older ones less.
    pub fn seen(&self, now: Timestamp) -> f64 {
        self.pace.seen(now)
    }

    /// What a call takes, as seen of late; `live.expected` until then.
    pub fn latency(&self, now: Timestamp) -> Duration {
        self.pace.latency(now)
    }

    /// Tokens of output of a call, in the mean, where any was seen.
    pub fn output(&self) -> Option<u64> {
        self.pace.output().map(|tokens| tokens.ceil() as u64)
    }

    pub fn limit(&self) -> u32 {
        self.concurrency.limit()
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn paused_until(&self) -> Timestamp {
        self.paused_until
    }

    /// Nothing of it is on its way, nothing holds it back, and nothing was sent
    /// for so long that what was learned is worth nothing.
    pub fn is_stale(&self, now: Timestamp, after: Duration) -> bool {
        self.in_flight == 0 && self.paused_until <= now && self.touched + after <= now
    }

    /// Input and the output to expect: both count against the limit.
    fn tokens_of(&self, input: u64) -> f64 {
        input as f64 + self.pace.output().unwrap_or(0.0)
    }
}

#[cfg(test)]
pub(crate) mod tests;
