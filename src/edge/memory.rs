//! The bytes of callers' bodies and of whole answers that are in memory, bounded for
//! all together and for each tenant.
//!
//! A tenant may have as many as are still free with them: alone half of all, two of them
//! a third each, so that who comes always finds some left. Where keys are the provider's,
//! anybody has as many tenants as he likes; so when there is no room, bodies that have
//! been coming for [`PATIENCE`] give way, the oldest first. Who keeps memory by sending
//! slowly loses it, and who would keep it by sending fast has to send all of it anew in
//! that time. Where nobody is so slow, who comes is told to come again: those whose
//! bodies are nearly there go on.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::model::id::TenantId;

/// Within this time a body has its place to itself.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Answers of up to so many bytes are not counted: a connection costs as much by itself.
pub const SMALL: u64 = 64 * 1024;

/// All of it.
pub struct Memory {
    most: u64,
    books: Mutex<Books>,
}

/// What one call has of it, until this is dropped.
pub struct Portion {
    memory: Arc<Memory>,
    tenant: TenantId,
    /// While it comes the books have the bytes.
    stage: Stage,
}

enum Stage {
    /// By its number: it may have had to give way.
    Coming(u64, Arc<Notify>),
    /// Bytes of what is whole.
    Whole(u64),
}

/// There is no room, or it was given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many bytes of bodies and answers are in memory as may be")]
pub struct Busy;

#[derive(Default)]
struct Books {
    used: u64,
    /// Those that have any.
    tenants: HashMap<TenantId, u64>,
    begun: u64,
    /// Bodies that are being read, the oldest first.
    coming: BTreeMap<u64, Coming>,
}

struct Coming {
    tenant: TenantId,
    bytes: u64,
    since: Instant,
    leave: Arc<Notify>,
}

impl Memory {
    /// Of so many bytes.
    pub fn new(most: u64) -> Arc<Memory> {
        let books = Mutex::default();
        Arc::new(Memory { most, books })
    }

    /// For a body that begins to come.
    pub fn begin(self: &Arc<Self>, tenant: TenantId) -> Portion {
        let leave = Arc::new(Notify::new());
        let coming = Coming {
            tenant,
            bytes: 0,
            since: Instant::now(),
            leave: leave.clone(),
        };
        let mut books = self.books.lock();
        books.begun += 1;
        let number = books.begun;
        books.coming.insert(number, coming);
        Portion {
            memory: self.clone(),
            tenant,
            stage: Stage::Coming(number, leave),
        }
    }

    /// For what is taken at once. What is larger than any tenant's part counts as that:
    /// it has to be told at some time.
    ///
    /// # Errors
    /// Where there is no room.
    pub fn take(self: &Arc<Self>, tenant: TenantId, bytes: u64) -> Result<Portion, Busy> {
        let bytes = bytes.min(self.most / 2);
        self.books.lock().add(tenant, bytes, self.most, None)?;
        Ok(Portion {
            memory: self.clone(),
            tenant,
            stage: Stage::Whole(bytes),
        })
    }

    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.books.lock().used
    }
}

impl Portion {
    /// Makes it `bytes` of a body that is coming.
    ///
    /// # Errors
    /// Where there is no room for as many, or it had to give way.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Busy> {
        let Stage::Coming(number, _) = &self.stage else {
            return Ok(());
        };
        let mut books = self.memory.books.lock();
        let has = books.coming.get(number).ok_or(Busy)?.bytes;
        books.add(self.tenant, bytes - has, self.memory.most, Some(*number))?;
        books.coming.get_mut(number).ok_or(Busy)?.bytes = bytes;
        Ok(())
    }

    /// Comes when another one needs the room more.
    pub fn leave(&self) -> Arc<Notify> {
        match &self.stage {
            Stage::Coming(_, leave) => leave.clone(),
            Stage::Whole(_) => Arc::default(),
        }
    }

    /// It has come, and keeps its place.
    ///
    /// # Errors
    /// It had to give way.
    pub fn whole(&mut self) -> Result<(), Busy> {
        if let Stage::Coming(number, _) = &self.stage {
            let coming = self.memory.books.lock().coming.remove(number);
            // Nothing is given back of what gave way.
            self.stage = Stage::Whole(coming.as_ref().map_or(0, |coming| coming.bytes));
            coming.ok_or(Busy)?;
        }
        Ok(())
    }

    /// The bytes, which hold it for as long as any of them are kept.
    pub fn of(self, bytes: Bytes) -> Bytes {
        struct Counted {
            bytes: Bytes,
            _portion: Portion,
        }
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Counted {
            bytes,
            _portion: self,
        })
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        let mut books = self.memory.books.lock();
        match &self.stage {
            Stage::Coming(number, _) => {
                if let Some(coming) = books.coming.remove(number) {
                    books.subtract(coming.tenant, coming.bytes);
                }
            }
            Stage::Whole(bytes) => books.subtract(self.tenant, *bytes),
        }
    }
}

impl Books {
    /// Counts `more` bytes of the tenant's, for the body with this number.
    fn add(
        &mut self,
        tenant: TenantId,
        more: u64,
        most: u64,
        number: Option<u64>,
    ) -> Result<(), Busy> {
        while !self.fits(tenant, more, most) {
            let oldest = self.coming.first_key_value();
            let (oldest, coming) = oldest.ok_or(Busy)?;
            if number == Some(*oldest) || coming.since.elapsed() < PATIENCE {
                return Err(Busy);
            }
            if let Some((_, gone)) = self.coming.pop_first() {
                self.subtract(gone.tenant, gone.bytes);
                gone.leave.notify_one();
            }
        }
        self.used += more;
        *self.tenants.entry(tenant).or_default() += more;
        Ok(())
    }

    /// Whether the tenant has no more with them than would be left.
    fn fits(&self, tenant: TenantId, more: u64, most: u64) -> bool {
        let own = self.tenants.get(&tenant).copied().unwrap_or_default();
        let free = most.saturating_sub(self.used);
        free >= more && own + more <= free - more
    }

    fn subtract(&mut self, tenant: TenantId, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
        if let Some(own) = self.tenants.get_mut(&tenant) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const ONE: TenantId = TenantId([1; 16]);
    const OTHER: TenantId = TenantId([2; 16]);

    fn body(memory: &Arc<Memory>, tenant: TenantId, bytes: u64) -> Result<Portion, Busy> {
        let mut portion = memory.begin(tenant);
        portion.grow(bytes).map(|()| portion)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_as_much_as_is_left_for_others() {
        let memory = Memory::new(90);
        let half = body(&memory, ONE, 45).unwrap();
        assert!(body(&memory, ONE, 1).is_err(), "half is all it may have");
        assert!(memory.take(ONE, 1).is_err(), "an answer is as large");
        let others = body(&memory, OTHER, 22).unwrap();
        assert!(body(&memory, OTHER, 1).is_err());
        assert_eq!(memory.used(), 67);
        drop(half);
        let more = body(&memory, OTHER, 8).unwrap();
        drop((others, more));
        assert_eq!(memory.used(), 0);
        assert!(memory.books.lock().tenants.is_empty());
        assert!(memory.books.lock().coming.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_the_slow_gives_way_and_the_quick_do_not() {
        let memory = Memory::new(100);
        let mut first = body(&memory, ONE, 30).unwrap();
        let mut second = body(&memory, OTHER, 30).unwrap();
        advance(PATIENCE - Duration::from_millis(1)).await;
        let third = TenantId([3; 16]);
        assert_eq!(body(&memory, third, 25).err(), Some(Busy), "none is slow");
        assert_eq!(first.grow(31), Ok(()));
        advance(Duration::from_millis(1)).await;
        let quick = body(&memory, third, 25).unwrap();
        first.leave().notified().await;
        assert_eq!(first.grow(32), Err(Busy));
        assert_eq!(first.whole(), Err(Busy));
        drop(first);
        assert_eq!(memory.used(), 55, "what gave way is given back once");
        assert_eq!(second.grow(60), Err(Busy), "it is the oldest itself");
        assert_eq!(second.whole(), Ok(()), "what is whole keeps its place");
        assert_eq!(body(&memory, third, 25).err(), Some(Busy));
        drop((second, quick));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_is_larger_than_a_part_is_told_when_it_is_alone() {
        let memory = Memory::new(100);
        let small = memory.take(OTHER, 1).unwrap();
        assert!(memory.take(ONE, 1_000).is_err());
        drop(small);
        let bytes = memory.take(ONE, 1_000).unwrap().of(Bytes::from("answer"));
        assert_eq!((memory.used(), &*bytes), (50, &b"answer"[..]));
        let rest = bytes.slice(3..);
        drop(bytes);
        assert_eq!(memory.used(), 50, "a part of it is held");
        drop(rest);
        assert_eq!(memory.used(), 0);
    }
}
