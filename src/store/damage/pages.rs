//! The pairs of a database, from the messages of its log: what can be read, whatever
//! is damaged beside it.

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use super::log::{Gap, Kind, Log, Message, text, varint};

/// A page: the last time that it was written whole, and its changes since then.
#[derive(Default)]
struct Page {
    base: Option<Message>,
    links: Vec<Message>,
    freed: u64,
}

/// What was found in a log.
#[derive(Default)]
pub struct Pages {
    /// Newest first.
    pages: Vec<(Message, Vec<Message>)>,
    pub gaps: Vec<Gap>,
    /// Changes of pages that are not there whole.
    pub lost_changes: u64,
    /// Pages that cannot be read, found while reading them.
    pub lost_pages: u64,
}

pub fn of(log: &Log) -> io::Result<Pages> {
    let mut pages: BTreeMap<u64, Page> = BTreeMap::new();
    let mut gaps = Vec::new();
    let mut all = Vec::new();
    for place in 0..log.segments() {
        let segment = log.segment(place)?;
        gaps.extend(segment.gaps);
        all.extend(segment.messages);
    }
    let end = torn_batch(log, &all)?;
    for message in all.into_iter().filter(|message| message.lsn < end) {
        let page = pages.entry(message.page).or_default();
        match message.kind {
            Kind::Node if page.base.is_none_or(|base| base.lsn < message.lsn) => {
                page.base = Some(message);
            }
            Kind::Link => page.links.push(message),
            Kind::Free => page.freed = page.freed.max(message.lsn),
            Kind::Node | Kind::Batch | Kind::Cap | Kind::Other => {}
        }
    }
    let mut found = Pages {
        gaps,
        ..Pages::default()
    };
    for (_, mut page) in pages {
        let begin = page.base.map_or(0, |base| base.lsn).max(page.freed);
        page.links.retain(|link| link.lsn > begin);
        page.links.sort_unstable_by_key(|link| link.lsn);
        match page.base {
            Some(base) if base.lsn >= page.freed => found.pages.push((base, page.links)),
            _ => found.lost_changes += page.links.len() as u64,
        }
    }
    let last = |(base, links): &(Message, Vec<Message>)| links.last().unwrap_or(base).lsn;
    found
        .pages
        .sort_unstable_by_key(|page| std::cmp::Reverse(last(page)));
    Ok(found)
}

/// Where the last batch begins, if a crash cut it off before its end.
fn torn_batch(log: &Log, messages: &[Message]) -> io::Result<u64> {
    let last = messages.iter().map(|message| message.end - 1).max();
    let batches = messages.iter().filter(|m| m.kind == Kind::Batch);
    let Some(batch) = batches.max_by_key(|message| message.lsn) else {
        return Ok(u64::MAX);
    };
    let body = log.body(batch)?.unwrap_or_default();
    let end = body.first_chunk().map(|end| u64::from_le_bytes(*end));
    Ok(match end > last {
        true => batch.lsn,
        false => u64::MAX,
    })
}

impl Pages {
    /// Every pair once, the newest of those that have one key.
    pub fn pairs(
        &mut self,
        log: &Log,
        mut each: impl FnMut(Vec<u8>, Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut seen = HashSet::new();
        for (base, links) in std::mem::take(&mut self.pages) {
            let node = log.body(&base)?;
            let leaf = match node.as_deref().map(leaf) {
                Some(Some(Node::Leaf(leaf))) => leaf,
                Some(Some(Node::Index)) => continue,
                _ => {
                    self.lost_pages += 1;
                    continue;
                }
            };
            let Leaf { prefix, mut pairs } = leaf;
            for link in links {
                match log.body(&link)?.as_deref().map(change) {
                    Some(Some(Change::Set(key, value))) => {
                        pairs.insert(key, value);
                    }
                    Some(Some(Change::Delete(key))) => {
                        pairs.remove(&key);
                    }
                    Some(Some(Change::Other)) => {}
                    _ => self.lost_changes += 1,
                }
            }
            for (end, value) in pairs {
                let key = [&prefix[..], &end].concat();
                let digest = *blake3::hash(&key).as_bytes();
                let digest = digest.first_chunk::<16>().map(|d| u128::from_le_bytes(*d));
                if seen.insert(digest) {
                    each(key, value)?;
                }
            }
        }
        Ok(())
    }
}

/// What a page that was written whole holds under a key.
pub fn value_in(node: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let Some(Node::Leaf(Leaf { prefix, mut pairs })) = leaf(node) else {
        return None;
    };
    pairs.remove(key.strip_prefix(&prefix[..])?)
}

enum Node {
    Leaf(Leaf),
    Index,
}

struct Leaf {
    /// What all keys begin with.
    prefix: Vec<u8>,
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn leaf(mut bytes: &[u8]) -> Option<Node> {
    let bytes = &mut bytes;
    let (_next, _merging_child) = (varint(bytes)?, varint(bytes)?);
    let (_merging, prefix) = (varint(bytes)?, super::log::take(bytes, 1)?[0]);
    let (low, _high) = (text(bytes)?, text(bytes)?);
    let prefix = low.get(..prefix.into())?.to_vec();
    let is_index = super::log::take(bytes, 1)?[0] == 1;
    if is_index {
        return Some(Node::Index);
    }
    let count = varint(bytes)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(text(bytes)?.to_vec());
    }
    let mut pairs = BTreeMap::new();
    for key in keys {
        pairs.insert(key, text(bytes)?.to_vec());
    }
    Some(Node::Leaf(Leaf { prefix, pairs }))
}

pub enum Change {
    /// The end of a key, behind its page's prefix, and its value.
    Set(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Of the tree's own shape.
    Other,
}

pub fn change(mut bytes: &[u8]) -> Option<Change> {
    let bytes = &mut bytes;
    match super::log::take(bytes, 1)?[0] {
        0 => Some(Change::Set(text(bytes)?.to_vec(), text(bytes)?.to_vec())),
        1 => Some(Change::Delete(text(bytes)?.to_vec())),
        2..=4 => Some(Change::Other),
        _ => None,
    }
}
