//! Tokens as the provider counted them and the tier that it served, read out of
//! an answer without touching the rest of it.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::model::{
    attempt::Lane,
    request::{Framing, Usage},
};

/// What an answer says of its own cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    pub usage: Usage,
    /// The part of what was written to the cache that is kept for longer than by default.
    pub long_kept: u64,
    /// Some of its tokens are of sound, which have prices of their own.
    pub sound: bool,
    /// False where the answer carries no usage: nothing can be billed by it.
    pub known: bool,
    pub tier: Tier,
    /// The model that answered, often with a date behind its name.
    pub model: Option<String>,
}

/// The `service_tier` that an answer says it was served in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// Any other word, or none.
    #[default]
    Default,
    Flex,
    Priority,
    Scale,
}

impl Tier {
    fn of(word: Option<&str>) -> Tier {
        match word {
            Some("flex") => Tier::Flex,
            Some("priority") => Tier::Priority,
            Some("scale") => Tier::Scale,
            _ => Tier::Default,
        }
    }
}

impl Metered {
    /// The lane that this answer is billed as when `asked` was asked for
    /// (WIRE.md §2: the answer's tier decides, never the request's).
    ///
    /// - A line of a batch costs the batch price, and a background response that
    ///   of its window, whatever tier stands in them: neither is a tier.
    /// - An ordinary call costs the flex price if its answer says so, even where
    ///   only the caller or the project had asked for flex. Any other word, or
    ///   none, is standard: a provider that was asked for a tier tells the one it
    ///   served. `priority` and `scale` have prices of their own in it.
    pub const fn lane(&self, asked: Lane) -> Lane {
        match asked {
            Lane::Batch | Lane::Background8h | Lane::Background2h => asked,
            Lane::Flex | Lane::Standard => match self.tier {
                Tier::Flex => Lane::Flex,
                Tier::Default | Tier::Priority | Tier::Scale => Lane::Standard,
            },
        }
    }
}

/// Reads chat completions, completions, embeddings (`prompt_tokens`) and
/// responses (`input_tokens`).
pub fn meter(answer: &[u8]) -> Metered {
    serde_json::from_slice::<Answer>(answer).map_or_else(|_| Metered::default(), Answer::metered)
}

/// The same for an answer that is framed so.
pub fn meter_framed(framing: Framing, answer: &[u8]) -> Metered {
    match framing {
        Framing::Json => meter(answer),
        Framing::EventStream => meter_stream(answer),
    }
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
    #[serde(default, deserialize_with = "if_it_fits")]
    usage: Option<Tokens>,
    /// A value, so that one which is no text does not hide the usage.
    service_tier: Option<Value>,
    model: Option<Value>,
    /// In the events of a streamed response.
    response: Option<Box<Answer>>,
}

fn if_it_fits<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
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
        let told = answer.usage.unwrap_or_default();
        let known = told.is_known();
        Metered {
            known,
            usage: if known {
                told.usage()
            } else {
                Usage::default()
            },
            long_kept: told.long_kept(),
            sound: told.sound(),
            tier: Tier::of(answer.service_tier.as_ref().and_then(Value::as_str)),
            model: match answer.model {
                Some(Value::String(model)) => Some(model),
                _ => None,
            },
        }
    }
}

/// As OpenAI's endpoints spell it, and as layers over other providers do: some by both
/// names at once. What is odd in a detail hides nothing else.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Tokens(Object);

type Object = serde_json::Map<String, Value>;

const INPUT: [&str; 2] = ["input_tokens", "prompt_tokens"];
const OUTPUT: [&str; 2] = ["output_tokens", "completion_tokens"];
const OF_INPUT: [&str; 2] = ["input_tokens_details", "prompt_tokens_details"];
const OF_OUTPUT: [&str; 2] = ["output_tokens_details", "completion_tokens_details"];
const WRITTEN: [&str; 3] = [
    "cache_write_tokens",
    "cache_creation_tokens",
    "cache_creation_input_tokens",
];
/// What is written, by how long it is kept.
const KEPT: [&str; 2] = ["cache_write_tokens_details", "cache_creation_token_details"];
const LONG_KEPT: [&str; 2] = ["ttl_12h_tokens", "ephemeral_1h_input_tokens"];

impl Tokens {
    /// Whether it tells input or output, and nothing that cannot be read of either.
    fn is_known(&self) -> bool {
        let counts = [INPUT, OUTPUT].map(|names| count(&self.0, &names));
        let is_odd = |names: &[&str]| {
            let mut told = names.iter().filter_map(|name| self.0.get(*name));
            told.any(|value| !value.is_null()) && count(&self.0, names).is_none()
        };
        counts.iter().any(Option::is_some) && !is_odd(&INPUT) && !is_odd(&OUTPUT)
    }

    fn usage(&self) -> Usage {
        let among_details = self.details(&OF_INPUT, &WRITTEN);
        Usage {
            input: count(&self.0, &INPUT).unwrap_or(0),
            cached: self.details(&OF_INPUT, &["cached_tokens"]),
            // Counted in the input, wherever it stands.
            cache_write: among_details.max(count(&self.0, &WRITTEN).unwrap_or(0)),
            output: count(&self.0, &OUTPUT).unwrap_or(0),
        }
    }

    fn sound(&self) -> bool {
        let of = |details: &[&str]| self.details(details, &["audio_tokens"]);
        of(&OF_INPUT).max(of(&OF_OUTPUT)) > 0
    }

    fn long_kept(&self) -> u64 {
        let details = parts(&self.0, &OF_INPUT);
        let kept = details.flat_map(|details| parts(details, &KEPT));
        let kept = kept.filter_map(|kept| count(kept, &LONG_KEPT));
        kept.max().unwrap_or(0)
    }

    fn details(&self, of: &[&str], names: &[&str]) -> u64 {
        let details = parts(&self.0, of);
        let counts = details.filter_map(|details| count(details, names));
        counts.max().unwrap_or(0)
    }
}

/// What is counted by any of these names; the most of it, where several tell.
fn count(object: &Object, names: &[&str]) -> Option<u64> {
    let told = names.iter().filter_map(|name| object.get(*name)?.as_u64());
    told.max()
}

fn parts<'a>(object: &'a Object, names: &'a [&str]) -> impl Iterator<Item = &'a Object> {
    let parts = names.iter().filter_map(|name| object.get(*name));
    parts.filter_map(Value::as_object)
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
            tier: Tier::Flex,
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
            // By both names at once, as some layers tell it.
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,
                    "input_tokens":9,"output_tokens":3,"prompt_tokens_details":{"cached_tokens":4},
                    "input_tokens_details":{"cached_tokens":4}}}"#,
                known(9, 4, 3),
            ),
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"input_tokens":0,
                    "output_tokens":0,"input_tokens_details":null}}"#,
                known(9, 0, 3),
            ),
            (
                r#"{"usage":{"input_tokens":9,"prompt_tokens":7,"output_tokens":3,
                    "input_tokens_details":{"cached_tokens":4},
                    "prompt_tokens_details":{"cached_tokens":5}}}"#,
                known(9, 5, 3),
            ),
            (
                r#"{"usage":{"prompt_tokens":9,"prompt_tokens":8,"completion_tokens":3}}"#,
                known(8, 0, 3),
            ),
            // What is no number is none of the details,
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,
                    "prompt_tokens_details":{"cached_tokens":"4"}}}"#,
                known(9, 0, 3),
            ),
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,
                    "prompt_tokens_details":[4]}}"#,
                known(9, 0, 3),
            ),
            // and nothing can be billed by it where it is the count itself.
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":"3"}}"#,
                Metered::default(),
            ),
            (
                r#"{"usage":{"prompt_tokens":-9,"completion_tokens":3}}"#,
                Metered::default(),
            ),
            (r#"{"usage":{"total_tokens":12}}"#, Metered::default()),
            (r#"{"usage":{}}"#, Metered::default()),
            (r#"{"usage":7}"#, Metered::default()),
            (
                r#"{"service_tier":"flex","usage":[]}"#,
                flex(Metered::default()),
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
                output: 5,
                ..Usage::default()
            }
        );
        let events = "event: response.completed\n\
            data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n";
        let metered = meter_stream(events.as_bytes());
        assert!(metered.known && metered.tier == Tier::Default);
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
            assert_eq!(metered.tier == Tier::Flex, flex, "{events}");
        }
    }

    #[test]
    fn an_answer_names_its_model() {
        let model = |metered: Metered| (metered.model, metered.tier);
        let usage = r#""usage":{"prompt_tokens":2}"#;
        let named = format!(r#"{{"model":"gpt-4o-2024-08-06","service_tier":"priority",{usage}}}"#);
        let found = (Some("gpt-4o-2024-08-06".to_owned()), Tier::Priority);
        assert_eq!(model(meter(named.as_bytes())), found);
        let events = format!("data: {{\"model\":\"early\"}}\n\ndata: {named}\n\ndata: [DONE]\n\n");
        assert_eq!(model(meter_stream(events.as_bytes())), found);
        let event = format!("data: {{\"response\":{named}}}\n\n");
        assert_eq!(model(meter_stream(event.as_bytes())), found);
        let odd = format!(r#"{{"model":7,{usage}}}"#);
        assert_eq!(model(meter(odd.as_bytes())), (None, Tier::Default));
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
    #[test]
    fn tokens_of_sound_are_told() {
        for (details, sound) in [
            (r#""prompt_tokens_details":{"audio_tokens":1}"#, true),
            (
                r#""completion_tokens_details":{"audio_tokens":1,"reasoning_tokens":7}"#,
                true,
            ),
            (
                r#""prompt_tokens_details":{"audio_tokens":0},"completion_tokens_details":{"audio_tokens":0}"#,
                false,
            ),
            (
                r#""completion_tokens_details":{"reasoning_tokens":7}"#,
                false,
            ),
            (r#""completion_tokens_details":7"#, false),
        ] {
            let answer = format!(r#"{{"usage":{{"prompt_tokens":9,{details}}}}}"#);
            let metered = meter(answer.as_bytes());
            assert_eq!((metered.known, metered.sound), (true, sound), "{answer}");
        }
    }

    #[test]
    fn reads_what_was_written_to_a_cache() {
        for (usage, written, long_kept) in [
            (
                r#""prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3}"#,
                3,
                0,
            ),
            (
                r#""prompt_tokens_details":{"cache_creation_tokens":3}"#,
                3,
                0,
            ),
            (
                r#""prompt_tokens_details":{"cache_creation_input_tokens":3}"#,
                3,
                0,
            ),
            (
                r#""cache_creation_input_tokens":3,"cache_read_input_tokens":2"#,
                3,
                0,
            ),
            (
                r#""prompt_tokens_details":{"cache_write_tokens":3},"cache_creation_input_tokens":3"#,
                3,
                0,
            ),
            (
                r#""input_tokens_details":{"cache_write_tokens":3,
                    "cache_write_tokens_details":{"ttl_30m_tokens":1,"ttl_12h_tokens":2}}"#,
                3,
                2,
            ),
            (
                r#""prompt_tokens_details":{"cache_creation_tokens":3,"cache_creation_token_details":
                    {"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":1}}"#,
                3,
                1,
            ),
            // What is odd hides nothing else.
            (
                r#""prompt_tokens_details":{"audio_tokens":"7","cache_write_tokens":-1,"cache_write_tokens_details":[]}"#,
                0,
                0,
            ),
            (r#""cache_creation_input_tokens":null"#, 0, 0),
        ] {
            let answer =
                format!(r#"{{"usage":{{"prompt_tokens":9,"completion_tokens":1,{usage}}}}}"#);
            let answer = answer.replace(
                r#""prompt_tokens":9"#,
                match usage.contains("input_tokens_details") {
                    true => r#""input_tokens":9"#,
                    false => r#""prompt_tokens":9"#,
                },
            );
            let metered = meter(answer.as_bytes());
            assert!(metered.known, "{answer}");
            let usage = metered.usage;
            assert_eq!((usage.input, usage.output), (9, 1), "{answer}");
            assert_eq!(
                (usage.cache_write, metered.long_kept),
                (written, long_kept),
                "{answer}"
            );
        }
    }
}
