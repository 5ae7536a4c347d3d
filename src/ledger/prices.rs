//! Prices per model and lane, from `config/prices.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::model::{
    attempt::Lane,
    money::Usd,
    request::{Bill, Usage},
};

#[derive(Debug, Error)]
#[error("prices: {0}")]
pub struct BadPrices(String);

/// A token's price in each lane, by model.
#[derive(Clone, Debug, Default)]
pub struct Prices(BTreeMap<String, Model>);

#[derive(Clone, Copy, Debug)]
struct Model {
    standard: Rates,
    batch: Rates,
}

#[derive(Clone, Copy, Debug)]
struct Rates {
    input: Usd,
    cached_input: Usd,
    output: Usd,
}

impl Prices {
    pub fn parse(toml: &str) -> Result<Prices, BadPrices> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(rename = "updated")]
            _updated: String,
            models: BTreeMap<String, Row>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Row {
            standard: RateRow,
            batch: RateRow,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RateRow {
            input: String,
            output: String,
            cached_input: Option<String>,
        }
        let rates = |name: &str, row: RateRow| -> Result<Rates, BadPrices> {
            let price = |text: &str| {
                per_token(text)
                    .ok_or_else(|| BadPrices(format!("{name}: `{text}` is no decimal price")))
            };
            let input = price(&row.input)?;
            let cached_input = row.cached_input.as_deref().map(price).transpose()?;
            let output = price(&row.output)?;
            Ok(Rates {
                input,
                cached_input: cached_input.unwrap_or(input),
                output,
            })
        };
        let file: File = toml::from_str(toml).map_err(|error| BadPrices(error.to_string()))?;
        let models = file.models.into_iter().map(|(name, row)| {
            let model = Model {
                standard: rates(&name, row.standard)?,
                batch: rates(&name, row.batch)?,
            };
            Ok((name, model))
        });
        models.collect::<Result<_, _>>().map(Prices)
    }

    /// The prices that are compiled in.
    pub fn built_in() -> Result<Prices, BadPrices> {
        Prices::parse(include_str!("../../config/prices.toml"))
    }

    /// What `usage` costs in `lane`, beside the standard price for the same
    /// tokens, cached ones at the cached rate. None for a model without a price.
    pub fn bill(&self, model: &str, lane: Lane, usage: &Usage) -> Option<Bill> {
        let model = self.0.get(model).or_else(|| self.0.get(undated(model)?))?;
        let standard = model.standard.price(usage);
        let paid = match lane {
            Lane::Standard => standard,
            Lane::Batch => model.batch.price(usage),
        };
        Some(Bill { paid, standard })
    }
}

impl Prices {
    /// What `usage` costs at the dearest standard price there is: what is reckoned
    /// with for a model without a price.
    pub fn dearest(&self, usage: &Usage) -> Usd {
        let prices = self.0.values().map(|model| model.standard.price(usage));
        prices.max().unwrap_or_default()
    }
}

impl Rates {
    fn price(&self, usage: &Usage) -> Usd {
        let cached = usage.cached.min(usage.input);
        self.input.times(usage.input - cached)
            + self.cached_input.times(cached)
            + self.output.times(usage.output)
    }
}

/// A decimal price per million tokens as picodollars a token: exact for up to
/// six decimals.
fn per_token(text: &str) -> Option<Usd> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 9
        || decimals.len() > 6
        || !digits(whole)
        || !digits(decimals)
    {
        return None;
    }
    format!("{whole}{decimals:0<6}")
        .parse()
        .ok()
        .map(Usd::from_pico)
}

/// `gpt-4.1-2025-04-14` → `gpt-4.1`.
fn undated(model: &str) -> Option<&str> {
    let (name, date) = model.split_at_checked(model.len().checked_sub(11)?)?;
    let shape: String = date
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    (shape == "-0000-00-00").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage {
        input: 1000,
        cached: 400,
        output: 100,
    };

    fn bill(model: &str, lane: Lane) -> Option<Bill> {
        Prices::built_in().unwrap().bill(model, lane, &USAGE)
    }

    #[test]
    fn adds_up_to_the_last_picodollar() {
        // 600 × 0.15 + 400 × 0.075 + 100 × 0.60, and 1000 × 0.075 + 100 × 0.30, a million.
        let standard = Usd::from_pico(600 * 150_000 + 400 * 75_000 + 100 * 600_000);
        let batch = Usd::from_pico(1000 * 75_000 + 100 * 300_000);
        assert_eq!(
            bill("gpt-4o-mini", Lane::Standard),
            Some(Bill {
                paid: standard,
                standard
            })
        );
        assert_eq!(
            bill("gpt-4o-mini", Lane::Batch),
            Some(Bill {
                paid: batch,
                standard
            })
        );
        assert_eq!(
            bill("gpt-4o-mini-2024-07-18", Lane::Batch),
            bill("gpt-4o-mini", Lane::Batch)
        );
    }

    #[test]
    fn an_unknown_model_has_no_price() {
        assert_eq!(bill("gpt-4o-mini-x", Lane::Batch), None);
        assert_eq!(bill("ft:gpt-4o-mini:acme", Lane::Batch), None);
        assert_eq!(bill("é-2024-07-18", Lane::Batch), None);
    }

    #[test]
    fn what_has_no_price_is_reckoned_as_the_dearest() {
        let prices = Prices::built_in().unwrap();
        let dearest = prices.dearest(&USAGE);
        assert!(dearest > Usd::ZERO);
        for model in prices.0.values() {
            assert!(model.standard.price(&USAGE) <= dearest);
        }
        assert_eq!(Prices::default().dearest(&USAGE), Usd::ZERO);
    }

    #[test]
    fn a_price_is_a_decimal() {
        for bad in ["", ".5", "1e3", "-1", "0.1234567", "1,5"] {
            assert_eq!(per_token(bad), None, "{bad}");
        }
        assert_eq!(per_token("0.000001"), Some(Usd::from_pico(1)));
    }
}
