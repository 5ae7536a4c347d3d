//! What a tenant's rescues may cost in an hour and in a day, both of UTC. What is
//! on its way keeps a reserve, so that spending stops at the budget and not behind
//! it.

use std::time::Duration;

use crate::model::{money::Usd, time::Timestamp};

/// None: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub per_hour: Option<Usd>,
    pub per_day: Option<Usd>,
}

/// What one tenant has spent of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// Hours since the Unix epoch: the one that is counted.
    hour: u32,
    in_hour: Usd,
    in_day: Usd,
    /// Kept for calls that are on their way.
    reserved: Usd,
    /// The part of it that is kept for those that went ahead of one who waits.
    ahead: Usd,
    /// Something did not fit, and nothing was renewed since.
    refused: Option<Window>,
}

/// Which of the two bounds it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    Hour,
    Day,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    /// It fits if those on their way cost less than was reserved for them, or once who
    /// is first in line has gone.
    AfterOthers,
    /// Not before the window ends.
    Spent(Window),
}

const HOUR: u64 = 3600;
const HOURS_A_DAY: u32 = 24;

/// The first hour of the day.
pub fn midnight(hour: u32) -> u32 {
    hour - hour % HOURS_A_DAY
}

impl Limits {
    pub fn is_bound(&self) -> bool {
        self.per_hour.is_some() || self.per_day.is_some()
    }

    pub fn of(&self, window: Window) -> Option<Usd> {
        match window {
            Window::Hour => self.per_hour,
            Window::Day => self.per_day,
        }
    }
}

impl Window {
    pub const ALL: [Window; 2] = [Window::Hour, Window::Day];

    /// When it is renewed.
    pub fn ends(self, now: Timestamp) -> Timestamp {
        let hours = match self {
            Window::Hour => 1,
            Window::Day => HOURS_A_DAY,
        };
        self.begins(now) + Duration::from_secs(u64::from(hours) * HOUR)
    }

    pub fn begins(self, now: Timestamp) -> Timestamp {
        let hour = match self {
            Window::Hour => now.as_hours(),
            Window::Day => midnight(now.as_hours()),
        };
        Timestamp::ZERO + Duration::from_secs(u64::from(hour) * HOUR)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Window::Hour => "hour",
            Window::Day => "day",
        }
    }
}

impl Purse {
    /// Counts what was paid in `hour`.
    pub fn book(&mut self, now: Timestamp, hour: u32, paid: Usd) {
        self.renew(now);
        if hour == self.hour {
            self.in_hour += paid;
        }
        if midnight(hour) == midnight(self.hour) {
            self.in_day += paid;
        }
    }

    /// Keeps `amount` for a call, where it fits. `first` is what another waits for who
    /// is before it in line: it goes ahead of that one where both fit as soon as all
    /// has ended that was on its way before.
    pub fn reserve(
        &mut self,
        now: Timestamp,
        amount: Usd,
        first: Option<Usd>,
        limits: &Limits,
    ) -> Verdict {
        self.renew(now);
        if let Some(window) = self.too_much(amount, limits) {
            self.refuse(window);
            return Verdict::Spent(window);
        }
        let kept = first.map_or(self.reserved, |first| self.reserved.max(first + self.ahead));
        if self.too_much(kept + amount, limits).is_some() {
            return Verdict::AfterOthers;
        }
        self.reserved += amount;
        if first.is_some() {
            self.ahead += amount;
        }
        Verdict::Granted
    }

    /// `ahead` where it had gone ahead of another.
    pub fn release(&mut self, amount: Usd, ahead: bool) {
        self.reserved = self.reserved - amount;
        if ahead {
            self.ahead = self.ahead - amount;
        }
    }

    /// Whether `more` still fits beside what is on its way, or on its way to be on
    /// its way (`committed`); and else which bound it is that is met.
    pub fn fits(
        &mut self,
        now: Timestamp,
        committed: Usd,
        more: Usd,
        limits: &Limits,
    ) -> Result<(), Window> {
        self.renew(now);
        match self.too_much(committed.max(self.reserved) + more, limits) {
            None => Ok(()),
            Some(window) => {
                self.refuse(window);
                Err(window)
            }
        }
    }

    /// What rescues may cost in the window at `due`: rescues come at the last moment, so
    /// the money of earlier windows is of no use. None where there is no bound.
    pub fn left_at(
        &mut self,
        now: Timestamp,
        due: Timestamp,
        window: Window,
        limits: &Limits,
    ) -> Option<Usd> {
        let limit = limits.of(window)?;
        let spent = match window.begins(due) <= now {
            true => self.spent(now, window),
            false => Usd::ZERO,
        };
        Some((limit - spent).max(Usd::ZERO))
    }

    /// Where something was refused that would cost nothing to anybody after this
    /// window: which window it is.
    pub fn refused(&mut self, now: Timestamp) -> Option<Window> {
        self.renew(now);
        self.refused
    }

    pub fn spent(&mut self, now: Timestamp, window: Window) -> Usd {
        self.renew(now);
        match window {
            Window::Hour => self.in_hour,
            Window::Day => self.in_day,
        }
    }

    pub fn reserved(&self) -> Usd {
        self.reserved
    }

    /// The later of the two ends counts where both are met.
    fn too_much(&self, more: Usd, limits: &Limits) -> Option<Window> {
        let over = |limit: Option<Usd>, spent: Usd| limit.is_some_and(|most| spent + more > most);
        if over(limits.per_day, self.in_day) {
            return Some(Window::Day);
        }
        over(limits.per_hour, self.in_hour).then_some(Window::Hour)
    }

    fn refuse(&mut self, window: Window) {
        self.refused = self.refused.max(Some(window));
    }

    fn renew(&mut self, now: Timestamp) {
        let hour = now.as_hours();
        // A clock that was set back does not renew anything.
        if hour <= self.hour {
            return;
        }
        let new_day = midnight(hour) != midnight(self.hour);
        self.hour = hour;
        self.in_hour = Usd::ZERO;
        if new_day {
            self.in_day = Usd::ZERO;
        }
        if new_day || self.refused == Some(Window::Hour) {
            self.refused = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Midnight.
    const NOW: Timestamp = Timestamp::from_secs(20_000 * 24 * HOUR);
    const LIMITS: Limits = Limits {
        per_hour: Some(Usd::from_pico(100)),
        per_day: Some(Usd::from_pico(150)),
    };

    fn later(hours: u64) -> Timestamp {
        NOW + Duration::from_secs(hours * HOUR)
    }

    fn usd(pico: i128) -> Usd {
        Usd::from_pico(pico)
    }

    #[test]
    fn what_is_on_its_way_counts() {
        let mut purse = Purse::default();
        assert_eq!(purse.reserve(NOW, usd(60), None, &LIMITS), Verdict::Granted);
        assert_eq!(
            purse.reserve(NOW, usd(60), None, &LIMITS),
            Verdict::AfterOthers
        );
        assert_eq!(purse.refused(NOW), None);
        purse.book(NOW, NOW.as_hours(), usd(30));
        purse.release(usd(60), false);
        assert_eq!(purse.reserve(NOW, usd(60), None, &LIMITS), Verdict::Granted);
        purse.book(NOW, NOW.as_hours(), usd(60));
        purse.release(usd(60), false);
        let spent = Verdict::Spent(Window::Hour);
        assert_eq!(purse.reserve(NOW, usd(60), None, &LIMITS), spent);
        assert_eq!(purse.refused(NOW), Some(Window::Hour));
        assert_eq!(purse.reserve(NOW, usd(10), None, &LIMITS), Verdict::Granted);
    }

    #[test]
    fn what_fits_beside_the_first_in_line_goes_ahead_of_it() {
        let mut purse = Purse::default();
        let first = Some(usd(20));
        assert_eq!(purse.reserve(NOW, usd(90), None, &LIMITS), Verdict::Granted);
        let waits = purse.reserve(NOW, usd(20), None, &LIMITS);
        assert_eq!(waits, Verdict::AfterOthers);
        assert_eq!(
            purse.reserve(NOW, usd(10), first, &LIMITS),
            Verdict::Granted
        );
        purse.release(usd(90), false);
        // Its money is there, and stays there whoever goes ahead.
        let mut ahead = 10;
        while purse.reserve(NOW, usd(7), first, &LIMITS) == Verdict::Granted {
            ahead += 7;
        }
        assert_eq!(ahead, 80);
        assert_eq!(purse.reserve(NOW, usd(20), None, &LIMITS), Verdict::Granted);
        purse.release(usd(20), false);
        purse.release(usd(7), true);
        assert_eq!(purse.reserve(NOW, usd(7), first, &LIMITS), Verdict::Granted);
    }

    #[test]
    fn each_window_is_renewed_at_its_end() {
        let mut purse = Purse::default();
        purse.book(NOW, NOW.as_hours(), usd(100));
        let spent = Verdict::Spent;
        assert_eq!(
            purse.reserve(NOW, usd(1), None, &LIMITS),
            spent(Window::Hour)
        );
        assert_eq!(Window::Hour.ends(NOW), later(1));
        assert_eq!(purse.refused(later(1)), None);
        assert_eq!(
            purse.reserve(later(1), usd(51), None, &LIMITS),
            spent(Window::Day)
        );
        assert_eq!(purse.refused(later(23)), Some(Window::Day));
        assert_eq!(Window::Day.ends(later(23)), later(24));
        assert_eq!(
            purse.reserve(later(24), usd(100), None, &LIMITS),
            Verdict::Granted
        );
        // What was paid in an hour that is over counts in its day only.
        let mut purse = Purse::default();
        purse.book(later(5), later(2).as_hours(), usd(70));
        purse.book(later(5), NOW.as_hours() - 1, usd(70));
        assert_eq!(purse.spent(later(5), Window::Hour), Usd::ZERO);
        assert_eq!(purse.spent(later(5), Window::Day), usd(70));
    }

    #[test]
    fn no_limit_is_no_bound_and_nothing_is_nothing() {
        let mut purse = Purse::default();
        let much = usd(i128::MAX);
        assert_eq!(
            purse.reserve(NOW, much, None, &Limits::default()),
            Verdict::Granted
        );
        let nothing = Limits {
            per_hour: Some(Usd::ZERO),
            per_day: None,
        };
        let mut purse = Purse::default();
        assert_eq!(
            purse.reserve(NOW, Usd::ZERO, None, &nothing),
            Verdict::Granted
        );
        let spent = Verdict::Spent(Window::Hour);
        assert_eq!(purse.reserve(NOW, usd(1), None, &nothing), spent);
    }

    proptest! {
        /// Whatever is reserved, and never costs more than that: no window is over
        /// its limit.
        #[test]
        fn spending_stops_at_the_budget(
            steps in prop::collection::vec(
                (0u64..1800, 1i128..60, 0.0..1.0, any::<bool>(), prop::option::of(1i128..60)),
                1..300,
            ),
        ) {
            let (mut purse, mut now, mut flying) = (Purse::default(), NOW, Vec::new());
            for (seconds, amount, share, end, first) in steps {
                now = now + Duration::from_secs(seconds);
                if end && !flying.is_empty() {
                    let (reserved, ahead): (i128, bool) = flying.remove(0);
                    let paid = (reserved as f64 * share) as i128;
                    purse.book(now, now.as_hours(), usd(paid));
                    purse.release(usd(reserved), ahead);
                } else if purse.reserve(now, usd(amount), first.map(usd), &LIMITS)
                    == Verdict::Granted
                {
                    flying.push((amount, first.is_some()));
                }
                prop_assert!(purse.spent(now, Window::Hour) <= usd(100));
                prop_assert!(purse.spent(now, Window::Day) <= usd(150));
                prop_assert_eq!(purse.reserved(), usd(flying.iter().map(|it| it.0).sum()));
            }
        }
    }
}
