//! What one lane charges for each kind of token.

use crate::model::{money::Usd, request::Usage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    pub input: Usd,
    /// Of input that the provider had cached.
    pub cached_input: Usd,
    /// Of input that it writes into its cache.
    pub cache_write: Usd,
    /// Of the same where it is kept for longer than by default.
    pub cache_write_long: Option<Usd>,
    pub output: Usd,
}

impl Rates {
    pub fn is_free(&self) -> bool {
        (self.input, self.output) == (Usd::ZERO, Usd::ZERO)
    }

    /// None where some of what is written to the cache is kept for longer, and what that
    /// costs is not known.
    pub fn price(&self, usage: &Usage, long_kept: u64) -> Option<Usd> {
        let cached = usage.cached.min(usage.input);
        let written = usage.cache_write.min(usage.input - cached);
        let long_kept = long_kept.min(written);
        let for_longer = match (long_kept, self.cache_write_long) {
            (0, _) => Usd::ZERO,
            (tokens, rate) => rate?.times(tokens),
        };
        let input = self.input.times(usage.input - cached - written)
            + self.cached_input.times(cached)
            + self.cache_write.times(written - long_kept)
            + for_longer;
        Some(input + self.output.times(usage.output))
    }
}
