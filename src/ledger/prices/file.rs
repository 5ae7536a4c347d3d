//! Prices as TOML: decimal dollars per million tokens, as text.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;
use serde_json::Value;

use super::{
    BadPrices, Lanes, Long, Model, Prices, Rates,
    decimal::{per_million, per_token, share},
};
use crate::model::money::Usd;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "updated")]
    _updated: String,
    background: Background,
    models: BTreeMap<String, ModelRow>,
}

/// Shares of the standard price.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Background {
    #[serde(rename = "8h")]
    eight_hours: String,
    #[serde(rename = "2h")]
    two_hours: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelRow {
    standard: RateRow,
    batch: Option<RateRow>,
    flex: Option<RateRow>,
    priority: Option<RateRow>,
    long: Option<LongRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongRow {
    above: u64,
    standard: RateRow,
    batch: Option<RateRow>,
    flex: Option<RateRow>,
    priority: Option<RateRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateRow {
    input: String,
    cached_input: Option<String>,
    cache_write: Option<String>,
    cache_write_long: Option<String>,
    output: String,
}

pub fn parse(toml: &str) -> Result<Prices, BadPrices> {
    let table: toml::Table = toml::from_str(toml).map_err(|error| BadPrices(error.to_string()))?;
    let file: File =
        serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
            let why = error.inner().message().trim_end();
            BadPrices(format!("{}: {why}", error.path()))
        })?;
    let share = |name: &str, text: &str| {
        share(text).ok_or_else(|| {
            BadPrices(format!(
                "background.{name}: `{text}` is no share of a price"
            ))
        })
    };
    let models = file.models.into_iter();
    let models = models.map(|(name, row)| row.read(&name).map(|model| (name, model)));
    Ok(Prices {
        models: models.collect::<Result<_, BadPrices>>()?,
        background_8h: share("8h", &file.background.eight_hours)?,
        background_2h: share("2h", &file.background.two_hours)?,
    })
}

impl ModelRow {
    fn read(self, name: &str) -> Result<Model, BadPrices> {
        let lanes = |prefix, standard: RateRow, others: [Option<RateRow>; 3]| {
            let named = |lane: &str| format!("models.{name}: {prefix}{lane}");
            let [batch, flex, priority] = others;
            let read =
                |row: Option<RateRow>, lane| row.map(|row| row.read(&named(lane))).transpose();
            Ok::<_, BadPrices>(Lanes {
                standard: standard.read(&named("standard"))?,
                batch: read(batch, "batch")?,
                flex: read(flex, "flex")?,
                priority: read(priority, "priority")?,
            })
        };
        let long = self.long.map(|long| {
            let others = [long.batch, long.flex, long.priority];
            Ok::<_, BadPrices>(Long {
                above: long.above,
                lanes: lanes("long.", long.standard, others)?,
            })
        });
        Ok(Model {
            long: long.transpose()?,
            usual: lanes("", self.standard, [self.batch, self.flex, self.priority])?,
        })
    }
}

impl RateRow {
    /// `at` is the model and the lane.
    fn read(self, at: &str) -> Result<Rates, BadPrices> {
        let price = |field: &str, text: &str| {
            per_token(text).map_err(|why| BadPrices(format!("{at}.{field}: `{text}` {why}")))
        };
        let other =
            |field: &str, text: Option<&str>| text.map(|text| price(field, text)).transpose();
        let input = price("input", &self.input)?;
        let cached_input = other("cached_input", self.cached_input.as_deref())?;
        let cache_write = other("cache_write", self.cache_write.as_deref())?;
        Ok(Rates {
            input,
            cached_input: cached_input.unwrap_or(input),
            cache_write: cache_write.unwrap_or(input),
            cache_write_long: other("cache_write_long", self.cache_write_long.as_deref())?,
            output: price("output", &self.output)?,
        })
    }
}

/// A model as it stands in the file.
pub fn written(name: &str, model: &Model) -> String {
    // What JSON escapes, and DEL, is what a quoted name of TOML escapes, in one line.
    let name = Value::from(name).to_string().replace('\u{7f}', "\\u007f");
    let mut text = format!("[models.{name}]\n");
    let lanes = |text: &mut String, prefix: &str, lanes: &Lanes| {
        let named = [
            ("standard", Some(lanes.standard)),
            ("batch", lanes.batch),
            ("flex", lanes.flex),
            ("priority", lanes.priority),
        ];
        for (lane, rates) in named {
            if let Some(rates) = rates {
                let _ = writeln!(text, "{prefix}{lane} = {}", row(&rates));
            }
        }
    };
    lanes(&mut text, "", &model.usual);
    if let Some(long) = &model.long {
        let _ = writeln!(text, "long.above = {}", long.above);
        lanes(&mut text, "long.", &long.lanes);
    }
    text
}

fn row(rates: &Rates) -> String {
    let differs = |rate: Usd| (rate != rates.input).then_some(rate);
    let fields = [
        ("input", Some(rates.input)),
        ("cached_input", differs(rates.cached_input)),
        ("cache_write", differs(rates.cache_write)),
        ("cache_write_long", rates.cache_write_long),
        ("output", Some(rates.output)),
    ];
    let fields = fields.into_iter().filter_map(|(name, rate)| {
        let rate = per_million(rate?);
        Some(format!("{name} = \"{rate}\""))
    });
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}
