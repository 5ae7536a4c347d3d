//! The ledger's rows: what was paid and what it would have cost.

use serde::{Deserialize, Serialize};

use super::{attempt::Lane, id::TenantId, money::Usd, request::Usage, time::Timestamp};

/// What rows are kept by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerKey {
    pub tenant: TenantId,
    /// Hours since the Unix epoch.
    pub hour: u32,
    pub lane: Option<Lane>,
    pub model: String,
    pub tag: Option<String>,
}

/// Counts and sums; rows of one key add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    pub requests: u64,
    pub succeeded: u64,
    pub late: u64,
    /// Answered in a lane further up the ladder than was planned, to be on time.
    pub rescued: u64,
    /// Answers that were billed although the request had another that was.
    pub paid_twice: u64,
    /// Live calls that nobody saw end; they may have been billed.
    pub unaccounted: u64,
    /// Answers whose price is not known: in tokens only. Late ones are not counted.
    pub unpriced: u64,
    /// Of answers that came too late, too.
    pub usage: Usage,
    pub paid: Usd,
    /// What the answers that ended requests cost at the standard price.
    pub standard: Usd,
    /// The part of `paid` that went for rescues, late ones too, at their full price; and,
    /// where a rescue budget kept money for them, what such calls may have cost whose price
    /// is not known or which nobody saw end. What the rescue budget counts.
    pub rescue_paid: Usd,
    /// What may have been paid beside `paid`, as estimated from above: for answers
    /// whose price is not known, and for calls that nobody saw end. What the budgets of
    /// issued keys count beside `paid`, and nothing else does.
    pub reckoned: Usd,
    /// How long before their deadlines requests were answered.
    pub slack: Slack,
}

impl LedgerRow {
    pub fn add(&mut self, other: &LedgerRow) {
        self.requests += other.requests;
        self.succeeded += other.succeeded;
        self.late += other.late;
        self.rescued += other.rescued;
        self.paid_twice += other.paid_twice;
        self.unaccounted += other.unaccounted;
        self.unpriced += other.unpriced;
        self.usage += other.usage;
        self.paid += other.paid;
        self.standard += other.standard;
        self.rescue_paid += other.rescue_paid;
        self.reckoned += other.reckoned;
        self.slack.add(&other.slack);
    }
}

/// How many answers came how long before their deadline, or behind it.
///
/// The n-th count is of those below the n-th of [`Slack::BOUNDS`] and not below the one
/// before it; the last is of the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slack([u64; Slack::BOUNDS.len() + 1]);

impl Slack {
    /// Seconds that were left until the deadline; negative where it was past.
    pub const BOUNDS: [i64; 10] = [
        -3_600, 0, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400,
    ];

    /// Of one answer.
    pub fn of(deadline: Timestamp, finished: Timestamp) -> Slack {
        let left = i128::from(deadline.as_millis()) - i128::from(finished.as_millis());
        let mut slack = Slack::default();
        slack.0[Slack::BOUNDS.partition_point(|bound| i128::from(*bound) * 1_000 <= left)] = 1;
        slack
    }

    pub fn counts(&self) -> &[u64] {
        &self.0
    }

    fn add(&mut self, other: &Slack) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_by_what_was_left() {
        const HOUR: i64 = 3_600_000;
        let deadline = Timestamp::from_secs(1_800_000_000);
        // What is exactly on time is not late, as `LedgerRow::late` has it.
        for (left, place) in [
            (-HOUR - 1, 0),
            (-HOUR, 1),
            (-1, 1),
            (0, 2),
            (59_999, 2),
            (60_000, 3),
            (300_000, 4),
            (900_000, 5),
            (HOUR, 6),
            (3 * HOUR, 7),
            (6 * HOUR, 8),
            (12 * HOUR, 9),
            (24 * HOUR - 1, 9),
            (24 * HOUR, 10),
        ] {
            let finished = Timestamp::from_millis((deadline.as_millis() as i64 - left) as u64);
            let mut counts = [0; 11];
            counts[place] = 1;
            assert_eq!(Slack::of(deadline, finished).counts(), counts, "{left}");
        }
    }

    #[test]
    fn counts_add_up() {
        let at = Timestamp::from_secs;
        let mut sum = Slack::of(at(100), at(100));
        sum.add(&Slack::of(at(100), at(50)));
        sum.add(&Slack::of(at(100), at(101)));
        assert_eq!(sum.counts(), [0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
