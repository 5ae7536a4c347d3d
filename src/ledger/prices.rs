//! Prices per model and lane, from `config/prices.toml` and a file of the operator's own.

mod decimal;
mod file;
pub mod litellm;
mod quote;
mod rates;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use thiserror::Error;

pub use self::quote::Quote;
use self::{decimal::Share, rates::Rates};
use super::usage::{Metered, Tier};
use crate::model::{
    attempt::Lane,
    money::Usd,
    request::{Bill, Usage},
};

/// Says where, by model, lane and field.
#[derive(Debug, Error)]
#[error("prices: {0}")]
pub struct BadPrices(String);

/// What a token costs, by model, lane and kind.
#[derive(Clone, Debug)]
pub struct Prices {
    models: BTreeMap<String, Model>,
    background_8h: Share,
    background_2h: Share,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Model {
    usual: Lanes,
    long: Option<Long>,
}

/// What an answer to a long prompt costs, all of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Long {
    /// An input of more tokens than this is long.
    above: u64,
    lanes: Lanes,
}

/// None of a lane that the model is not offered in, or whose price nobody told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lanes {
    standard: Rates,
    batch: Option<Rates>,
    flex: Option<Rates>,
    priority: Option<Rates>,
}

/// What is billed.
#[derive(Clone, Copy, Debug)]
enum Billed {
    In(Lane),
    Priority,
}

impl Prices {
    /// # Errors
    /// What is no TOML of prices, or a price that is no decimal of at most six places a
    /// million tokens.
    pub fn parse(toml: &str) -> Result<Prices, BadPrices> {
        file::parse(toml)
    }

    /// The prices that are compiled in.
    pub fn built_in() -> Result<Prices, BadPrices> {
        Prices::parse(include_str!("../../config/prices.toml"))
    }

    /// The name that the model's price stands under, where it has one.
    pub fn name_of(&self, model: &str) -> Option<&str> {
        self.find(model).map(|(name, _)| name)
    }

    /// These, and over them those of a file: a model of both has the file's prices alone.
    ///
    /// # Errors
    /// As of [`Prices::parse`].
    pub fn with(mut self, toml: &str) -> Result<Prices, BadPrices> {
        let own = Prices::parse(toml)?;
        self.models.extend(own.models);
        self.background_8h = own.background_8h;
        self.background_2h = own.background_2h;
        Ok(self)
    }

    /// What tokens cost in `lane`, beside the standard price of the same tokens: cached
    /// ones, and those written to the cache, at the rates for that. None for a model, a
    /// lane or a length without a price.
    pub fn bill(&self, model: &str, lane: Lane, usage: &Usage) -> Option<Bill> {
        self.priced(model, Billed::In(lane), usage, 0)
    }

    /// What an answer cost that was asked for in `lane`, by what it says of itself: its
    /// own tier, where that is billed. None where it does not tell its tokens, or has some
    /// of sound, either.
    pub fn bill_of(&self, model: &str, lane: Lane, metered: &Metered) -> Option<Bill> {
        let billed = match (metered.lane(lane), metered.tier) {
            (Lane::Standard, Tier::Priority) => Billed::Priority,
            // What it costs was agreed with the customer.
            (Lane::Standard, Tier::Scale) => return None,
            (lane, _) => Billed::In(lane),
        };
        self.metered(model, billed, metered)
    }

    /// What an answer's tokens cost in `lane`, whatever tier it was served in. None as of
    /// [`Prices::bill_of`].
    pub fn bill_in(&self, model: &str, lane: Lane, metered: &Metered) -> Option<Bill> {
        self.metered(model, Billed::In(lane), metered)
    }

    fn metered(&self, model: &str, billed: Billed, metered: &Metered) -> Option<Bill> {
        // What costs nothing costs as much whatever its tokens are: moderations tell none.
        let is_free = || self.find(model).is_some_and(|(_, model)| model.is_free());
        match !metered.sound && (metered.known || is_free()) {
            true => self.priced(model, billed, &metered.usage, metered.long_kept),
            false => None,
        }
    }

    /// What an answer in `lane` cost at most whose price is not known: at its model's
    /// standard rates, none of it cached. Where that has none, or the answer was served in
    /// a dearer tier or has tokens of sound, at the dearest rates there are.
    pub fn at_most(&self, model: &str, lane: Lane, metered: &Metered) -> Usd {
        let fresh = Usage {
            cached: 0,
            ..metered.usage
        };
        let is_dearer = metered.sound
            || metered.lane(lane) == Lane::Standard
                && matches!(metered.tier, Tier::Priority | Tier::Scale);
        let own = match is_dearer {
            true => None,
            false => self.priced(model, Billed::In(Lane::Standard), &fresh, metered.long_kept),
        };
        // Whether the dearest has a rate of its own for what is written is not known.
        let plain = Usage {
            cache_write: 0,
            ..fresh
        };
        own.map_or_else(|| self.dearest(&plain), |bill| bill.standard)
    }

    /// What `usage` costs at the model's standard rates, of which those of every lane are
    /// a part; at the dearest there are where it has none.
    pub fn ordinary(&self, model: &str, usage: &Usage) -> Usd {
        let own = self.bill(model, Lane::Standard, usage);
        own.map_or_else(|| self.dearest(usage), |bill| bill.standard)
    }

    /// What `usage` costs at the dearest standard price there is.
    fn dearest(&self, usage: &Usage) -> Usd {
        let models = self.models.values();
        let prices = models.filter_map(|model| model.of(usage).standard.price(usage, 0));
        prices.max().unwrap_or_default()
    }

    /// A model's name here, and its prices in every lane. None without a price.
    pub fn quotes(&self, model: &str) -> Option<(&str, Vec<Quote>)> {
        let (name, model) = self.find(model)?;
        Some((
            name,
            quote::of(model, self.background_8h, self.background_2h),
        ))
    }

    /// Of `long_kept` of the tokens that are written to the cache it is known that they
    /// are kept for longer.
    fn priced(&self, model: &str, billed: Billed, usage: &Usage, long_kept: u64) -> Option<Bill> {
        let (_, model) = self.find(model)?;
        let lanes = model.of(usage);
        let standard = lanes.standard.price(usage, long_kept)?;
        let of_standard = |share: Share| standard.share(share.numerator, share.denominator);
        let paid = match billed {
            Billed::In(Lane::Batch) => lanes.batch?.price(usage, long_kept)?,
            Billed::In(Lane::Flex) => lanes.flex?.price(usage, long_kept)?,
            Billed::In(Lane::Background8h) => of_standard(self.background_8h),
            Billed::In(Lane::Background2h) => of_standard(self.background_2h),
            Billed::In(Lane::Standard) => standard,
            Billed::Priority => lanes.priority?.price(usage, long_kept)?,
        };
        Some(Bill { paid, standard })
    }

    fn find(&self, model: &str) -> Option<(&str, &Model)> {
        let found = self.models.get_key_value(model);
        let found = found.or_else(|| self.models.get_key_value(undated(model)?));
        found.map(|(name, model)| (name.as_str(), model))
    }
}

impl Model {
    fn is_free(&self) -> bool {
        self.long.is_none() && self.usual.standard.is_free()
    }

    /// What applies to an answer with this usage.
    fn of(&self, usage: &Usage) -> &Lanes {
        match &self.long {
            Some(long) if usage.input > long.above => &long.lanes,
            _ => &self.usual,
        }
    }
}

/// `gpt-4.1-2025-04-14` → `gpt-4.1`, and `claude-sonnet-4-5-20250929` likewise.
pub fn undated(model: &str) -> Option<&str> {
    ["-0000-00-00", "-00000000"].into_iter().find_map(|date| {
        let at = model.len().checked_sub(date.len())?;
        let (name, end) = model.split_at_checked(at)?;
        let zero = |c: char| if c.is_ascii_digit() { '0' } else { c };
        (end.chars().map(zero).eq(date.chars())).then_some(name)
    })
}
