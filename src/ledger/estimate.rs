//! What an answer may cost, before it is there.

use serde::Deserialize;

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
        cached: 0,
        output,
    }
}

/// The same for one call, whose body may say how long its answer may be.
pub fn expected_of(endpoint: Endpoint, body: &[u8], output: Option<u64>) -> Usage {
    let bound = output_bound(body).filter(|_| answers_in_tokens(endpoint));
    let usage = expected(endpoint, body.len() as u64, 1, output);
    Usage {
        output: bound.unwrap_or(usage.output),
        ..usage
    }
}

fn answers_in_tokens(endpoint: Endpoint) -> bool {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Responses => true,
        Endpoint::Embeddings | Endpoint::Moderations => false,
    }
}

/// The most tokens that the caller lets the answers have, all choices together.
fn output_bound(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Body {
        max_tokens: Option<u64>,
        max_completion_tokens: Option<u64>,
        max_output_tokens: Option<u64>,
        n: Option<u64>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let choices = body.n.unwrap_or(1).max(1);
    let most = body
        .max_completion_tokens
        .max(body.max_output_tokens)
        .max(body.max_tokens);
    Some(most?.saturating_mul(choices))
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
