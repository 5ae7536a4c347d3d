//! `service_tier` of a call with a deadline.

use crate::edge::errors::ApiError;

/// With them the lane is ours to choose. `priority` is refused with the rest of the
/// body ([`crate::model::body::scan`]).
const DEFERRABLE: [&str; 3] = ["auto", "default", "flex"];

/// # Errors
/// 400 for a tier that OpenAI does not know: a batch line goes without its tier, so
/// that nobody else would tell. And for `scale`, whose tokens are paid for ahead: a
/// batch would buy them again.
pub fn check(tier: Option<&str>) -> Result<(), ApiError> {
    let Some(tier) = tier.filter(|tier| !DEFERRABLE.contains(tier)) else {
        return Ok(());
    };
    let accepted = "Accepted with a deadline: `auto`, `default` and `flex`.";
    let error = match tier {
        "scale" => ApiError::bad(
            "unsupported_value",
            format!(
                "'service_tier': \"scale\" cannot be combined with a deadline: its tokens are \
                 paid for ahead, and a batch would pay them again. {accepted}"
            ),
        ),
        _ => ApiError::bad(
            "invalid_value",
            format!("Invalid value for 'service_tier': {tier:?}. {accepted}"),
        ),
    };
    Err(error.param("service_tier"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tiers_that_leave_the_lane_to_us() {
        for (tier, code) in [
            (None, None),
            (Some("auto"), None),
            (Some("default"), None),
            (Some("flex"), None),
            (Some("scale"), Some("unsupported_value")),
            (Some("bogus"), Some("invalid_value")),
            (Some(""), Some("invalid_value")),
        ] {
            match (check(tier), code) {
                (Ok(()), None) => {}
                (Err(error), Some(code)) => {
                    let text = String::from_utf8(error.body().to_vec()).unwrap();
                    assert!(text.contains(code) && text.contains("`flex`"), "{text}");
                    assert!(text.contains(r#""param":"service_tier""#), "{text}");
                }
                (found, code) => panic!("{tier:?}: {found:?}, not {code:?}"),
            }
        }
    }
}
