//! Reads across all tenants. A tenant stands in front of most keys, so what is asked of
//! all of them together takes a seek or two a tenant, and no scan.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    kv::{End, Kv, Span},
    reads::{Read, decode_head, readable, readable_from},
    records::{delivery, feed, ledger, request},
};
use crate::{
    model::{
        id::{ReceiverId, RequestId, RequestKey, TenantId},
        ledger::{LedgerKey, LedgerRow},
    },
    ports::{DeliveryCounts, FeedEntry, Head, LedgerRows, StoreError},
};

pub fn find(kv: &impl Kv, id: RequestId) -> Read<Option<RequestKey>> {
    let mut found = None;
    who_asked().each(kv, |tenant| {
        let key = RequestKey { tenant, id };
        found = kv.get(&request::key(key))?.map(|_| key);
        Ok(found.is_none())
    })?;
    Ok(found)
}

pub fn newest(kv: &impl Kv, before: Option<RequestId>, limit: usize) -> Read<Vec<Head>> {
    let last = Latest {
        limit,
        of: |tenant| request::of_tenant(tenant, before),
        is: |name: &[u8], value: &Bytes| {
            let head = decode_head(name, value)?;
            Ok((head.request.key.id, head))
        },
    };
    last.over(kv, &who_asked())
}

pub fn recent(
    kv: &impl Kv,
    of: Option<TenantId>,
    before: Option<u64>,
    limit: usize,
) -> Read<Vec<FeedEntry>> {
    let read = |name: &[u8], value: &Bytes| feed::decode(name, value).map(|(entry, _)| entry);
    if let Some(tenant) = of {
        let span = feed::of_tenant_before(tenant, before);
        return readable_from(kv, &span, End::Back, limit, read);
    }
    let tenants = Tenants {
        all: feed::all(),
        of: feed::tenant_of,
        behind: feed::behind,
    };
    let last = Latest {
        limit,
        of: |tenant| feed::of_tenant_before(tenant, before),
        is: |name: &[u8], value: &Bytes| {
            let entry = read(name, value)?;
            Ok((entry.sequence, entry))
        },
    };
    last.over(kv, &tenants)
}

pub fn dead_letters(
    kv: &impl Kv,
    after: Option<(ReceiverId, RequestKey)>,
    limit: usize,
) -> Read<Vec<(ReceiverId, RequestKey)>> {
    let span = delivery::all_dead(after);
    readable(kv, &span, limit, delivery::decode_dead)
}

pub fn delivery_counts(kv: &impl Kv) -> DeliveryCounts {
    DeliveryCounts {
        pending: kv.how_many(delivery::DUE) + kv.how_many(delivery::BACKLOG),
        dead: kv.how_many(delivery::DEAD),
    }
}

pub fn ledger(
    kv: &impl Kv,
    rows: &LedgerRows,
    after: Option<&LedgerKey>,
    limit: usize,
) -> Read<Vec<(LedgerKey, LedgerRow)>> {
    let behind = |span: Span| match after {
        Some(key) => span.after(&ledger::key(key)),
        None => span,
    };
    let of_tenant = |tenant, limit| {
        let span = behind(ledger::of_hours(tenant, &rows.hours));
        match span.is_empty() {
            true => Ok(Vec::new()),
            false => readable(kv, &span, limit, ledger::decode),
        }
    };
    if let Some(tenant) = rows.of {
        return of_tenant(tenant, limit);
    }
    let tenants = Tenants {
        all: after.map_or_else(ledger::all, |key| ledger::from(key.tenant)),
        of: |name: &[u8]| Ok(ledger::tenant_and_hour(name)?.0),
        behind: |tenant| ledger::all().after(&ledger::last_of(tenant)),
    };
    let mut found = Vec::new();
    tenants.each(kv, |tenant| {
        found.extend(of_tenant(tenant, limit - found.len())?);
        Ok(found.len() < limit)
    })?;
    Ok(found)
}

/// Those who have requests.
fn who_asked() -> Tenants<impl Fn(&[u8]) -> Read<TenantId>, impl Fn(TenantId) -> Span> {
    Tenants {
        all: request::all(),
        of: request::tenant_of,
        behind: request::behind,
    }
}

/// Those who have a key in a span that begins with its tenant.
struct Tenants<Of, Behind> {
    all: Span,
    /// Whose key this is.
    of: Of,
    /// The keys of those behind it.
    behind: Behind,
}

impl<Of, Behind> Tenants<Of, Behind>
where
    Of: Fn(&[u8]) -> Read<TenantId>,
    Behind: Fn(TenantId) -> Span,
{
    /// In their order, until `visit` says no.
    fn each(&self, kv: &impl Kv, mut visit: impl FnMut(TenantId) -> Read<bool>) -> Read<()> {
        let mut span = self.all.clone();
        while let [(name, _)] = &kv.scan(&span, End::Front, 1)?[..] {
            let tenant = (self.of)(name)?;
            if !visit(tenant)? {
                break;
            }
            span.from = (self.behind)(tenant).from;
        }
        Ok(())
    }
}

/// What stands last in the tenants' spans, all of them taken together.
struct Latest<Of, Is> {
    limit: usize,
    /// A tenant's span.
    of: Of,
    /// What a record is ordered by, which no two have in common, and what it is.
    is: Is,
}

/// Records of one tenant that are read at a time, behind its last one.
const PART: usize = 16;

impl<Of, Is, Order, T> Latest<Of, Is>
where
    Of: Fn(TenantId) -> Span,
    Is: Fn(&[u8], &Bytes) -> Read<(Order, T)>,
    Order: Ord,
{
    /// The last first. Of a tenant that has none of them one record is read.
    fn over(
        self,
        kv: &impl Kv,
        tenants: &Tenants<impl Fn(&[u8]) -> Read<TenantId>, impl Fn(TenantId) -> Span>,
    ) -> Read<Vec<T>> {
        let mut last = BTreeMap::new();
        tenants.each(kv, |tenant| {
            self.add(kv, (self.of)(tenant), &mut last)?;
            Ok(true)
        })?;
        Ok(last.into_values().rev().collect())
    }

    fn add(&self, kv: &impl Kv, mut span: Span, last: &mut BTreeMap<Order, T>) -> Read<()> {
        let mut part = 1;
        while !span.is_empty() {
            let page = kv.scan(&span, End::Back, part)?;
            for (name, value) in &page {
                match (self.is)(name, value) {
                    Ok((order, it)) => {
                        if !self.takes(&order, last) {
                            return Ok(());
                        }
                        last.insert(order, it);
                    }
                    Err(StoreError::Corrupt(damage)) => {
                        tracing::error!(%damage, "a record is passed over");
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some((name, _)) = page.last().filter(|_| page.len() == part) else {
                break;
            };
            span = span.before(name);
            part = PART;
        }
        Ok(())
    }

    /// Whether it is among the last, where those behind it have made room.
    fn takes(&self, order: &Order, last: &mut BTreeMap<Order, T>) -> bool {
        if last.len() < self.limit {
            return true;
        }
        let later = last
            .first_key_value()
            .is_some_and(|(least, _)| least < order);
        if later {
            last.pop_first();
        }
        later
    }
}
