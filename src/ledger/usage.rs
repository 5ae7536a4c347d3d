//! Tokens as the provider counted them and the tier that it served, read out of
//! an answer without touching the rest of it.

use serde::Deserialize;
use serde_json::Value;

use crate::model::{attempt::Lane, request::Usage};

/// What an answer says of its own cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    pub usage: Usage,
    /// False where the answer carries no usage: nothing can be billed by it.
    pub known: bool,
    /// `service_tier` says `flex`.
    pub flex: bool,
    /// It says `priority` or `scale`, whose prices are not known here.
    pub dearer: bool,
    /// The model that answered, often with a date behind its name.
    pub model: Option<String>,
}

impl Metered {
    /// The lane that this answer is billed as when `asked` was asked for
    /// (WIRE.md §2: the answer's tier decides, never the request's).
    ///
    /// - A line of a batch costs the batch price, and a background response that
    ///   of its window, whatever tier stands in them: neither is a tier.
    /// - An ordinary call costs the flex price if its answer says so, even where
    ///   only the caller or the project had asked for flex. Any other word, or
    ///   none, is billed as standard: a provider that was asked for a tier tells
    ///   the one it served. For `priority` and `scale`, whose prices are not
    ///   known here, that is the least that they may have cost.
    pub const fn lane(&self, asked: Lane) -> Lane {
        match asked {
            Lane::Batch | Lane::Background8h | Lane::Background2h => asked,
            Lane::Flex | Lane::Standard if self.flex => Lane::Flex,
            Lane::Flex | Lane::Standard => Lane::Standard,
        }
    }
}

/// Reads chat completions, completions, embeddings (`prompt_tokens`) and
/// responses (`input_tokens`).
pub fn meter(answer: &[u8]) -> Metered {
    serde_json::from_slice::<Answer>(answer).map_or_else(|_| Metered::default(), Answer::metered)
}

/// The same for an answer that was streamed: the last event that has usage, and
/// the last that names a tier, which need not be one.
pub fn meter_stream(events: &[u8]) -> Metered {
    let mut found = Answer::default();
    for line in events.rsplit(|&byte| byte == b'\n') {
        let answer = line
            .strip_prefix(b"data:")
            .and_then(|json| serde_json::from_slice::<Answer>(json).ok());
        let Some(answer) = answer else { continue };
        let is_wrapped = answer.response.is_some();
        let answer = answer.unwrapped();
        // A response that is not done tells the tier that was asked for.
        if !is_wrapped || answer.usage.is_some() {
            found.usage = found.usage.or(answer.usage);
            found.service_tier = found.service_tier.or(answer.service_tier);
            found.model = found.model.or(answer.model);
        }
        if found.usage.is_some() && (is_wrapped || found.service_tier.is_some()) {
            break;
        }
    }
    found.metered()
}

#[derive(Default, Deserialize)]
struct Answer {
    usage: Option<Tokens>,
    /// A value, so that one which is no text does not hide the usage.
    service_tier: Option<Value>,
    model: Option<Value>,
    /// In the events of a streamed response.
    response: Option<Box<Answer>>,
}

impl Answer {
    fn unwrapped(self) -> Answer {
        match self.response {
            Some(response) if self.usage.is_none() => response.unwrapped(),
            _ => self,
        }
    }

    fn metered(self) -> Metered {
        let answer = self.unwrapped();
        let tier = answer.service_tier.as_ref().and_then(Value::as_str);
        Metered {
            known: answer.usage.is_some(),
            usage: answer.usage.map(Usage::from).unwrap_or_default(),
            flex: tier == Some("flex"),
            dearer: matches!(tier, Some("priority" | "scale")),
            model: match answer.model {
                Some(Value::String(model)) => Some(model),
                _ => None,
            },
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

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Usage {
        Usage {
            input: tokens.input_tokens.unwrap_or(0),
            cached: tokens
                .input_tokens_details
                .and_then(|d| d.cached_tokens)
                .unwrap_or(0),
            cache_write: 0,
            output: tokens.output_tokens.unwrap_or(0),
        }
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
                ..Usage::default()
            },
            known: true,
            ..Metered::default()
        };
        let flex = |metered: Metered| Metered {
            flex: true,
            ..metered
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
            (
                r#"{"service_tier":"flex","usage":{"prompt_tokens":9,"completion_tokens":3}}"#,
                flex(known(9, 0, 3)),
            ),
            (
                r#"{"service_tier":7,"usage":{"input_tokens":9,"output_tokens":3}}"#,
                known(9, 0, 3),
            ),
            (r#"{"service_tier":"flex"}"#, flex(Metered::default())),
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
                output: 5,
                ..Usage::default()
            }
        );
        let events = "event: response.completed\n\
            data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n";
        let metered = meter_stream(events.as_bytes());
        assert!(metered.known && !metered.flex);
    }

    #[test]
    fn a_stream_names_its_tier_where_it_likes() {
        let event = |data: &str| format!("data: {data}\n\n");
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":2}}"#;
        let response = |kind: &str, tier: &str, more: &str| {
            event(&format!(
                r#"{{"type":"response.{kind}","response":{{"service_tier":"{tier}"{more}}}}}"#
            ))
        };
        let done = r#","usage":{"input_tokens":1}"#;
        for (events, flex) in [
            (event(r#"{"service_tier":"flex"}"#) + &event(usage), true),
            (
                event(r#"{"service_tier":"flex"}"#)
                    + &event(r#"{"service_tier":"default","usage":{"prompt_tokens":2}}"#),
                false,
            ),
            (
                event(r#"{"service_tier":"flex"}"#)
                    + &event(r#"{"service_tier":null,"usage":{"prompt_tokens":2}}"#),
                true,
            ),
            (event(usage), false),
            (
                response("created", "auto", "") + &response("completed", "flex", done),
                true,
            ),
            (
                response("created", "flex", "") + &response("completed", "default", done),
                false,
            ),
            (
                response("created", "flex", "")
                    + &event(r#"{"response":{"usage":{"input_tokens":1}}}"#),
                false,
            ),
        ] {
            let metered = meter_stream((events.clone() + "data: [DONE]\n\n").as_bytes());
            assert!(metered.known, "{events}");
            assert_eq!(metered.flex, flex, "{events}");
        }
    }

    #[test]
    fn an_answer_names_its_model() {
        let model = |metered: Metered| (metered.model, metered.dearer);
        let usage = r#""usage":{"prompt_tokens":2}"#;
        let named = format!(r#"{{"model":"gpt-4o-2024-08-06","service_tier":"priority",{usage}}}"#);
        let found = (Some("gpt-4o-2024-08-06".to_owned()), true);
        assert_eq!(model(meter(named.as_bytes())), found);
        let events = format!("data: {{\"model\":\"early\"}}\n\ndata: {named}\n\ndata: [DONE]\n\n");
        assert_eq!(model(meter_stream(events.as_bytes())), found);
        let event = format!("data: {{\"response\":{named}}}\n\n");
        assert_eq!(model(meter_stream(event.as_bytes())), found);
        let odd = format!(r#"{{"model":7,{usage}}}"#);
        assert_eq!(model(meter(odd.as_bytes())), (None, false));
    }

    #[test]
    fn the_answer_decides_the_bill_of_an_ordinary_call() {
        use Lane::{Background2h, Background8h, Batch, Flex, Standard};
        let bills = |tier: &str| {
            let metered = meter(format!(r#"{{"service_tier":{tier}}}"#).as_bytes());
            Lane::ALL.map(|asked| metered.lane(asked))
        };
        let flex = [Batch, Flex, Background8h, Background2h, Flex];
        let standard = [Batch, Standard, Background8h, Background2h, Standard];
        assert_eq!(bills(r#""flex""#), flex);
        for tier in [r#""default""#, r#""auto""#, r#""priority""#, "null", "1"] {
            assert_eq!(bills(tier), standard, "{tier}");
        }
    }
}
