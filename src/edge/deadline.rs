//! What may be asked of deadlines.

use std::time::Duration;

use crate::model::deadline::Why;

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The latest deadline taken, from receipt.
    #[serde(with = "crate::model::time::human")]
    pub max: Duration,
    /// Refuse what can only be passed through, or met with luck.
    pub strict: bool,
}

/// What a deadline that could not be read lacks, where that is plain to see.
pub fn hint(why: &Why) -> Option<String> {
    /// Longer ones are rather an instant in seconds.
    const DIGITS: usize = 6;
    let Why::Unreadable(given) = why else {
        return None;
    };
    if given.starts_with('-') {
        return Some("It must not be negative.".to_owned());
    }
    let bare = !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit());
    (bare && given.len() <= DIGITS).then(|| {
        format!("It has no unit: write `{given}h` for hours, `{given}m` for minutes, `{given}s` for seconds.")
    })
}
