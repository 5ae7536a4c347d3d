//! What a tenant may have paid in a calendar month of UTC.

use std::time::Duration;

use crate::model::{money::Usd, time::Timestamp};

/// A calendar month of UTC. Months begin at whole hours, as the ledger's rows do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Month {
    pub begins: Timestamp,
    /// The first instant of the next one.
    pub ends: Timestamp,
}

impl Month {
    pub fn of(now: Timestamp) -> Month {
        let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let Ok(instant) = jiff::Timestamp::from_millisecond(millis) else {
            // After the year 9999: it never ends.
            return Month {
                begins: now,
                ends: Timestamp::MAX,
            };
        };
        let today = instant.to_zoned(jiff::tz::TimeZone::UTC).date();
        let days = |count: i8| Duration::from_secs(86_400 * u64::from(count.unsigned_abs()));
        let midnight = now - Duration::from_millis(now.as_millis() % 86_400_000);
        let begins = midnight - days(today.day() - 1);
        Month {
            begins,
            ends: begins + days(today.days_in_month()),
        }
    }

    fn has(&self, hour: u32) -> bool {
        (self.begins.as_hours()..self.ends.as_hours()).contains(&hour)
    }
}

/// What was paid this month, and what is kept for calls that are being taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    month: Month,
    paid: Usd,
    reckoned: Usd,
    entering: Usd,
}

/// What does not fit into a budget any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub budget: Usd,
    pub paid: Usd,
    /// What may have been paid beside it.
    pub reckoned: Usd,
    /// Kept for calls that are open or come in.
    pub reserved: Usd,
    pub renewed: Timestamp,
}

impl Account {
    /// Counts what was paid in `hour`, and what may have been beside it; of another
    /// month it is of no account.
    pub fn book(&mut self, now: Timestamp, hour: u32, paid: Usd, reckoned: Usd) {
        self.renew(now);
        if self.month.has(hour) {
            self.paid += paid;
            self.reckoned += reckoned;
        }
    }

    /// Keeps `amount` for a call that comes in, where it fits into the budget, if there
    /// is one, beside what was paid, or may have been, and what is `open`.
    ///
    /// # Errors
    /// Where it does not.
    pub fn enter(
        &mut self,
        now: Timestamp,
        open: Usd,
        amount: Usd,
        budget: Option<Usd>,
    ) -> Result<(), Exceeded> {
        self.renew(now);
        let reserved = open + self.entering;
        let all = self.paid + self.reckoned + reserved + amount;
        if let Some(budget) = budget
            && all > budget
        {
            return Err(Exceeded {
                budget,
                paid: self.paid,
                reckoned: self.reckoned,
                reserved,
                renewed: self.month.ends,
            });
        }
        self.entering += amount;
        Ok(())
    }

    /// The call is counted among the open ones, or was not taken in.
    pub fn entered(&mut self, amount: Usd) {
        self.entering = self.entering - amount;
    }

    pub fn paid(&mut self, now: Timestamp) -> Usd {
        self.renew(now);
        self.paid
    }

    /// What may have been paid beside it.
    pub fn reckoned(&mut self, now: Timestamp) -> Usd {
        self.renew(now);
        self.reckoned
    }

    /// A clock that was set back renews nothing.
    fn renew(&mut self, now: Timestamp) {
        if now >= self.month.ends {
            self.month = Month::of(now);
            self.paid = Usd::ZERO;
            self.reckoned = Usd::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let instant: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_millis(instant.as_millisecond() as u64)
    }

    fn usd(pico: i128) -> Usd {
        Usd::from_pico(pico)
    }

    #[test]
    fn months_are_the_calendar_s() {
        for (now, begins, ends) in [
            (
                "2026-11-27T20:00:00.123Z",
                "2026-11-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                "2026-12-31T23:59:59.999Z",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "2028-02-01T00:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                "2028-02-29T00:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                "1970-01-01T00:00:00Z",
                "1970-01-01T00:00:00Z",
                "1970-02-01T00:00:00Z",
            ),
        ] {
            let expected = Month {
                begins: at(begins),
                ends: at(ends),
            };
            assert_eq!(Month::of(at(now)), expected, "{now}");
        }
        assert_eq!(Month::of(Timestamp::MAX).ends, Timestamp::MAX);
    }

    #[test]
    fn what_is_paid_open_and_coming_in_stays_within_the_budget() {
        let now = at("2026-11-27T20:00:00Z");
        for (paid, reckoned, open, entering, amount, fits) in [
            (0, 0, 0, 0, 100, true),
            (0, 0, 0, 0, 101, false),
            (60, 0, 0, 0, 40, true),
            (60, 0, 0, 0, 41, false),
            (40, 20, 0, 0, 40, true),
            (40, 20, 0, 0, 41, false),
            (60, 0, 20, 0, 20, true),
            (60, 0, 20, 0, 21, false),
            (60, 0, 20, 10, 10, true),
            (50, 10, 20, 10, 11, false),
            (100, 0, 0, 0, 0, true),
        ] {
            let mut account = Account::default();
            account.book(now, now.as_hours(), usd(paid), usd(reckoned));
            account
                .enter(now, Usd::ZERO, usd(entering), Some(usd(1_000)))
                .unwrap();
            let entered = account.enter(now, usd(open), usd(amount), Some(usd(100)));
            let expected = match fits {
                true => Ok(()),
                false => Err(Exceeded {
                    budget: usd(100),
                    paid: usd(paid),
                    reckoned: usd(reckoned),
                    reserved: usd(open + entering),
                    renewed: at("2026-12-01T00:00:00Z"),
                }),
            };
            assert_eq!(
                entered, expected,
                "{paid} {reckoned} {open} {entering} {amount}"
            );
            let unbound = account.enter(now, usd(open), usd(amount), None);
            assert_eq!(unbound, Ok(()));
        }
    }

    #[test]
    fn a_month_is_renewed_when_it_ends_and_never_back() {
        let (november, december) = (at("2026-11-30T23:59:59Z"), at("2026-12-01T00:00:00Z"));
        let mut account = Account::default();
        account.book(november, november.as_hours(), usd(60), usd(10));
        assert!(
            account
                .enter(november, Usd::ZERO, usd(31), Some(usd(100)))
                .is_err()
        );
        account
            .enter(november, Usd::ZERO, usd(30), Some(usd(100)))
            .unwrap();
        assert_eq!(account.paid(december), Usd::ZERO);
        assert_eq!(account.reckoned(december), Usd::ZERO);
        // What is still coming in counts in the new month, as it will be paid there.
        assert!(
            account
                .enter(december, Usd::ZERO, usd(71), Some(usd(100)))
                .is_err()
        );
        account.entered(usd(30));
        account
            .enter(december, Usd::ZERO, usd(71), Some(usd(100)))
            .unwrap();
        // A row of November that is told late, and a clock that was set back.
        account.book(december, november.as_hours(), usd(50), Usd::ZERO);
        account.book(november, november.as_hours(), usd(50), Usd::ZERO);
        assert_eq!(account.paid(december), Usd::ZERO);
        account.book(december, december.as_hours(), usd(5), Usd::ZERO);
        assert_eq!(account.paid(december), usd(5));
    }
}
