//! Rows that add up: all of them together, and by a name that they carry.

use std::collections::BTreeMap;

use serde::{
    Serialize,
    ser::{SerializeMap, Serializer},
};

/// What adds up, and how it is told.
pub trait Sum: Default {
    fn add(&mut self, other: &Self);

    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

pub struct Sums<T>(T);

/// The sums of one name.
pub struct Row<T> {
    label: &'static str,
    name: Option<String>,
    sums: T,
}

/// Sums by a name, as rows come.
pub struct Groups<T> {
    label: &'static str,
    groups: BTreeMap<Option<String>, T>,
}

impl<T> Sums<T> {
    pub fn new(sums: T) -> Self {
        Sums(sums)
    }
}

impl<T: Sum> Groups<T> {
    pub fn by(label: &'static str) -> Self {
        Groups {
            label,
            groups: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, name: Option<String>, row: &T) {
        self.groups.entry(name).or_default().add(row);
    }

    /// In the order of their names, those without one first.
    pub fn rows(self) -> Vec<Row<T>> {
        let label = self.label;
        let row = |(name, sums)| Row { label, name, sums };
        self.groups.into_iter().map(row).collect()
    }
}

pub fn total<K, T: Sum>(rows: &[(K, T)]) -> Sums<T> {
    let mut total = T::default();
    for (_, row) in rows {
        total.add(row);
    }
    Sums(total)
}

/// Rows in the order of their names, those without one first.
pub fn by<K, T: Sum>(
    rows: &[(K, T)],
    label: &'static str,
    name: impl Fn(&K) -> Option<String>,
) -> Vec<Row<T>> {
    let mut groups = Groups::by(label);
    for (key, row) in rows {
        groups.add(name(key), row);
    }
    groups.rows()
}

impl<T: Sum> Serialize for Sums<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        self.0.entries(&mut map)?;
        map.end()
    }
}

impl<T: Sum> Serialize for Row<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry(self.label, &self.name)?;
        self.sums.entries(&mut map)?;
        map.end()
    }
}
