//! What the provider charges: one row for each key, model and lane.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{answers::Usage, settings::Model};

/// How an answer was bought (WIRE.md §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    Standard,
    Batch,
    Flex,
    Priority,
    Background,
    #[serde(rename = "background-8h")]
    Background8h,
    #[serde(rename = "background-2h")]
    Background2h,
}

impl Lane {
    /// Nano-dollars for an answer.
    pub(super) fn cost(self, model: &Model, usage: &Usage) -> u64 {
        let fresh = usage.prompt - usage.cached.min(usage.prompt);
        let standard = fresh * model.input
            + usage.cached * model.cached_input
            + usage.completion * model.output;
        match self {
            Lane::Batch => {
                fresh * model.batch_input
                    + usage.cached * model.batch_cached_input
                    + usage.completion * model.batch_output
            }
            // Cached tokens too, for which most batches have no rate of their own.
            Lane::Flex => standard / 2,
            Lane::Background8h => standard * 6 / 10,
            Lane::Background2h => standard * 7 / 10,
            Lane::Priority => standard * 2,
            Lane::Standard | Lane::Background => standard,
        }
    }
}

/// Everything charged so far. A live answer is charged when it is begun, whether
/// or not its caller stays; a batch's finished lines when the batch is terminal;
/// a background response when it completes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Bill {
    pub rows: Vec<Row>,
    pub total_nano_usd: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// [`super::key_id`] of the caller's key.
    pub key: String,
    pub model: String,
    pub lane: Lane,
    pub calls: u64,
    /// Includes the cached ones.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    pub nano_usd: u64,
}

impl Bill {
    /// Answers paid for in a lane, over all keys and models.
    pub fn calls(&self, lane: Lane) -> u64 {
        let rows = self.rows.iter().filter(|row| row.lane == lane);
        rows.map(|row| row.calls).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct Account {
    rows: BTreeMap<(String, String, Lane), (u64, Usage, u64)>,
}

impl Account {
    /// Adds `number` answers with their tokens and price in all.
    pub fn charge(
        &mut self,
        (key, model, lane): (&str, &str, Lane),
        number: u64,
        usage: &Usage,
        nano_usd: u64,
    ) {
        let row = (key.to_owned(), model.to_owned(), lane);
        let (calls, sum, nanos) = self.rows.entry(row).or_default();
        *calls += number;
        sum.add(usage);
        *nanos += nano_usd;
    }

    pub fn bill(&self) -> Bill {
        let rows: Vec<Row> = self
            .rows
            .iter()
            .map(|((key, model, lane), (calls, usage, nano_usd))| Row {
                key: key.clone(),
                model: model.clone(),
                lane: *lane,
                calls: *calls,
                prompt_tokens: usage.prompt,
                cached_tokens: usage.cached,
                completion_tokens: usage.completion,
                nano_usd: *nano_usd,
            })
            .collect();
        Bill {
            total_nano_usd: rows.iter().map(|row| row.nano_usd).sum(),
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_cost_what_the_wire_document_says() {
        let model = crate::simulator::Settings::default().models["gpt-4o-mini"];
        let usage = Usage {
            prompt: 1_000,
            cached: 400,
            completion: 100,
        };
        for (lane, nano_usd) in [
            (Lane::Standard, 600 * 150 + 400 * 75 + 100 * 600),
            (Lane::Batch, 1_000 * 75 + 100 * 300),
            (Lane::Flex, 90_000),
            (Lane::Background8h, 108_000),
            (Lane::Background2h, 126_000),
        ] {
            assert_eq!(lane.cost(&model, &usage), nano_usd, "{lane:?}");
        }
    }
}
