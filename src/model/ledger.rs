//! The ledger's rows: what was paid and what it would have cost.

use serde::{Deserialize, Serialize};

use super::{attempt::Lane, id::TenantId, money::Usd, request::Usage};

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
    /// Answered in a lane further up the ladder than admission chose.
    pub rescued: u64,
    /// Answers that were billed although the request had another.
    pub paid_twice: u64,
    /// Live calls that nobody saw end; they may have been billed.
    pub unaccounted: u64,
    /// Answers whose model has no price: in tokens only.
    pub unpriced: u64,
    pub usage: Usage,
    pub paid: Usd,
    /// The same answers at the standard price; answers paid twice count once.
    pub standard: Usd,
    /// The part of `paid` that went for answers in a dearer lane than admission
    /// chose, at their full price; and, as estimated, what such calls may have cost
    /// whose price nobody saw. What the rescue budget counts.
    pub rescue_paid: Usd,
    /// What may have been paid beside `paid`, as estimated from above: for answers
    /// whose price is not known, and for calls that nobody saw end. What the budgets of
    /// issued keys count beside `paid`, and nothing else does.
    pub reckoned: Usd,
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
        self.usage.input += other.usage.input;
        self.usage.cached += other.usage.cached;
        self.usage.output += other.usage.output;
        self.paid += other.paid;
        self.standard += other.standard;
        self.rescue_paid += other.rescue_paid;
        self.reckoned += other.reckoned;
    }
}
