//! LiteLLM's price list, `model_prices_and_context_window_backup.json` of its package,
//! read into ours. Numbers are read as text: a float never comes between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use super::{
    BadPrices, Lanes, Long, Model, Rates,
    decimal::{BadDecimal, of_dollars},
    file, undated,
};
use crate::model::money::Usd;

/// Those whose models are imported where nothing else is asked for. Of two that have one
/// name, the model of the provider that stands first is.
pub const PROVIDERS: [&str; 8] = [
    "openai",
    "text-completion-openai",
    "anthropic",
    "gemini",
    "xai",
    "mistral",
    "groq",
    "deepseek",
];

/// Kinds of models whose answers a deferred call may be.
const MODES: [&str; 5] = ["chat", "responses", "completion", "embedding", "moderation"];

#[derive(Debug)]
pub struct Imported {
    /// A file of prices.
    pub toml: String,
    pub models: usize,
    pub left_out: Vec<LeftOut>,
}

/// A model of the list whose prices cannot be told in a file of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub model: String,
    pub why: String,
}

/// Reads the models of `providers` into a file that is dated `date`. The same list makes
/// the same file.
///
/// # Errors
/// What is no JSON object of models.
pub fn import(json: &str, providers: &[&str], date: &str) -> Result<Imported, BadPrices> {
    let list: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(json).map_err(|error| BadPrices(error.to_string()))?;
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let mut left_out = Vec::new();
    for provider in providers {
        let before: BTreeSet<String> = models.keys().cloned().collect();
        for (name, entry) in &list {
            let entry = Entry::of(entry);
            if !entry.is_of(provider) {
                continue;
            }
            let prefix = format!("{provider}/");
            let name = name.strip_prefix(&prefix).unwrap_or(name);
            if before.contains(name) {
                continue;
            }
            let why = match entry.model() {
                Ok(model) => match models.insert(name.to_owned(), model) {
                    Some(other) if other != model => "the list has two prices for it".to_owned(),
                    _ => continue,
                },
                Err(why) => why,
            };
            models.remove(name);
            left_out.push(LeftOut {
                model: name.to_owned(),
                why,
            });
        }
    }
    let is_twin = |name: &str, model: &Model| {
        let plain = undated(name).and_then(|plain| models.get(plain));
        plain == Some(model)
    };
    let rows = models.iter().filter(|(name, model)| !is_twin(name, model));
    let rows: Vec<String> = rows
        .map(|(name, model)| file::written(name, model))
        .collect();
    Ok(Imported {
        toml: format!("{}\n{}", head(date), rows.join("\n")),
        models: rows.len(),
        left_out,
    })
}

fn head(date: &str) -> String {
    format!(
        "# USD per million tokens, imported from LiteLLM's price list.\n\
         updated = \"{date}\"\n\n\
         # What a background response costs, as a share of the standard price. The list does\n\
         # not tell.\n\
         [background]\n\"8h\" = \"0.6\"\n\"2h\" = \"0.7\"\n"
    )
}

/// One model of the list: its fields as they are written.
struct Entry(BTreeMap<String, Box<RawValue>>);

impl Entry {
    /// What is no object has no fields.
    fn of(entry: &RawValue) -> Entry {
        Entry(serde_json::from_str(entry.get()).unwrap_or_default())
    }

    fn text(&self, field: &str) -> Option<String> {
        serde_json::from_str(self.0.get(field)?.get()).ok()
    }

    fn is_of(&self, provider: &str) -> bool {
        let mode = self.text("mode");
        self.text("litellm_provider").as_deref() == Some(provider)
            && mode.is_some_and(|mode| MODES.contains(&mode.as_str()))
    }

    fn price(&self, field: &str) -> Result<Option<Usd>, String> {
        let Some(written) = self.0.get(field).map(|value| value.get()) else {
            return Ok(None);
        };
        if written == "null" {
            return Ok(None);
        }
        let price =
            of_dollars(written).map_err(|why: BadDecimal| format!("{field}: {written} {why}"));
        price.map(Some)
    }

    /// Why not, where it cannot be told.
    fn model(&self) -> Result<Model, String> {
        if self.0.contains_key("tiered_pricing") {
            return Err("its price has several steps".into());
        }
        let output = self.price("output_cost_per_token")?;
        let reasoning = self.price("output_cost_per_reasoning_token")?;
        if reasoning.is_some() && reasoning != output {
            return Err("tokens of reasoning cost otherwise than other output".into());
        }
        let usual = self
            .lanes("", None)?
            .ok_or("it has no price by the token")?;
        let thresholds = self.thresholds();
        let mut thresholds = thresholds.iter();
        let long = match (thresholds.next(), thresholds.next()) {
            (None, _) => None,
            (Some(_), Some(_)) => return Err("its price has several steps".into()),
            (Some(words), None) => {
                let lanes = self.lanes(&format!("_above_{words}_tokens"), Some(&usual))?;
                let lanes = lanes.ok_or("what a long input costs is told by halves")?;
                let above = self.above(words).ok_or("its threshold is no number")?;
                Some(Long { above, lanes })
            }
        };
        Ok(Model { usual, long })
    }

    /// As they stand in the names of fields: `272k`.
    fn thresholds(&self) -> BTreeSet<&str> {
        let fields = self.0.keys().filter(|field| {
            field.starts_with("input_cost_per_token") || field.starts_with("output_cost_per_token")
        });
        let words = fields.filter_map(|field| {
            let (_, above) = field.split_once("_above_")?;
            Some(above.split_once("_tokens")?.0)
        });
        words.collect()
    }

    fn above(&self, words: &str) -> Option<u64> {
        let (number, times) = match words.strip_suffix('k') {
            Some(number) => (number, 1_000),
            None => (words, 1),
        };
        let above = number.parse::<u64>().ok()?.checked_mul(times)?;
        // There the threshold itself is long.
        match self.text("litellm_provider").as_deref() {
            Some("xai") => above.checked_sub(1),
            _ => Some(above),
        }
    }

    /// What it costs above a threshold, or without one. What has no rate of its own for a
    /// long input keeps the `usual` one. None where nothing is told.
    fn lanes(&self, above: &str, usual: Option<&Lanes>) -> Result<Option<Lanes>, String> {
        let usual_of = |of: fn(&Lanes) -> Option<Rates>| usual.and_then(of);
        let standard = self.rates(above, "", usual.map(|usual| usual.standard))?;
        let Some(standard) = standard else {
            return Ok(None);
        };
        Ok(Some(Lanes {
            standard,
            batch: self.rates(above, "_batches", usual_of(|usual| usual.batch))?,
            flex: self.rates(above, "_flex", usual_of(|usual| usual.flex))?,
            priority: self.rates(above, "_priority", usual_of(|usual| usual.priority))?,
        }))
    }

    fn rates(
        &self,
        above: &str,
        tier: &str,
        usual: Option<Rates>,
    ) -> Result<Option<Rates>, String> {
        let price = |of: &str| {
            let price = self.price(&format!("{of}{above}{tier}"))?;
            match price {
                None => self.price(&format!("{of}{tier}{above}")),
                price => Ok(price),
            }
        };
        let (Some(input), output) = (
            price("input_cost_per_token")?,
            price("output_cost_per_token")?,
        ) else {
            return Ok(None);
        };
        let answers = !matches!(
            self.text("mode").as_deref(),
            Some("embedding" | "moderation")
        );
        let Some(output) = output.or((!answers).then_some(Usd::ZERO)) else {
            return Ok(None);
        };
        // A rate that is the usual input's is none of its own.
        let own = |of: fn(&Rates) -> Usd| {
            usual
                .filter(|usual| of(usual) != usual.input)
                .map(|usual| of(&usual))
        };
        let cached_input =
            price("cache_read_input_token_cost")?.or(own(|rates| rates.cached_input));
        let cache_write =
            price("cache_creation_input_token_cost")?.or(own(|rates| rates.cache_write));
        let mut cache_write_long = None;
        for kept in ["1hr", "12hr"] {
            let told = price(&format!("cache_creation_input_token_cost_above_{kept}"))?;
            cache_write_long = cache_write_long.or(told);
        }
        Ok(Some(Rates {
            input,
            cached_input: cached_input.unwrap_or(input),
            cache_write: cache_write.unwrap_or(input),
            cache_write_long,
            output,
        }))
    }
}
