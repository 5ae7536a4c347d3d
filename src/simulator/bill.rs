//! What the provider charges: one row for each key, model and lane.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    answers::Usage,
    settings::{Model, Tariff},
};

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
    /// Picodollars for an answer.
    pub(super) fn cost(self, model: &Model, usage: &Usage) -> u64 {
        let (standard, batch, flex, priority) = match &model.long {
            Some(long) if usage.prompt > long.above => {
                (long.standard, long.batch, long.flex, long.priority)
            }
            _ => (model.standard, model.batch, model.flex, model.priority),
        };
        match self {
            Lane::Batch => batch.cost(usage),
            Lane::Flex => flex.unwrap_or(standard).cost(usage),
            Lane::Background8h => standard.cost(usage) * 6 / 10,
            Lane::Background2h => standard.cost(usage) * 7 / 10,
            Lane::Priority => priority.unwrap_or(standard).cost(usage),
            Lane::Standard | Lane::Background => standard.cost(usage),
        }
    }
}

impl Tariff {
    fn cost(self, usage: &Usage) -> u64 {
        let Tariff(input, cached, written, output) = self;
        let fresh = usage.prompt - usage.cached - usage.written;
        fresh * input + usage.cached * cached + usage.written * written + usage.completion * output
    }
}

/// Everything charged so far. A live answer is charged when it is begun, whether
/// or not its caller stays; a batch's finished lines when the batch is terminal;
/// a background response when it completes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Bill {
    pub rows: Vec<Row>,
    pub total_pico_usd: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// [`super::key_id`] of the caller's key.
    pub key: String,
    pub model: String,
    pub lane: Lane,
    pub calls: u64,
    /// Includes the cached and the written ones.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub written_tokens: u64,
    pub completion_tokens: u64,
    pub pico_usd: u64,
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
        pico_usd: u64,
    ) {
        let row = (key.to_owned(), model.to_owned(), lane);
        let (calls, sum, picos) = self.rows.entry(row).or_default();
        *calls += number;
        sum.add(usage);
        *picos += pico_usd;
    }

    pub fn bill(&self) -> Bill {
        let rows: Vec<Row> = self
            .rows
            .iter()
            .map(|((key, model, lane), (calls, usage, pico_usd))| Row {
                key: key.clone(),
                model: model.clone(),
                lane: *lane,
                calls: *calls,
                prompt_tokens: usage.prompt,
                cached_tokens: usage.cached,
                written_tokens: usage.written,
                completion_tokens: usage.completion,
                pico_usd: *pico_usd,
            })
            .collect();
        Bill {
            total_pico_usd: rows.iter().map(|row| row.pico_usd).sum(),
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
            written: 0,
            completion: 100,
        };
        for (lane, pico_usd) in [
            (Lane::Standard, 600 * 150_000 + 400 * 75_000 + 100 * 600_000),
            (Lane::Batch, 1_000 * 75_000 + 100 * 300_000),
            (Lane::Background8h, 108_000_000),
            (Lane::Background2h, 126_000_000),
        ] {
            assert_eq!(lane.cost(&model, &usage), pico_usd, "{lane:?}");
        }
    }

    #[test]
    fn a_long_prompt_is_dearer_with_all_its_tokens() {
        let model = crate::simulator::Settings::default().models["gpt-6-sol"];
        let cost = |lane: Lane, prompt| {
            lane.cost(
                &model,
                &Usage {
                    prompt,
                    cached: 1_000,
                    written: 2_000,
                    completion: 7,
                },
            )
        };
        for (lane, usual, long) in [
            (
                Lane::Standard,
                [2_000_000, 200_000, 2_500_000, 10_000_000],
                [4_000_000, 400_000, 5_000_000, 15_000_000],
            ),
            (
                Lane::Flex,
                [1_000_000, 100_000, 1_250_000, 5_000_000],
                [2_000_000, 200_000, 2_500_000, 7_500_000],
            ),
        ] {
            for (prompt, [input, cached, written, output]) in [(272_000, usual), (272_001, long)] {
                let expected =
                    (prompt - 3_000) * input + 1_000 * cached + 2_000 * written + 7 * output;
                assert_eq!(cost(lane, prompt), expected, "{lane:?} {prompt}");
            }
        }
    }
}
