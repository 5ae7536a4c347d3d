//! Decimal text as whole numbers: no price is ever a float.

use thiserror::Error;

use crate::model::money::Usd;

/// Decimals of dollars a million tokens that are whole picodollars a token.
const DECIMALS: usize = 6;
/// More than a float of 64 bits keeps: what stands behind is noise.
const SIGNIFICANT: usize = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadDecimal {
    #[error("is no decimal number of dollars a million tokens")]
    NoDecimal,
    #[error(
        "has more than six decimals: a token would cost no whole number of picodollars, and is not rounded"
    )]
    TooFine,
    #[error("is more than any token costs")]
    TooMuch,
}

/// A decimal price per million tokens as picodollars a token.
pub fn per_token(text: &str) -> Result<Usd, BadDecimal> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) {
        return Err(BadDecimal::NoDecimal);
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > DECIMALS {
        return Err(BadDecimal::TooFine);
    }
    if whole.len() > 9 {
        return Err(BadDecimal::TooMuch);
    }
    let pico = format!("{whole}{decimals:0<DECIMALS$}").parse();
    pico.map(Usd::from_pico).map_err(|_| BadDecimal::NoDecimal)
}

/// The inverse: as short as it is exact.
pub fn per_million(price: Usd) -> String {
    let digits = format!("{:07}", price.as_pico());
    let (whole, decimals) = digits.split_at(digits.len() - DECIMALS);
    match decimals.trim_end_matches('0') {
        "" => whole.to_owned(),
        decimals => format!("{whole}.{decimals}"),
    }
}

/// A price in dollars a token as JSON has it (`1.5e-07`, `0.000003`), as picodollars.
/// Digits that only a float's rounding left behind are rounded away.
pub fn of_dollars(text: &str) -> Result<Usd, BadDecimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>()),
        None => (text, Ok(0)),
    };
    let exponent = exponent.map_err(|_| BadDecimal::NoDecimal)?;
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{decimals}");
    if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadDecimal::NoDecimal);
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(Usd::ZERO);
    }
    // The value is `digits` × 10^power picodollars.
    let mut power = exponent.saturating_add(12) - decimals.len() as i32;
    let mut number: u128 = match digits.split_at_checked(SIGNIFICANT) {
        Some((kept, noise)) => {
            power = power.saturating_add(noise.len() as i32);
            let up = noise.as_bytes().first().is_some_and(|digit| *digit >= b'5');
            let kept: u128 = kept.parse().map_err(|_| BadDecimal::NoDecimal)?;
            kept + u128::from(up)
        }
        None => digits.parse().map_err(|_| BadDecimal::NoDecimal)?,
    };
    while power < 0 {
        if !number.is_multiple_of(10) {
            return Err(BadDecimal::TooFine);
        }
        number /= 10;
        power += 1;
    }
    let scale = 10_u128.checked_pow(power as u32);
    let pico = scale.and_then(|scale| number.checked_mul(scale));
    match pico.and_then(|pico| i128::try_from(pico).ok()) {
        Some(pico) if pico < 1_000_000_000_000_000 => Ok(Usd::from_pico(pico)),
        _ => Err(BadDecimal::TooMuch),
    }
}

/// A fraction of the standard price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub numerator: u32,
    pub denominator: u32,
}

/// `0.6` as 6 in 10: a decimal between 0 and 1, exact for up to six decimals.
pub fn share(text: &str) -> Option<Share> {
    const ONE: u32 = 1_000_000;
    let millionths = u32::try_from(per_token(text).ok()?.as_pico()).ok()?;
    (millionths <= ONE).then_some(Share {
        numerator: millionths,
        denominator: ONE,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_price_is_a_decimal() {
        use BadDecimal::{NoDecimal, TooFine, TooMuch};
        for (text, expected) in [
            ("", Err(NoDecimal)),
            (".5", Err(NoDecimal)),
            ("1e3", Err(NoDecimal)),
            ("-1", Err(NoDecimal)),
            ("1,5", Err(NoDecimal)),
            ("0.1234567", Err(TooFine)),
            ("1234567890", Err(TooMuch)),
            ("0.12345600", Ok(123_456)),
            ("0.000001", Ok(1)),
            ("30", Ok(30_000_000)),
        ] {
            assert_eq!(per_token(text), expected.map(Usd::from_pico), "{text}");
        }
    }

    #[test]
    fn dollars_a_token_are_read_digit_by_digit() {
        use BadDecimal::{NoDecimal, TooFine, TooMuch};
        for (text, expected) in [
            ("1.5e-07", Ok(150_000)),
            ("2E-6", Ok(2_000_000)),
            ("3e-06", Ok(3_000_000)),
            ("0.00012", Ok(120_000_000)),
            ("0.000060", Ok(60_000_000)),
            ("0", Ok(0)),
            ("0.0", Ok(0)),
            ("0e-400", Ok(0)),
            ("1e-12", Ok(1)),
            ("1e+1", Ok(10_000_000_000_000)),
            // 0.1 µ$ and 0.2 µ$, added up as floats and written out.
            ("5.0000000000000004e-08", Ok(50_000)),
            ("4.6999999999999995e-07", Ok(470_000)),
            ("3.3333333333e-08", Err(TooFine)),
            ("1e-13", Err(TooFine)),
            ("1e-999999999", Err(TooFine)),
            ("1e99", Err(TooMuch)),
            ("9e999999999", Err(TooMuch)),
            ("1e99999999999", Err(NoDecimal)),
            ("-1e-07", Err(NoDecimal)),
            ("1.5e-07x", Err(NoDecimal)),
            ("\"1\"", Err(NoDecimal)),
            ("null", Err(NoDecimal)),
            (".5", Err(NoDecimal)),
        ] {
            assert_eq!(of_dollars(text), expected.map(Usd::from_pico), "{text}");
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

    proptest! {
        #[test]
        fn every_price_comes_back(pico in 0..1_000_000_000_000_000i128) {
            let price = Usd::from_pico(pico);
            prop_assert_eq!(per_token(&per_million(price)), Ok(price));
            // However it is written in JSON.
            prop_assert_eq!(of_dollars(&format!("{pico}e-12")), Ok(price));
            let plain = format!("0.{pico:012}");
            if pico < 1_000_000_000_000 {
                prop_assert_eq!(of_dollars(&plain), Ok(price));
            }
        }

        #[test]
        fn no_text_is_too_much(text in "\\PC*", number in "-?[0-9]{0,30}(\\.[0-9]{0,30})?([eE][-+]?[0-9]{0,12})?") {
            for text in [text, number] {
                let _ = (of_dollars(&text), per_token(&text), share(&text));
            }
        }
    }
}
