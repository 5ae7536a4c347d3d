//! The model of a call whose key lists those that it may call: read from the body, as
//! strictly as any upstream might read it otherwise.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};

use super::errors::ApiError;
use crate::engine::Caller;

/// Whether the caller's key lists its models, so that a body must be seen.
pub fn are_listed(caller: &Caller) -> bool {
    let key = caller.key.as_ref();
    key.is_some_and(|key| !key.issued.models.is_empty())
}

/// # Errors
/// 403 where the caller's key lists models and the body names none of them, or another
/// one beside it.
pub fn check(caller: &Caller, body: &[u8]) -> Result<(), ApiError> {
    let Some(key) = caller.key.as_ref().filter(|_| are_listed(caller)) else {
        return Ok(());
    };
    let named = serde_json::from_slice::<Named>(body);
    let Named(model) = named.map_err(|error| unseen(&format!("of its body: {error}")))?;
    if key.issued.allows(&model) {
        return Ok(());
    }
    let message = format!(
        "This key may not call the model `{model}`. Accepted: {}.",
        key.issued.models.join(", ")
    );
    Err(ApiError::forbidden("model_not_allowed", message).param("model"))
}

/// The answer to a call whose model cannot be told, because `why`.
pub fn unseen(why: &str) -> ApiError {
    let message = format!(
        "This key may call some models only, and which one this call is for cannot be told, \
         because {why}. Accepted: a JSON body that names one `model`."
    );
    ApiError::forbidden("model_not_checked", message).param("model")
}

/// The one model that a body names.
struct Named(String);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Model)
    }
}

struct Model;

impl<'de> Visitor<'de> for Model {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a `model`")
    }

    /// Some upstreams take `Model` for `model`, the last of two, or one of `models`.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
        let mut model = None;
        while let Some(key) = map.next_key::<String>()? {
            let is = |name: &str| key.eq_ignore_ascii_case(name);
            if key == "model" && model.is_none() {
                model = Some(map.next_value::<String>()?);
            } else if is("model") || is("models") {
                return Err(de::Error::custom(format_args!(
                    "`{key}` names another model"
                )));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        model
            .map(Named)
            .ok_or_else(|| de::Error::missing_field("model"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_the_one_that_is_named_once() {
        for (body, model) in [
            (r#"{"model":"o3","input":"x"}"#, Some("o3")),
            (
                r#"{"input":{"model":"gpt-5"},"model":"\u006f3"}"#,
                Some("o3"),
            ),
            (r#"{"input":"x"}"#, None),
            (r#"{"model":null}"#, None),
            (r#"{"model":["o3"]}"#, None),
            (r#"{"model":"o3","model":"gpt-5"}"#, None),
            (r#"{"model":"o3","mod\u0065l":"gpt-5"}"#, None),
            (r#"{"model":"o3","MODEL":"gpt-5"}"#, None),
            (r#"{"model":"o3","models":["gpt-5"]}"#, None),
            (r#"["o3"]"#, None),
            (r#"{"model":"o3"} {"model":"gpt-5"}"#, None),
            ("model=o3", None),
            ("", None),
        ] {
            let named = serde_json::from_slice::<Named>(body.as_bytes());
            let named = named.ok().map(|Named(model)| model);
            assert_eq!(named.as_deref(), model, "{body}");
        }
    }
}
