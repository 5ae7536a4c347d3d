//! The sums by tenant, day and model, and what of them is not written down yet.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

use crate::model::{
    id::TenantId,
    shadow::{ShadowKey, ShadowRow},
};

#[derive(Default)]
pub struct Sums(Mutex<BTreeMap<ShadowKey, Sum>>);

#[derive(Default)]
struct Sum {
    row: ShadowRow,
    /// Since it was last written.
    changed: bool,
}

impl Sums {
    /// Goes on with what was written before.
    pub fn recall(&self, rows: Vec<(ShadowKey, ShadowRow)>) {
        let rows = rows.into_iter().map(|(key, row)| {
            let changed = false;
            (key, Sum { row, changed })
        });
        *self.0.lock() = rows.collect();
    }

    pub fn add(&self, key: ShadowKey, row: &ShadowRow) {
        let mut sums = self.0.lock();
        let sum = sums.entry(key).or_default();
        sum.row.add(row);
        sum.changed = true;
    }

    /// Those for a deadline, of one tenant or of all.
    pub fn of(&self, deadline: Duration, tenant: Option<TenantId>) -> Vec<(ShadowKey, ShadowRow)> {
        let sums = self.0.lock();
        let rows = sums.iter().filter(|(key, _)| {
            key.deadline == deadline && tenant.is_none_or(|tenant| key.tenant == tenant)
        });
        rows.map(|(key, sum)| (key.clone(), sum.row.clone()))
            .collect()
    }

    /// What is to be written now. Days before `first` are forgotten, here and there.
    pub fn take_unwritten(&self, first: u32) -> Vec<(ShadowKey, Option<ShadowRow>)> {
        let mut sums = self.0.lock();
        let old = sums.extract_if(.., |key, _| key.day < first);
        let mut unwritten: Vec<_> = old.map(|(key, _)| (key, None)).collect();
        for (key, sum) in sums.iter_mut().filter(|(_, sum)| sum.changed) {
            sum.changed = false;
            unwritten.push((key.clone(), Some(sum.row.clone())));
        }
        unwritten
    }

    /// It could not be written: it is to be again.
    pub fn not_written(&self, key: &ShadowKey) {
        if let Some(sum) = self.0.lock().get_mut(key) {
            sum.changed = true;
        }
    }
}
