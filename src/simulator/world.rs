//! Everything that the provider remembers, behind one lock, and how it moves on
//! when time has passed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;

use crate::model::time::Timestamp;

use super::{
    answers::{Usage, id},
    bill::{Account, Lane},
    course::Course,
    job::{Fate, Job, Settled},
    log::Journal,
    output::{Content, Ending, Made},
    rates::{Bucket, Window},
    settings::Settings,
    stored::Responses,
};

pub(super) struct World {
    pub settings: Arc<Settings>,
    /// By age, so that lists need no sorting.
    pub files: BTreeMap<u64, StoredFile>,
    pub file_ids: HashMap<String, u64>,
    pub jobs: Vec<Job>,
    pub job_ids: HashMap<String, usize>,
    /// Batches that are not settled, by the instant at which they will be.
    pub open: BTreeSet<(Timestamp, usize)>,
    /// Batches that have ended and that nobody was told of yet.
    pub ended: Vec<usize>,
    expiring: BTreeSet<(Timestamp, u64)>,
    pub chats: HashMap<(String, String), Value>,
    pub responses: Responses,
    pub creates: HashMap<String, Window>,
    pub uploads: HashMap<String, Window>,
    pub buckets: HashMap<(String, String), Bucket>,
    /// How often each `flaky` request has been tried.
    pub tries: HashMap<u128, u32>,
    pub account: Account,
    pub journal: Journal,
    /// Live calls admitted; their latencies are drawn by it.
    pub live_calls: u64,
    counter: u64,
    /// Part of every id, so that a simulator started again on the same seed does
    /// not give an old id to a new thing.
    epoch: u64,
}

pub(super) struct StoredFile {
    pub id: String,
    pub key: String,
    pub filename: String,
    pub purpose: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub content: Content,
}

#[derive(Serialize)]
pub(super) struct FileObject {
    pub id: String,
    pub object: &'static str,
    pub bytes: u64,
    pub created_at: u64,
    pub expires_at: Option<u64>,
    pub filename: String,
    pub purpose: String,
    pub status: &'static str,
    pub status_details: Option<String>,
}

impl World {
    pub fn new(settings: Arc<Settings>, since: Timestamp) -> Self {
        World {
            settings,
            files: BTreeMap::new(),
            file_ids: HashMap::new(),
            jobs: Vec::new(),
            job_ids: HashMap::new(),
            open: BTreeSet::new(),
            ended: Vec::new(),
            expiring: BTreeSet::new(),
            chats: HashMap::new(),
            responses: Responses::default(),
            creates: HashMap::new(),
            uploads: HashMap::new(),
            buckets: HashMap::new(),
            tries: HashMap::new(),
            account: Account::default(),
            journal: Journal::default(),
            live_calls: 0,
            counter: 0,
            epoch: since.as_millis(),
        }
    }

    /// A number that no other thing has.
    pub fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Does all that was due by `now`: settles batches, completes background
    /// responses, drops expired files.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((at, index)) = self.open.first().copied().filter(|(at, _)| *at <= now) {
            self.open.pop_first();
            self.settle(index, at);
        }
        while let Some((_, number)) = self.expiring.first().copied().filter(|(at, _)| *at <= now) {
            self.expiring.pop_first();
            if let Some(file) = self.files.remove(&number) {
                self.file_ids.remove(&file.id);
            }
        }
        for (key, model, lane, usage, fingerprint) in self.responses.complete(now) {
            self.charge(&key, &model, lane, &usage, fingerprint);
        }
    }

    pub fn charge(&mut self, key: &str, model: &str, lane: Lane, usage: &Usage, fingerprint: u128) {
        let price = self.settings.models.get(model);
        let pico_usd = price.map_or(0, |price| lane.cost(price, usage));
        self.account.charge((key, model, lane), 1, usage, pico_usd);
        self.journal.ran(fingerprint, lane);
    }

    /// Whether this try of a request steered by `flaky=N` is one of the first N.
    pub fn still_flaky(&mut self, fingerprint: u128, times: u32) -> bool {
        if times == 0 {
            return false;
        }
        let tries = self.tries.entry(fingerprint).or_default();
        *tries += 1;
        *tries <= times
    }

    pub fn add_file(&mut self, file: StoredFile) -> String {
        let number = self.next_number();
        if let Some(at) = file.expires_at {
            self.expiring.insert((at, number));
        }
        let id = file.id.clone();
        self.file_ids.insert(id.clone(), number);
        self.files.insert(number, file);
        id
    }

    pub fn file(&self, key: &str, id: &str) -> Option<&StoredFile> {
        let file = self.files.get(self.file_ids.get(id)?)?;
        (file.key == key).then_some(file)
    }

    pub fn remove_file(&mut self, key: &str, id: &str) -> bool {
        if self.file(key, id).is_none() {
            return false;
        }
        let number = self.file_ids.remove(id);
        number
            .and_then(|number| self.files.remove(&number))
            .is_some()
    }

    pub fn file_id(&mut self) -> String {
        let number = self.next_number();
        self.id("file-", number)
    }

    /// The id of the `number`th thing of its kind.
    pub fn id(&self, prefix: &str, number: u64) -> String {
        id(prefix, self.settings.seed, (self.epoch, number))
    }

    /// Prompt tokens that this organization has waiting for a model.
    pub fn enqueued(&self, org: &str, model: &str) -> u64 {
        let open = self.open.iter().map(|(_, index)| &self.jobs[*index]);
        open.filter(|job| job.org == org && job.model.as_deref() == Some(model))
            .map(|job| job.enqueued)
            .sum()
    }

    /// Bills a terminal batch's finished lines and makes its two files.
    fn settle(&mut self, index: usize, at: Timestamp) {
        let job = &self.jobs[index];
        let endings = job.endings(self.settings.shuffle);
        let (key, model) = (job.key.clone(), job.model.clone().unwrap_or_default());
        let expires_at = job.output_expires_after.map(|after| at + after);
        let empty_error_id = job.quirks.empty_error_file_id;
        let job_id = job.id.clone();
        let run = match &mut self.jobs[index].fate {
            Fate::Runs(Course { run, .. }) => run.take(),
            Fate::Invalid { .. } => None,
        };
        let mut settled = Settled::default();
        if let Some(run) = run {
            let price = self.settings.models.get(&model).copied();
            let (mut answered, mut pico_usd) = (0, 0);
            for (line, ending) in &endings {
                let line = &run.lines[*line as usize];
                match ending {
                    Ending::Answered => {
                        answered += 1;
                        settled.usage.add(&line.usage);
                        pico_usd += price.map_or(0, |price| Lane::Batch.cost(&price, &line.usage));
                        self.journal.ran(line.fingerprint, Lane::Batch);
                    }
                    Ending::Zero | Ending::Failed => self.journal.failed(line.fingerprint),
                    Ending::NotRun(_) => {}
                }
            }
            if answered > 0 {
                let row = (key.as_str(), model.as_str(), Lane::Batch);
                self.account.charge(row, answered, &settled.usage, pico_usd);
            }
            let (good, bad): (Vec<_>, Vec<_>) = endings
                .into_iter()
                .partition(|(_, ending)| matches!(ending, Ending::Answered | Ending::Zero));
            let mut file = |lines: Vec<(u32, Ending)>, name: &str| {
                if lines.is_empty() {
                    return None;
                }
                let made = Made {
                    run: run.clone(),
                    settings: self.settings.clone(),
                    lines,
                    len: OnceLock::new(),
                };
                let id = self.file_id();
                Some(self.add_file(StoredFile {
                    id,
                    key: key.clone(),
                    filename: format!("{job_id}_{name}.jsonl"),
                    purpose: "batch_output".to_owned(),
                    created_at: at,
                    expires_at,
                    content: Content::Made(Arc::new(made)),
                }))
            };
            settled.output_file_id = file(good, "output");
            settled.error_file_id = file(bad, "error");
        }
        if empty_error_id && settled.error_file_id.is_none() {
            settled.error_file_id = Some(String::new());
        }
        self.jobs[index].settled = Some(settled);
        self.ended.push(index);
    }
}

/// Whether a duration in seconds lies in what `expires_after` takes (WIRE.md §1).
pub(super) fn expiry(seconds: u64) -> Option<Duration> {
    (3_600..=2_592_000)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}
