//! Rows that add up: all of them together, and by a name that they carry.

mod largest;

use std::collections::BTreeMap;

use serde::{
    Serialize,
    ser::{SerializeMap, Serializer},
};

use self::largest::Largest;

/// Names of callers' own choosing that have sums of their own: what is kept in memory, and
/// answered, is bounded.
const MOST: usize = 1_000;

/// What adds up, and how it is told.
pub trait Sum: Default {
    fn add(&mut self, other: &Self);

    /// What it counts for where there are too many names.
    fn calls(&self) -> u64;

    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

pub struct Sums<T>(T);

/// The sums of one name.
pub struct Row<T> {
    label: &'static str,
    name: Option<String>,
    /// Of all names that have no row of their own.
    others: bool,
    sums: T,
}

/// Sums by a name, as rows come.
pub struct Groups<T> {
    label: &'static str,
    named: BTreeMap<String, T>,
    unnamed: Option<T>,
    bound: Bound<T>,
}

enum Bound<T> {
    /// There are few names.
    None,
    /// More than [`MOST`] are told by their number alone.
    Most { largest: Largest, too_many: bool },
    /// It is known which names have sums of their own.
    Known { others: Option<T> },
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
            named: BTreeMap::new(),
            unnamed: None,
            bound: Bound::None,
        }
    }

    /// The same where callers choose the names. Where there are too many, the rows are to
    /// be added [once more](Groups::again).
    pub fn by_any(label: &'static str) -> Self {
        Groups {
            bound: Bound::Most {
                largest: Largest::of(MOST),
                too_many: false,
            },
            ..Groups::by(label)
        }
    }

    pub fn add(&mut self, name: Option<&str>, row: &T) {
        let Some(name) = name else {
            return self.unnamed.get_or_insert_default().add(row);
        };
        if let Bound::Most { largest, .. } = &mut self.bound {
            largest.add(name, row.calls());
        }
        if let Some(sums) = self.named.get_mut(name) {
            return sums.add(row);
        }
        match &mut self.bound {
            Bound::Known { others } => others.get_or_insert_default().add(row),
            Bound::Most { too_many, .. } if self.named.len() == MOST => *too_many = true,
            Bound::None | Bound::Most { .. } => {
                self.named.entry(name.to_owned()).or_default().add(row);
            }
        }
    }

    /// There were too many names: for the same rows once more, where [`MOST`] are told one
    /// by one, those that more than one of so many calls had among them, and all others
    /// together.
    pub fn again(&self) -> Option<Self> {
        let Bound::Most {
            largest,
            too_many: true,
        } = &self.bound
        else {
            return None;
        };
        let mut named: BTreeMap<String, T> = BTreeMap::new();
        // Of the rest, the largest of those that were counted.
        let mut rest: Vec<_> = self.named.iter().collect();
        rest.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.calls()));
        let rest = rest.into_iter().map(|(name, _)| name.as_str());
        for name in largest.names().chain(rest) {
            if named.len() == MOST {
                break;
            }
            named.entry(name.to_owned()).or_default();
        }
        Some(Groups {
            named,
            bound: Bound::Known { others: None },
            ..Groups::by(self.label)
        })
    }

    /// In the order of their names, those without one first, and all others last.
    pub fn rows(self) -> Vec<Row<T>> {
        let label = self.label;
        let row = |name, others, sums| Row {
            label,
            name,
            others,
            sums,
        };
        let unnamed = self.unnamed.map(|sums| row(None, false, sums));
        let named = self.named.into_iter();
        let named = named.map(|(name, sums)| row(Some(name), false, sums));
        let others = match self.bound {
            Bound::Known { others } => others.map(|sums| row(None, true, sums)),
            Bound::None | Bound::Most { .. } => None,
        };
        unnamed.into_iter().chain(named).chain(others).collect()
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
        groups.add(name(key).as_deref(), row);
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
        if self.others {
            map.serialize_entry("others", &true)?;
        }
        self.sums.entries(&mut map)?;
        map.end()
    }
}
