//! What the provider saw, so that tests can prove "once" and "in one batch only".

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use super::{bill::Lane, faults::Operation};

#[derive(Debug, Clone, Default, Serialize)]
pub struct Log {
    /// Calls by operation, those struck by a fault included.
    pub operations: BTreeMap<Operation, u64>,
    /// Every batch created, oldest first.
    pub batches: Vec<LoggedBatch>,
    /// Every distinct question asked (empty unless `log_requests`).
    pub requests: Vec<LoggedRequest>,
    /// The batches that each custom id was submitted in.
    pub custom_ids: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LoggedBatch {
    pub id: String,
    pub key: String,
    pub endpoint: String,
    pub input_file_id: String,
    /// Unix seconds on the simulator's clock.
    pub created_at: u64,
    /// The same of its end, or when it will end as things stand.
    pub ended_at: u64,
    pub metadata: Value,
    /// 0 when the input did not validate.
    pub lines: usize,
    pub status: &'static str,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct LoggedRequest {
    /// [`super::fingerprint`] of the body, in hex.
    pub fingerprint: String,
    /// The beginning of the last user message or input.
    pub prompt: String,
    /// The batches that it was submitted in, once for each line.
    pub batches: Vec<String>,
    /// Answers produced and billed.
    pub runs: BTreeMap<Lane, u32>,
    /// Times that it was tried and failed, in any lane.
    pub failures: u32,
    /// The exact bytes of the first one (only with `keep_bodies`).
    pub body: Option<String>,
}

impl Log {
    /// How often requests whose prompt contains `text` were answered, over all lanes.
    pub fn runs_of(&self, text: &str) -> u32 {
        let requests = self.requests.iter();
        requests
            .filter(|request| request.prompt.contains(text))
            .flat_map(|request| request.runs.values())
            .sum()
    }

    /// Custom ids that were in two batches at the same time.
    pub fn overlapping(&self) -> Vec<&str> {
        let spans: HashMap<&str, (u64, u64)> = self
            .batches
            .iter()
            .map(|batch| (batch.id.as_str(), (batch.created_at, batch.ended_at)))
            .collect();
        let overlap = |batches: &[String]| {
            let mut spans: Vec<_> = batches
                .iter()
                .filter_map(|id| spans.get(id.as_str()))
                .collect();
            spans.sort();
            spans.windows(2).any(|pair| pair[1].0 < pair[0].1)
        };
        let ids = self.custom_ids.iter();
        ids.filter(|(_, batches)| overlap(batches))
            .map(|(id, _)| id.as_str())
            .collect()
    }

    /// Custom ids that stand in more than one batch.
    pub fn resubmitted(&self) -> Vec<&str> {
        let ids = self.custom_ids.iter();
        ids.filter(|(_, batches)| batches.len() > 1)
            .map(|(id, _)| id.as_str())
            .collect()
    }
}

/// What a log keeps of one question.
#[derive(Debug)]
pub(super) struct Note {
    pub fingerprint: u128,
    pub prompt: Box<str>,
    pub body: Option<Box<str>>,
}

impl Note {
    pub fn of(fingerprint: u128, questions: &[String], body: Option<&str>) -> Self {
        let prompt = questions.last().map_or("", |text| text);
        Note {
            fingerprint,
            prompt: prompt.chars().take(80).collect(),
            body: body.map(Into::into),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    pub operations: BTreeMap<Operation, u64>,
    requests: HashMap<u128, Seen>,
    custom_ids: HashMap<Box<str>, Vec<u32>>,
}

#[derive(Debug)]
struct Seen {
    prompt: Box<str>,
    body: Option<Box<str>>,
    batches: Vec<u32>,
    runs: Vec<(Lane, u32)>,
    failures: u32,
}

impl Journal {
    pub fn saw(&mut self, note: Note) {
        self.seen(note);
    }

    /// A line of the `batch`th batch.
    pub fn submitted(&mut self, note: Note, custom_id: Box<str>, batch: u32) {
        self.seen(note).batches.push(batch);
        self.custom_ids.entry(custom_id).or_default().push(batch);
    }

    fn seen(&mut self, note: Note) -> &mut Seen {
        self.requests.entry(note.fingerprint).or_insert(Seen {
            prompt: note.prompt,
            body: note.body,
            batches: Vec::new(),
            runs: Vec::new(),
            failures: 0,
        })
    }

    pub fn ran(&mut self, fingerprint: u128, lane: Lane) {
        if let Some(seen) = self.requests.get_mut(&fingerprint) {
            match seen.runs.iter_mut().find(|(ran, _)| *ran == lane) {
                Some((_, count)) => *count += 1,
                None => seen.runs.push((lane, 1)),
            }
        }
    }

    pub fn failed(&mut self, fingerprint: u128) {
        if let Some(seen) = self.requests.get_mut(&fingerprint) {
            seen.failures += 1;
        }
    }

    pub fn log(&self, batches: Vec<LoggedBatch>) -> Log {
        let names = |of: &[u32]| -> Vec<String> {
            let known = of.iter().filter_map(|index| batches.get(*index as usize));
            known.map(|batch| batch.id.clone()).collect()
        };
        let mut requests: Vec<LoggedRequest> = self
            .requests
            .iter()
            .map(|(fingerprint, seen)| LoggedRequest {
                fingerprint: format!("{fingerprint:032x}"),
                prompt: seen.prompt.to_string(),
                batches: names(&seen.batches),
                runs: seen.runs.iter().copied().collect(),
                failures: seen.failures,
                body: seen.body.as_ref().map(ToString::to_string),
            })
            .collect();
        requests.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
        let custom_ids = self
            .custom_ids
            .iter()
            .map(|(id, batches)| (id.to_string(), names(batches)))
            .collect();
        Log {
            operations: self.operations.clone(),
            requests,
            custom_ids,
            batches,
        }
    }
}
