//! Tokens as the provider counted them, read out of an answer without touching
//! the rest of it.

use serde::Deserialize;

use crate::model::request::Usage;

/// What an answer says of its own cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    pub usage: Usage,
    /// False where the answer carries no usage: nothing can be billed by it.
    pub known: bool,
}

/// Reads chat completions, completions, embeddings (`prompt_tokens`) and
/// responses (`input_tokens`).
pub fn meter(answer: &[u8]) -> Metered {
    serde_json::from_slice::<Answer>(answer)
        .ok()
        .and_then(Answer::usage)
        .unwrap_or_default()
}

/// The same for an answer that was streamed: the last event that has usage.
pub fn meter_stream(events: &[u8]) -> Metered {
    let data = |line: &'_ [u8]| -> Option<Metered> {
        let json = line.strip_prefix(b"data:")?;
        serde_json::from_slice::<Answer>(json).ok()?.usage()
    };
    events
        .rsplit(|&byte| byte == b'\n')
        .find_map(data)
        .unwrap_or_default()
}

#[derive(Deserialize)]
struct Answer {
    usage: Option<Tokens>,
    /// In the events of a streamed response.
    response: Option<Box<Answer>>,
}

impl Answer {
    fn usage(self) -> Option<Metered> {
        match (self.usage, self.response) {
            (Some(tokens), _) => Some(tokens.into()),
            (None, Some(response)) => response.usage(),
            (None, None) => None,
        }
    }
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(alias = "prompt_tokens")]
    input_tokens: Option<u64>,
    #[serde(alias = "completion_tokens")]
    output_tokens: Option<u64>,
    #[serde(alias = "prompt_tokens_details")]
    input_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

impl From<Tokens> for Metered {
    fn from(tokens: Tokens) -> Metered {
        let usage = Usage {
            input: tokens.input_tokens.unwrap_or(0),
            cached: tokens
                .input_tokens_details
                .and_then(|d| d.cached_tokens)
                .unwrap_or(0),
            output: tokens.output_tokens.unwrap_or(0),
        };
        Metered { usage, known: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_endpoint() {
        let known = |input, cached, output| Metered {
            usage: Usage {
                input,
                cached,
                output,
            },
            known: true,
        };
        for (answer, expected) in [
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#,
                known(9, 4, 3),
            ),
            (
                r#"{"usage":{"input_tokens":9,"output_tokens":3,"input_tokens_details":{"cached_tokens":0}}}"#,
                known(9, 0, 3),
            ),
            (
                r#"{"usage":{"prompt_tokens":9,"total_tokens":9}}"#,
                known(9, 0, 0),
            ),
            (r#"{"usage":null}"#, Metered::default()),
            (r#"{"id":"modr-1","results":[]}"#, Metered::default()),
            ("not json", Metered::default()),
        ] {
            assert_eq!(meter(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn reads_a_stream_from_its_end() {
        let events = "data: {\"usage\":null,\"choices\":[{}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":5}}\n\n\
            data: [DONE]\n\n";
        assert_eq!(
            meter_stream(events.as_bytes()).usage,
            Usage {
                input: 2,
                cached: 0,
                output: 5
            }
        );
        let events = "event: response.completed\n\
            data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n";
        assert!(meter_stream(events.as_bytes()).known);
    }
}
