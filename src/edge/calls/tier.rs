//! `service_tier` of a call with a deadline.

use crate::{
    edge::errors::ApiError,
    model::body::{
        Refusal,
        walk::{Fault, Kind, Walker, unquote},
    },
};

/// With them the lane is ours to choose. `priority` is refused with the rest of the
/// body ([`crate::model::body::scan`]).
const DEFERRABLE: [&str; 3] = ["auto", "default", "flex"];

/// # Errors
/// 400 for a tier that OpenAI does not know: a batch line goes without its tier, so
/// that nobody else would tell. And for `scale`, whose tokens are paid for ahead: a
/// batch would buy them again.
pub fn check(body: &[u8]) -> Result<(), ApiError> {
    let Some(tier) = tier_of(body)? else {
        return Ok(());
    };
    if DEFERRABLE.contains(&tier.as_str()) {
        return Ok(());
    }
    let accepted = "Accepted with a deadline: `auto`, `default` and `flex`.";
    let error = match tier.as_str() {
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

/// Of a body that has been found to be an object with one tier at most.
fn tier_of(body: &[u8]) -> Result<Option<String>, Refusal> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Ok(None);
    };
    let mut tier = None;
    Walker::new(text).object(|walker, key| {
        let is_string = walker.kind()? == Kind::String;
        let value = walker.value()?;
        if is_string && unquote(key).as_deref() == Some("service_tier") {
            tier = unquote(value).map(|tier| tier.into_owned());
        }
        Ok::<(), Fault>(())
    })?;
    Ok(tier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tiers_that_leave_the_lane_to_us() {
        for (fields, code) in [
            ("", None),
            (r#","service_tier":null"#, None),
            (r#","service_tier":"auto""#, None),
            (r#","service_tier":"default""#, None),
            (r#","service_tier":"fl\u0065x""#, None),
            (r#","metadata":{"service_tier":"bogus"}"#, None),
            (r#","service_tier":"scale""#, Some("unsupported_value")),
            (r#","service_tier":"bogus""#, Some("invalid_value")),
            (r#","service_tier":"""#, Some("invalid_value")),
            (r#","service_ti\u0065r":"bogus""#, Some("invalid_value")),
        ] {
            let body = format!(r#"{{"model":"m"{fields}}}"#);
            let found = check(body.as_bytes());
            match (found, code) {
                (Ok(()), None) => {}
                (Err(error), Some(code)) => {
                    let text = String::from_utf8(error.body().to_vec()).unwrap();
                    assert!(text.contains(code) && text.contains("`flex`"), "{text}");
                    assert!(text.contains(r#""param":"service_tier""#), "{text}");
                }
                (found, code) => panic!("{body}: {found:?}, not {code:?}"),
            }
        }
    }
}
