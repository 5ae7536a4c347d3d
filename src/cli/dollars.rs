//! Amounts of a table: as many decimals as its largest needs.

use serde_json::Value;

/// Amounts are texts, counts are numbers.
pub fn amount(value: &Value) -> Option<f64> {
    value.as_str()?.parse().ok()
}

/// Four of a bill in dollars, more of one in parts of a cent: the largest amount shows
/// four digits.
pub fn decimals_for(most: f64) -> usize {
    match most > 0.0 && most < 1.0 {
        true => (4 + (-most.log10()).floor() as usize).min(9),
        false => 4,
    }
}

pub fn dollars(amount: f64, decimals: usize) -> String {
    match amount < 0.0 {
        true => format!("-${:.decimals$}", -amount),
        false => format!("${amount:.decimals$}"),
    }
}
