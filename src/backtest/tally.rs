//! What a policy paid, and when its answers came.

use std::time::Duration;

use super::{
    trace::Request,
    world::{Progress, RequestIx},
};
use crate::model::{money::Usd, time::Timestamp};

/// Bins of answer ages, four an octave from one second on.
pub const BINS: usize = 80;

#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    pub cost: Usd,
    pub answered: u64,
    /// Answered after their deadline, or not at all.
    pub missed: u64,
    /// Never answered; not paid either.
    pub unanswered: u64,
    /// Of those that a promise was given to; none where none was given.
    pub missed_firm: Option<u64>,
    pub firm: u64,
    /// Answered by an ordinary call, after a cheaper lane was tried.
    pub rescued: u64,
    /// Answered by an ordinary call, all of them.
    pub standard: u64,
    pub paid_twice: u64,
    pub paid_twice_cost: Usd,
    pub late_total: Duration,
    pub late_most: Duration,
    pub batches: u64,
    pub flex: u64,
    /// Answers by how long after the arrival they came.
    pub ages: Vec<u64>,
    /// By request: a promise was given, and it was missed.
    firm_requests: Vec<bool>,
    late_requests: Vec<bool>,
}

impl Tally {
    pub fn new(requests: usize) -> Tally {
        Tally {
            cost: Usd::ZERO,
            answered: 0,
            missed: 0,
            unanswered: 0,
            missed_firm: None,
            firm: 0,
            rescued: 0,
            standard: 0,
            paid_twice: 0,
            paid_twice_cost: Usd::ZERO,
            late_total: Duration::ZERO,
            late_most: Duration::ZERO,
            batches: 0,
            flex: 0,
            ages: vec![0; BINS],
            firm_requests: vec![false; requests],
            late_requests: vec![false; requests],
        }
    }

    /// A promise is given.
    pub fn promise(&mut self, request: RequestIx) {
        self.firm += 1;
        self.firm_requests[request as usize] = true;
    }

    /// The first answer of a request; `tried` where a cheaper lane was entered.
    pub fn answer(
        &mut self,
        asked: &Request,
        request: RequestIx,
        now: Timestamp,
        paid: Usd,
        standard: bool,
        tried: bool,
    ) {
        self.cost += paid;
        self.answered += 1;
        self.standard += u64::from(standard);
        self.rescued += u64::from(standard && tried);
        self.ages[bin(asked.arrival.until(now))] += 1;
        if now > asked.deadline {
            let late = asked.deadline.until(now);
            self.missed += 1;
            self.late_total += late;
            self.late_most = self.late_most.max(late);
            self.late_requests[request as usize] = true;
        }
    }

    /// Another answer, for nothing.
    pub fn again(&mut self, _request: RequestIx, paid: Usd) {
        self.cost += paid;
        self.paid_twice += 1;
        self.paid_twice_cost += paid;
    }

    /// Nothing more will come.
    pub fn over(&mut self, requests: &[Request], progress: &[Progress]) {
        for (index, _) in requests.iter().enumerate() {
            if !progress[index].answered {
                self.unanswered += 1;
                self.missed += 1;
                self.late_requests[index] = true;
            }
        }
        if self.firm > 0 {
            let both = (self.firm_requests.iter()).zip(&self.late_requests);
            let missed = both.filter(|(firm, late)| **firm && **late).count();
            self.missed_firm = Some(missed as u64);
        }
    }

    /// Mean of those that came too late.
    pub fn late_mean(&self) -> Duration {
        let late = self.missed - self.unanswered;
        match u32::try_from(late) {
            Ok(late) if late > 0 => self.late_total / late,
            _ => Duration::ZERO,
        }
    }
}

fn bin(age: Duration) -> usize {
    let octaves = age.as_secs_f64().max(1.0).log2();
    ((octaves * 4.0).ceil() as usize).min(BINS - 1)
}

/// The longest age that a bin holds, in seconds.
pub fn bin_age(bin: usize) -> f64 {
    (bin as f64 / 4.0).exp2()
}
