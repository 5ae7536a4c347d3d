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
#[derive(Clone, Debug)]
pub struct Prices {
    models: BTreeMap<String, Model>,
    background_8h: Share,
    background_2h: Share,
}

#[derive(Clone, Copy, Debug)]
struct Model {
    standard: Rates,
    batch: Rates,
    flex: Rates,
}

/// A fraction of the standard price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    numerator: u32,
    denominator: u32,
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
            background: Background,
            models: BTreeMap<String, Row>,
        }
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
        struct Row {
            standard: RateRow,
            batch: RateRow,
            flex: Option<RateRow>,
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
            let batch = rates(&name, row.batch)?;
            let flex = row.flex.map(|row| rates(&name, row)).transpose()?;
            let model = Model {
                standard: rates(&name, row.standard)?,
                batch,
                flex: flex.unwrap_or(batch),
            };
            Ok((name, model))
        });
        let share = |text: &str| {
            share(text).ok_or_else(|| BadPrices(format!("`{text}` is no share of a price")))
        };
        Ok(Prices {
            models: models.collect::<Result<_, BadPrices>>()?,
            background_8h: share(&file.background.eight_hours)?,
            background_2h: share(&file.background.two_hours)?,
        })
    }

    /// The prices that are compiled in.
    pub fn built_in() -> Result<Prices, BadPrices> {
        Prices::parse(include_str!("../../config/prices.toml"))
    }

    /// The name that the model's price stands under, where it has one.
    pub fn name_of(&self, model: &str) -> Option<&str> {
        let row = |name| self.models.get_key_value(name);
        let (name, _) = row(model).or_else(|| row(undated(model)?))?;
        Some(name)
    }

    /// What `usage` costs in `lane`, beside the standard price for the same
    /// tokens, cached ones at the cached rate. None for a model without a price.
    pub fn bill(&self, model: &str, lane: Lane, usage: &Usage) -> Option<Bill> {
        let models = &self.models;
        let model = models.get(model).or_else(|| models.get(undated(model)?))?;
        let standard = model.standard.price(usage);
        let of_standard = |share: Share| standard.share(share.numerator, share.denominator);
        let paid = match lane {
            Lane::Batch => model.batch.price(usage),
            Lane::Flex => model.flex.price(usage),
            Lane::Background8h => of_standard(self.background_8h),
            Lane::Background2h => of_standard(self.background_2h),
            Lane::Standard => standard,
        };
        Some(Bill { paid, standard })
    }
}

impl Prices {
    /// What `usage` costs at the dearest standard price there is: what is reckoned
    /// with for a model without a price.
    pub fn dearest(&self, usage: &Usage) -> Usd {
        let prices = self
            .models
            .values()
            .map(|model| model.standard.price(usage));
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

/// `0.6` as 6 in 10: a decimal between 0 and 1, exact for up to six decimals.
fn share(text: &str) -> Option<Share> {
    const ONE: u32 = 1_000_000;
    let millionths = u32::try_from(per_token(text)?.as_pico()).ok()?;
    (millionths <= ONE).then_some(Share {
        numerator: millionths,
        denominator: ONE,
    })
}

/// `gpt-4.1-2025-04-14` → `gpt-4.1`.
pub fn undated(model: &str) -> Option<&str> {
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
        cache_write: 0,
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
    fn every_lane_has_its_price() {
        // 600 × 2 + 400 × 0.5 + 100 × 8, a million; batch and flex are half of it,
        // but only flex has a rate for cached tokens.
        let standard = 2_200_000_000;
        for (lane, paid) in [
            (Lane::Batch, 1000 * 1_000_000 + 100 * 4_000_000),
            (Lane::Flex, standard / 2),
            (Lane::Background8h, standard / 10 * 6),
            (Lane::Background2h, standard / 10 * 7),
            (Lane::Standard, standard),
        ] {
            let (paid, standard) = (Usd::from_pico(paid), Usd::from_pico(standard));
            assert_eq!(bill("o3", lane), Some(Bill { paid, standard }), "{lane}");
        }
        // Without a row of its own, flex costs what batch costs.
        let paid = |lane| bill("gpt-5.5", lane).unwrap().paid;
        assert_eq!(paid(Lane::Flex), paid(Lane::Batch));
    }

    #[test]
    fn no_lane_is_dearer_than_standard() {
        let prices = Prices::built_in().unwrap();
        for name in prices.models.keys() {
            for lane in Lane::ALL {
                let usage = Usage { cached: 0, ..USAGE };
                let bill = prices.bill(name, lane, &usage).unwrap();
                assert!(bill.paid <= bill.standard, "{name} {lane}");
            }
        }
    }

    #[test]
    fn a_share_is_a_decimal_of_at_most_one() {
        let given = |numerator| {
            Some(Share {
                numerator,
                denominator: 1_000_000,
            })
        };
        for (text, expected) in [
            ("0.6", given(600_000)),
            ("1", given(1_000_000)),
            ("0", given(0)),
            ("1.000001", None),
            ("-0.5", None),
            ("60%", None),
        ] {
            assert_eq!(share(text), expected, "{text}");
        }
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
        for model in prices.models.values() {
            assert!(model.standard.price(&USAGE) <= dearest);
        }
    }

    #[test]
    fn a_price_is_a_decimal() {
        for bad in ["", ".5", "1e3", "-1", "0.1234567", "1,5"] {
            assert_eq!(per_token(bad), None, "{bad}");
        }
        assert_eq!(per_token("0.000001"), Some(Usd::from_pico(1)));
    }
}
