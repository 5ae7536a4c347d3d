//! Prompt tokens that a scope (an organization and a model) may have enqueued at the
//! provider until its batches are terminal (WIRE.md §1): configured, or learned
//! from what the provider refuses (`token_limit_exceeded`).

use std::time::Duration;

use crate::model::{request::Cohort, time::Timestamp};

/// Parts that a limit is handed out in, so that several batches are on their way
/// at once, and a straggler holds up one part only.
const PARTS: u64 = 4;
/// Refusals in a row, with nothing else of ours there, after which a line that is
/// alone will never fit: until then the room may be taken by work that is not ours,
/// or by tokens that the provider has not released.
const NEVER: u32 = 5;
/// How long a limit that was found is kept before more is tried again.
const PROBE_AFTER: Duration = Duration::from_secs(3600);
/// The pause after a refusal doubles at most so often.
const DOUBLINGS: u32 = 4;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    configured: Option<u64>,
    /// Below what is configured, where that is too much.
    learned: Option<u64>,
    /// The most that was ever on its way when a batch was refused.
    refused: u64,
    /// The most that was taken at one time.
    proven: u64,
    /// In a row, while nothing else of ours was there.
    refusals: u32,
    closed_until: Timestamp,
    probe_at: Timestamp,
    /// A cohort whose next line needs more room than there was: nobody else gets
    /// any before it.
    kept_for: Option<Cohort>,
}

/// What a scope's next batch may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// No limit is known.
    Open,
    Tokens(Tokens),
    /// None before this instant, or before something of ours ends.
    Closed(Option<Timestamp>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Of all lines together.
    pub most: u64,
    /// Of a line that is the first.
    pub first: u64,
}

impl Budget {
    pub fn new(configured: Option<u64>) -> Budget {
        Budget {
            configured,
            ..Budget::default()
        }
    }

    pub fn limit(&self) -> Option<u64> {
        match (self.configured, self.learned) {
            (Some(configured), Some(learned)) => Some(configured.min(learned)),
            (configured, learned) => configured.or(learned),
        }
    }

    /// What the next batch of `cohort` may have, where `enqueued` tokens of ours are
    /// on their way; None where nothing is.
    pub fn room(&self, cohort: &Cohort, enqueued: Option<u64>, now: Timestamp) -> Room {
        let Some(limit) = self.limit() else {
            return Room::Open;
        };
        if self.closed_until > now {
            return Room::Closed(Some(self.closed_until));
        }
        if self.kept_for.is_some_and(|kept| kept != *cohort) {
            return Room::Closed(None);
        }
        let part = (limit / PARTS).max(1);
        let Some(enqueued) = enqueued else {
            return Room::Tokens(Tokens {
                most: part,
                first: u64::MAX,
            });
        };
        let left = limit.saturating_sub(enqueued);
        // What would be a very small batch waits until more is free.
        if left < part.div_ceil(2) {
            return Room::Closed(None);
        }
        Room::Tokens(Tokens {
            most: left.min(part),
            first: left,
        })
    }

    /// The cohort's next line needs more than there is.
    pub fn keep_for(&mut self, cohort: Cohort) {
        self.kept_for = Some(cohort);
    }

    pub fn kept_for(&self) -> Option<Cohort> {
        self.kept_for
    }

    /// It was served, or waits no more.
    pub fn keep_for_nobody(&mut self) {
        self.kept_for = None;
    }

    /// A batch of `tokens` was refused while `others` were on their way, None where
    /// nothing was. Nothing is tried for `pause`, which doubles.
    pub fn refused(&mut self, tokens: u64, others: Option<u64>, pause: Duration, now: Timestamp) {
        if others.is_none() {
            self.refusals += 1;
        }
        let others = others.unwrap_or(0);
        let all = others + tokens;
        self.refused = self.refused.max(all);
        if self.proven >= all {
            // Less is allowed than was once, or it is not released yet.
            self.proven = others;
        }
        let limit = match self.proven > others {
            true => self.proven,
            false => others + tokens / 2,
        };
        self.learned = Some(limit.max(1));
        if limit > tokens / 2 {
            // What is there was taken: the limit is near.
            self.probe_at = now + PROBE_AFTER;
        }
        let doublings = self.refusals.saturating_sub(1).min(DOUBLINGS);
        self.closed_until = self.closed_until.max(now + pause * (1 << doublings));
    }

    /// A batch was taken that made `enqueued` tokens in all: the limit rises towards
    /// what is configured, or slowly until it is no limit any more.
    pub fn taken(&mut self, enqueued: u64, now: Timestamp) {
        self.refusals = 0;
        self.proven = self.proven.max(enqueued);
        let Some(learned) = self.learned else {
            return;
        };
        let learned = learned.max(enqueued);
        if now < self.probe_at {
            self.learned = Some(learned);
            return;
        }
        let (risen, needless) = match self.configured {
            Some(configured) => (learned.saturating_mul(2), configured),
            None => (learned + learned / 8 + 1, self.refused.saturating_mul(2)),
        };
        self.learned = (risen < needless).then_some(risen);
    }

    /// Takes in what another budget has learned of the same limit: the less of two,
    /// until more is taken.
    pub fn absorb(&mut self, other: Budget) {
        self.learned = match (self.learned, other.learned) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.refused = self.refused.max(other.refused);
        self.proven = self.proven.max(other.proven);
        self.refusals = self.refusals.max(other.refusals);
        self.closed_until = self.closed_until.max(other.closed_until);
        self.probe_at = self.probe_at.max(other.probe_at);
        self.kept_for = self.kept_for.or(other.kept_for);
    }

    /// Whether a batch of so many lines, which was refused, will never fit.
    pub fn is_hopeless(&self, lines: u32, tokens: u64) -> bool {
        let too_large = self.configured.is_some_and(|limit| tokens > limit);
        lines == 1 && (too_large || self.refusals >= NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::pack::tests::cohort;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    fn room(budget: &Budget, enqueued: Option<u64>) -> Room {
        budget.room(&cohort(1), enqueued, at(100))
    }

    fn tokens(most: u64, first: u64) -> Room {
        Room::Tokens(Tokens { most, first })
    }

    fn learned(limit: u64) -> Budget {
        let mut budget = Budget::new(None);
        budget.refused(2 * limit, None, Duration::ZERO, at(0));
        budget
    }

    #[test]
    fn a_limit_is_handed_out_in_parts() {
        let budget = Budget::new(Some(80_000));
        for (enqueued, expected) in [
            (None, tokens(20_000, u64::MAX)),
            (Some(0), tokens(20_000, 80_000)),
            (Some(65_000), tokens(15_000, 15_000)),
            (Some(70_000), tokens(10_000, 10_000)),
            (Some(70_001), Room::Closed(None)),
            (Some(90_000), Room::Closed(None)),
        ] {
            assert_eq!(room(&budget, enqueued), expected, "{enqueued:?}");
        }
        assert_eq!(room(&Budget::new(None), Some(1)), Room::Open);
    }

    #[test]
    fn a_limit_is_learned_from_refusals() {
        for (tokens, others, limit) in [
            (1000, None, 500),
            (1, None, 1),
            (1000, Some(4000), 4500),
            (1000, Some(0), 500),
        ] {
            let mut budget = Budget::new(None);
            budget.refused(tokens, others, MINUTE, at(0));
            assert_eq!(budget.limit(), Some(limit), "{tokens} beside {others:?}");
            let closed = Room::Closed(Some(at(60)));
            assert_eq!(budget.room(&cohort(1), None, at(59)), closed);
        }
    }

    #[test]
    fn the_books_may_be_wrong_about_what_is_configured() {
        let mut budget = Budget::new(Some(300));
        budget.refused(200, None, MINUTE, at(0));
        assert_eq!(budget.limit(), Some(100));
        budget.taken(100, at(60));
        assert_eq!(budget.limit(), Some(200));
        budget.taken(200, at(60));
        assert_eq!(budget.limit(), Some(300));
    }

    #[test]
    fn what_was_taken_once_is_tried_again_and_more_only_later() {
        let mut budget = learned(1000);
        budget.taken(1000, at(0));
        assert_eq!(budget.limit(), Some(1126));
        budget.refused(120, Some(1000), MINUTE, at(10));
        assert_eq!(budget.limit(), Some(1060), "half of what was too much");
        budget.taken(1060, at(11));
        assert_eq!(budget.limit(), Some(1060), "for an hour");
        budget.taken(1060, at(4000));
        assert_eq!(budget.limit(), Some(1193));
        budget.refused(120, Some(1050), MINUTE, at(4010));
        assert_eq!(budget.limit(), Some(1060), "as much as was taken");
        budget.refused(1000, None, MINUTE, at(5000));
        assert_eq!(budget.limit(), Some(500), "less is allowed than was");
    }

    #[test]
    fn a_limit_that_binds_no_more_is_forgotten() {
        let mut budget = learned(1000);
        let mut steps = 0;
        while let Some(limit) = budget.limit() {
            budget.taken(limit, at(steps));
            steps += 1;
        }
        assert!((10..20).contains(&steps), "{steps}");
    }

    #[test]
    fn a_line_that_is_alone_never_fits_after_five_refusals() {
        let mut budget = Budget::new(None);
        for refusals in 1..=7 {
            budget.refused(100, None, MINUTE, at(0));
            assert_eq!(budget.is_hopeless(1, 100), refusals >= 5);
            assert!(!budget.is_hopeless(2, 100));
        }
        let closed = Room::Closed(Some(at(16 * 60)));
        assert_eq!(budget.room(&cohort(1), None, at(959)), closed);
        budget.taken(1, at(0));
        assert!(!budget.is_hopeless(1, 100), "from then on it counts anew");
        for _ in 0..9 {
            budget.refused(100, Some(5), MINUTE, at(0));
        }
        assert!(!budget.is_hopeless(1, 100), "others stood in its way");
        let budget = Budget::new(Some(99));
        assert!(budget.is_hopeless(1, 100) && !budget.is_hopeless(2, 100));
    }

    #[test]
    fn room_is_kept_for_who_needs_more_of_it() {
        let mut budget = Budget::new(Some(100));
        budget.keep_for(cohort(2));
        assert_eq!(room(&budget, None), Room::Closed(None));
        assert_ne!(budget.room(&cohort(2), None, at(0)), Room::Closed(None));
        budget.keep_for_nobody();
        assert_eq!(room(&budget, Some(0)), tokens(25, 100));
    }
}
