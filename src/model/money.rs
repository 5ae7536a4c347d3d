//! Money as an integer.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Sub},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use thiserror::Error;

/// Picodollars (10⁻¹² USD). Prices are quoted per million tokens with up to six
/// decimals, so a token's price is a whole number of these.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Usd(i128);

impl Usd {
    pub const ZERO: Usd = Usd(0);

    pub const fn from_pico(pico: i128) -> Self {
        Usd(pico)
    }

    pub const fn as_pico(self) -> i128 {
        self.0
    }

    /// This amount times a fraction, rounded down to a whole picodollar. The
    /// denominator is not 0.
    pub const fn share(self, numerator: u32, denominator: u32) -> Usd {
        let scaled = self.0.saturating_mul(numerator as i128);
        Usd(scaled.div_euclid(denominator as i128))
    }

    /// This price a token, for `tokens` of them.
    pub const fn times(self, tokens: u64) -> Usd {
        Usd(self.0.saturating_mul(tokens as i128))
    }
}

impl Add for Usd {
    type Output = Usd;
    fn add(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Usd) {
        *self = *self + other;
    }
}

impl Sub for Usd {
    type Output = Usd;
    fn sub(self, other: Usd) -> Usd {
        Usd(self.0.saturating_sub(other.0))
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Usd>>(amounts: I) -> Usd {
        amounts.fold(Usd::ZERO, Usd::add)
    }
}

/// Exact decimal dollars, at least two decimals and no trailing zeros beyond.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SCALE: u128 = 1_000_000_000_000;
        let magnitude = self.0.unsigned_abs();
        let decimals = format!("{:012}", magnitude % SCALE);
        let kept = decimals.trim_end_matches('0').len().max(2);
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{}", magnitude / SCALE, &decimals[..kept])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an amount in decimal dollars")]
pub struct BadAmount;

/// The inverse of [`Usd`]'s text: at most twelve decimals.
impl FromStr for Usd {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Usd, BadAmount> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 12 || !plain(whole) || !plain(decimals) {
            return Err(BadAmount);
        }
        let pico: i128 = format!("{whole}{decimals:0<12}")
            .parse()
            .map_err(|_| BadAmount)?;
        Ok(Usd(if negative { -pico } else { pico }))
    }
}

/// A bound in settings: an amount as text, or empty for none. Use with
/// `#[serde(deserialize_with = "crate::model::money::bound")]`.
pub fn bound<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Usd>, D::Error> {
    let text = String::deserialize(from)?;
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(amount) if amount >= Usd::ZERO => Ok(Some(amount)),
        _ => Err(D::Error::custom(format!(
            "`{text}` is no amount in dollars such as \"25\" or \"0.50\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_is_an_amount() {
        for bad in ["", ".5", "--1", "1e3", "0.1234567890123", "1,5", "$1"] {
            assert_eq!(bad.parse::<Usd>(), Err(BadAmount), "{bad}");
        }
    }

    #[test]
    fn a_share_is_rounded_down() {
        for (pico, numerator, denominator, share) in [
            (180_000, 6, 10, 108_000),
            (1, 6, 10, 0),
            (-1, 6, 10, -1),
            (0, 7, 10, 0),
        ] {
            let amount = Usd::from_pico(pico);
            assert_eq!(amount.share(numerator, denominator), Usd::from_pico(share));
        }
    }

    #[test]
    fn reads_as_exact_dollars() {
        for (pico, text) in [
            (0, "0.00"),
            (1, "0.000000000001"),
            (1_500_000_000_000, "1.50"),
            (-75_000, "-0.000000075"),
            (12_345_678_900_000_000, "12345.6789"),
        ] {
            assert_eq!(Usd::from_pico(pico).to_string(), text);
            assert_eq!(text.parse(), Ok(Usd::from_pico(pico)));
        }
    }
}
