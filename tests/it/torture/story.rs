//! All that is known of a request with which something is wrong.

use std::{collections::BTreeSet, fmt::Write as _};

use offpeak::simulator::Log;

use super::{coverage::Kept, load::Load, register::Violation};
use crate::kill::load::KEYS;

/// Lines of the log that are told, at most.
const LINES: usize = 80;

pub async fn of(violation: &Violation, load: &Load, kept: &Kept, log: &Log, text: &str) -> String {
    let mut story = format!("cycle {}: {}\n", violation.cycle, violation.what);
    let Some(id) = &violation.request else {
        return story;
    };
    load.register.books(|books| {
        if let Some(request) = books.requests.get(id) {
            let plan = load.register.plan(request.number);
            let _ = writeln!(
                story,
                "  {id}: acknowledged {}, told {:?}, in the feed {}, erasure {:?}\n  {plan:?}",
                request.acknowledged, request.told, request.in_feed, request.erasure
            );
        }
    });
    for key in KEYS {
        let up = load.server.up();
        let path = format!("/offpeak/v1/requests/{id}");
        if let Ok(reply) = load.pooled.get(&up, key, &path, 0).await {
            let _ = writeln!(story, "  as {key} sees it: {}", reply.body);
        }
    }
    let mut names = BTreeSet::from([id.clone()]);
    if let Some(attempts) = kept.attempts.get(id) {
        let _ = writeln!(story, "  attempts: {attempts:#?}");
    }
    for remote in log.custom_ids.get(id).into_iter().flatten() {
        let of_it = log.batches.iter().find(|batch| batch.id == *remote);
        let _ = writeln!(story, "  at the provider: {of_it:?}");
        names.insert(remote.clone());
        let ours = kept.batches.iter().filter(|batch| {
            let file = of_it.map(|batch| batch.input_file_id.as_str());
            batch.provider_id.as_deref() == Some(remote) || batch.input_file.as_deref() == file
        });
        for batch in ours {
            let _ = writeln!(story, "  our record: {batch:?}");
            names.insert(batch.id.to_string());
        }
    }
    let lines = text
        .lines()
        .filter(|line| names.iter().any(|name| line.contains(name)));
    for line in lines.take(LINES) {
        let _ = writeln!(story, "  | {line}");
    }
    story
}
