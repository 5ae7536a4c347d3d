//! A model's prices as they are told.

use super::{
    Lanes, Model, Rates,
    decimal::{Share, per_million},
};

/// What a lane charges, in decimal dollars per million tokens.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quote {
    pub lane: &'static str,
    /// Only calls of this API run in it; none where all do.
    pub api: Option<&'static str>,
    /// Of answers whose input has more tokens than this; none of all that no other
    /// quote of the lane is of.
    pub above_tokens: Option<u64>,
    pub input: String,
    pub cached_input: String,
    pub cache_write: String,
    /// Kept for longer than by default; none where that has no known price.
    pub cache_write_long: Option<String>,
    pub output: String,
}

pub(super) fn of(model: &Model, eight_hours: Share, two_hours: Share) -> Vec<Quote> {
    let lanes = |lanes: &Lanes, above| {
        let standard = lanes.standard;
        let rates = [
            ("batch", lanes.batch),
            ("flex", lanes.flex),
            ("background-8h", Some(standard.share(eight_hours))),
            ("background-2h", Some(standard.share(two_hours))),
            ("standard", Some(standard)),
            ("priority", lanes.priority),
        ];
        let quotes = rates.into_iter();
        let quotes = quotes.filter_map(move |(lane, rates)| Some(quote(lane, above, rates?)));
        quotes.collect::<Vec<_>>()
    };
    let mut quotes = lanes(&model.usual, None);
    if let Some(long) = &model.long {
        quotes.extend(lanes(&long.lanes, Some(long.above)));
    }
    quotes
}

fn quote(lane: &'static str, above_tokens: Option<u64>, rates: Rates) -> Quote {
    Quote {
        lane,
        api: lane.starts_with("background").then_some("responses"),
        above_tokens,
        input: per_million(rates.input),
        cached_input: per_million(rates.cached_input),
        cache_write: per_million(rates.cache_write),
        cache_write_long: rates.cache_write_long.map(per_million),
        output: per_million(rates.output),
    }
}

impl Rates {
    fn share(self, share: Share) -> Rates {
        let of = |rate: crate::model::money::Usd| rate.share(share.numerator, share.denominator);
        Rates {
            input: of(self.input),
            cached_input: of(self.cached_input),
            cache_write: of(self.cache_write),
            cache_write_long: self.cache_write_long.map(of),
            output: of(self.output),
        }
    }
}
