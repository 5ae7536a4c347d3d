//! How much is open, of all and of each tenant, and whether one more has room.

use std::{collections::HashMap, time::Duration};

use crate::{
    engine::settings::AdmissionSettings,
    model::{
        id::{DestinationId, TenantId},
        request::Entry,
        time::Timestamp,
    },
};

/// Requests without an answer, wherever they are.
#[derive(Debug, Default)]
pub struct Open {
    all: Load,
    /// Those with any.
    tenants: HashMap<TenantId, Load>,
    /// How many go there.
    destinations: HashMap<DestinationId, u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    requests: u64,
    /// Of their lines.
    bytes: u64,
    endings: Endings,
}

/// Why there is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// A bound of the tenant's own, not of all together.
    pub of_tenant: bool,
    /// It is the bytes that are too many, not the requests.
    pub of_bytes: bool,
    pub requests: u64,
    pub bytes: u64,
    /// After which one more is expected to have ended: the mean time between two
    /// endings, of those seen lately.
    pub retry_after: Duration,
}

/// The most of one kind.
struct Bounds {
    requests: u64,
    bytes: u64,
}

impl Open {
    pub fn enter(&mut self, entry: &Entry) {
        self.all.enter(entry);
        self.tenants
            .entry(entry.key.tenant)
            .or_default()
            .enter(entry);
        let destination = entry.cohort.destination;
        *self.destinations.entry(destination).or_default() += 1;
    }

    pub fn exit(&mut self, entry: &Entry) {
        self.all.exit(entry);
        if let Some(load) = self.tenants.get_mut(&entry.key.tenant) {
            load.exit(entry);
            if load.requests == 0 {
                self.tenants.remove(&entry.key.tenant);
            }
        }
        let destination = entry.cohort.destination;
        if let Some(requests) = self.destinations.get_mut(&destination) {
            *requests -= 1;
            if *requests == 0 {
                self.destinations.remove(&destination);
            }
        }
    }

    /// Requests of the tenant's.
    pub fn of(&self, tenant: TenantId) -> u64 {
        self.tenants.get(&tenant).map_or(0, |load| load.requests)
    }

    pub fn has_any(&self, tenant: TenantId) -> bool {
        self.tenants.contains_key(&tenant)
    }

    pub fn goes_to(&self, destination: DestinationId) -> bool {
        self.destinations.contains_key(&destination)
    }

    /// `spare`: bytes that the disk has for admissions. A tenant may have as many of them
    /// as are then still free, whatever the settings allow: alone half of the disk. Where
    /// they are too few for the request itself, the store says so.
    ///
    /// # Errors
    /// Where a request of so many bytes would be one too many. The first of a tenant
    /// always has room within the tenant's bytes, and the first of all within all's.
    pub fn room(
        &mut self,
        tenant: TenantId,
        bytes: u64,
        spare: u64,
        settings: &AdmissionSettings,
        now: Timestamp,
    ) -> Result<(), Full> {
        let all = Bounds {
            requests: settings.max_open,
            bytes: settings.max_open_bytes,
        };
        self.all.room(bytes, &all, now)?;
        let Some(load) = self.tenants.get_mut(&tenant) else {
            return Ok(());
        };
        let of_disk = spare.checked_sub(bytes).unwrap_or(u64::MAX);
        let own = Bounds {
            requests: settings.max_open_per_tenant,
            bytes: settings.max_open_bytes_per_tenant.min(of_disk),
        };
        load.room(bytes, &own, now).map_err(|full| Full {
            of_tenant: true,
            ..full
        })
    }

    /// What equals a rescan.
    #[cfg(test)]
    pub fn counted(&self) -> Counted {
        let of = |load: &Load| (load.requests, load.bytes);
        let tenants = self.tenants.iter();
        Counted {
            all: of(&self.all),
            tenants: tenants.map(|(tenant, load)| (*tenant, of(load))).collect(),
            destinations: self.destinations.clone(),
        }
    }
}

/// Requests and bytes, of all and by tenant; requests by destination.
#[cfg(test)]
#[derive(Debug, PartialEq)]
pub struct Counted {
    all: (u64, u64),
    tenants: HashMap<TenantId, (u64, u64)>,
    destinations: HashMap<DestinationId, u64>,
}

impl Load {
    fn enter(&mut self, entry: &Entry) {
        self.requests += 1;
        self.bytes += u64::from(entry.line_bytes);
    }

    fn exit(&mut self, entry: &Entry) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.line_bytes.into());
        self.endings.count += 1;
    }

    fn room(&mut self, more: u64, bounds: &Bounds, now: Timestamp) -> Result<(), Full> {
        self.endings.forget(now);
        let of_bytes = self.requests > 0 && self.bytes.saturating_add(more) > bounds.bytes;
        if self.requests < bounds.requests && !of_bytes {
            return Ok(());
        }
        Err(Full {
            of_tenant: false,
            of_bytes: self.requests < bounds.requests,
            requests: self.requests,
            bytes: self.bytes,
            retry_after: self.endings.apart(now),
        })
    }
}

/// How fast requests end.
#[derive(Clone, Copy, Debug, Default)]
struct Endings {
    count: u64,
    /// Since when they are counted; none until anybody asks.
    since: Option<Timestamp>,
}

impl Endings {
    /// How much of the past counts: half of it is forgotten when it is longer.
    const LATELY: Duration = Duration::from_secs(10 * 60);
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60 * 60);

    fn forget(&mut self, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        let seen = now.since(since);
        if seen > Self::LATELY {
            self.since = Some(since + seen / 2);
            self.count /= 2;
        }
    }

    /// The mean time between two; where none was seen, the time that none was.
    fn apart(&self, now: Timestamp) -> Duration {
        let seen = self.since.map_or(Duration::ZERO, |since| now.since(since));
        let count = u32::try_from(self.count).unwrap_or(u32::MAX).max(1);
        (seen / count).clamp(Self::SHORTEST, Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::summary::tests::entry,
        model::id::{RequestKey, TenantId},
    };

    fn settings(requests: u64, bytes: u64) -> AdmissionSettings {
        let defaults: toml::Table = include_str!("../../../config/default.toml")
            .parse()
            .unwrap();
        let settings: AdmissionSettings = defaults["admission"].clone().try_into().unwrap();
        AdmissionSettings {
            max_open_per_tenant: requests,
            max_open_bytes_per_tenant: bytes,
            ..settings
        }
    }

    fn of(tenant: u8, bytes: u32) -> Entry {
        let entry = entry(tenant, false, bytes);
        let tenant = TenantId([tenant; 16]);
        Entry {
            key: RequestKey {
                tenant,
                ..entry.key
            },
            ..entry
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn one_tenants_bounds_are_not_anothers() {
        let (one, other) = (TenantId([1; 16]), TenantId([2; 16]));
        let mut open = Open::default();
        let settings = settings(2, 100);
        assert_eq!(
            open.room(one, 1_000, u64::MAX, &settings, at(0)),
            Ok(()),
            "the first"
        );
        for _ in 0..2 {
            assert_eq!(open.room(one, 50, u64::MAX, &settings, at(0)), Ok(()));
            open.enter(&of(1, 50));
        }
        let full = open.room(one, 0, u64::MAX, &settings, at(0)).unwrap_err();
        assert!(full.of_tenant && !full.of_bytes);
        assert_eq!((full.requests, full.bytes), (2, 100));
        assert_eq!(open.room(other, 0, u64::MAX, &settings, at(0)), Ok(()));
        open.exit(&of(1, 50));
        assert_eq!(open.room(one, 50, u64::MAX, &settings, at(0)), Ok(()));
        let full = open.room(one, 51, u64::MAX, &settings, at(0)).unwrap_err();
        assert!(full.of_tenant && full.of_bytes);
        open.exit(&of(1, 50));
        assert!(!open.has_any(one));

        let few = AdmissionSettings {
            max_open: 1,
            ..settings
        };
        open.enter(&of(2, 1));
        let full = open.room(one, 1, u64::MAX, &few, at(0)).unwrap_err();
        assert!(!full.of_tenant && !full.of_bytes);
    }

    #[test]
    fn a_tenant_leaves_as_much_of_the_disk_as_it_takes() {
        let (one, other) = (TenantId([1; 16]), TenantId([2; 16]));
        let settings = settings(1_000, u64::MAX);
        let mut open = Open::default();
        let disk = 100;
        let mut used = 0;
        let mut fill = |open: &mut Open, tenant, number| {
            let before = used;
            while open.room(tenant, 10, disk - used, &settings, at(0)).is_ok() {
                open.enter(&of(number, 10));
                used += 10;
            }
            used - before
        };
        assert_eq!(fill(&mut open, one, 1), 50);
        assert_eq!(fill(&mut open, other, 2), 20);
        let full = open.room(one, 10, 30, &settings, at(0)).unwrap_err();
        assert!(full.of_tenant && full.of_bytes);
        let third = TenantId([3; 16]);
        assert_eq!(open.room(third, 30, 30, &settings, at(0)), Ok(()));
        // The store tells that the disk is full.
        assert_eq!(open.room(one, 10, 9, &settings, at(0)), Ok(()));
    }

    #[test]
    fn when_to_come_again_is_how_fast_requests_end() {
        let one = TenantId([1; 16]);
        let settings = settings(100, u64::MAX);
        let mut open = Open::default();
        for _ in 0..200 {
            open.enter(&of(1, 1));
        }
        let asked = |open: &mut Open, seconds| {
            let full = open
                .room(one, 1, u64::MAX, &settings, at(seconds))
                .unwrap_err();
            full.retry_after.as_secs_f64()
        };
        assert_eq!(asked(&mut open, 0), 1.0, "nothing is known");
        assert_eq!(asked(&mut open, 60), 60.0, "none in a minute");
        for _ in 0..12 {
            open.exit(&of(1, 1));
        }
        assert_eq!(asked(&mut open, 120), 10.0);
        assert_eq!(asked(&mut open, 600), 50.0);
        // 6 in the 400 seconds that are left.
        assert_eq!(asked(&mut open, 800).floor(), 66.0);
        for _ in 0..80 {
            open.exit(&of(1, 1));
        }
        assert_eq!(asked(&mut open, 800).floor(), 4.0);
    }
}
