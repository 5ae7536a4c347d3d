//! What an answer may cost, before it is there.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use crate::model::{endpoint::Endpoint, request::Usage};

/// Bytes of a request for one token. Text of English is four; fewer, so that the
/// estimate is rather too high.
const BYTES_A_TOKEN: u64 = 3;
/// Tokens of output where nothing is known.
const USUAL_OUTPUT: u64 = 1_000;

/// Tokens of `calls` calls of so many bytes together. `output` is what a call of
/// the kind answers in the mean, where that was seen.
pub fn expected(endpoint: Endpoint, bytes: u64, calls: u64, output: Option<u64>) -> Usage {
    let output = match answers_in_tokens(endpoint) {
        true => output.unwrap_or(USUAL_OUTPUT).saturating_mul(calls),
        false => 0,
    };
    Usage {
        input: bytes.div_ceil(BYTES_A_TOKEN),
        output,
        ..Usage::default()
    }
}

/// The same for one call, whose body may say how long its answers may be, and how many
/// they are.
pub fn expected_of(endpoint: Endpoint, body: &[u8], output: Option<u64>) -> Usage {
    let usage = expected(endpoint, body.len() as u64, 1, output);
    if !answers_in_tokens(endpoint) {
        return usage;
    }
    let asked: Asked = serde_json::from_slice(body).unwrap_or_default();
    let each = asked.most.unwrap_or(usage.output);
    Usage {
        output: each.saturating_mul(asked.answers()),
        ..usage
    }
}

fn answers_in_tokens(endpoint: Endpoint) -> bool {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Responses => true,
        Endpoint::Embeddings | Endpoint::Moderations => false,
    }
}

/// What a body asks for. Of a name that stands there twice the larger number counts: which
/// one the provider takes is not known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// Tokens of one answer.
    most: Option<u64>,
    choices: Option<u64>,
    prompts: Option<u64>,
}

impl Asked {
    fn answers(&self) -> u64 {
        let at_least_one = |count: Option<u64>| count.unwrap_or(1).max(1);
        at_least_one(self.choices).saturating_mul(at_least_one(self.prompts))
    }
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Asked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the body of a call")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
                let mut asked = Asked::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                            let most = number(&map.next_value()?);
                            // None at all is no bound of an answer.
                            asked.most = asked.most.max(most.filter(|most| *most > 0));
                        }
                        // Of `best_of` answers all are billed, and the best returned.
                        "n" | "best_of" => {
                            asked.choices = asked.choices.max(number(&map.next_value()?));
                        }
                        "prompt" => asked.prompts = asked.prompts.max(prompts(&map.next_value()?)),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(asked)
            }
        }
        from.deserialize_map(Fields)
    }
}

/// `100`, and `1e2` as well.
fn number(value: &Value) -> Option<u64> {
    let whole = value.as_u64();
    // Beyond what there is, it is the most there is.
    whole.or_else(|| Some(value.as_f64()?.ceil() as u64))
}

/// Each text of a list is answered; a list of numbers is one prompt in tokens.
fn prompts(value: &Value) -> Option<u64> {
    let all = value.as_array()?;
    (!all.first()?.is_number()).then_some(all.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_may_say_how_long_the_answer_is() {
        for (body, seen, output) in [
            (r#"{"max_tokens":50}"#, Some(7), 50),
            (r#"{"max_completion_tokens":60,"n":3}"#, None, 180),
            (r#"{"max_output_tokens":70}"#, None, 70),
            (r#"{"max_tokens":null}"#, Some(7), 7),
            (r#"{"max_tokens":null,"n":3}"#, Some(7), 21),
            (r#"{"n":3}"#, None, 3 * USUAL_OUTPUT),
            (r#"{"n":0}"#, Some(7), 7),
            (r#"{"n":2,"best_of":5,"max_tokens":10}"#, None, 50),
            (r#"{"max_tokens":1e2,"n":3.0}"#, None, 300),
            (
                r#"{"max_tokens":9,"max_tokens":100,"max_tokens":8}"#,
                None,
                100,
            ),
            (r#"{"max\u005ftokens":50}"#, Some(7), 50),
            (r#"{"max_tokens":"many","n":2}"#, Some(7), 14),
            (r#"{"max_tokens":-1}"#, Some(7), 7),
            (r#"{"max_tokens":0}"#, Some(7), 7),
            (r#"{"max_tokens":1e40,"n":2}"#, None, u64::MAX),
            (r#"{"prompt":["a","b"],"n":2}"#, Some(7), 28),
            (r#"{"prompt":[1,2,3]}"#, Some(7), 7),
            (r#"{"prompt":[[1,2],[3]]}"#, Some(7), 14),
            (r#"{"prompt":"a"}"#, Some(7), 7),
            ("{}", Some(7), 7),
            ("{}", None, USUAL_OUTPUT),
            ("not json", None, USUAL_OUTPUT),
        ] {
            let usage = expected_of(Endpoint::ChatCompletions, body.as_bytes(), seen);
            assert_eq!(usage.output, output, "{body}");
            assert_eq!(usage.input, (body.len() as u64).div_ceil(3));
        }
        let body = br#"{"max_tokens":50}"#;
        assert_eq!(expected_of(Endpoint::Embeddings, body, Some(7)).output, 0);
    }

    #[test]
    fn many_calls_are_as_many_answers() {
        let usage = expected(Endpoint::Responses, 3_000, 4, Some(25));
        assert_eq!((usage.input, usage.output), (1_000, 100));
    }
}
