//! The caller's body: what is read from it at admission, and what a lane
//! makes of it. The bytes themselves are never parsed into values and written
//! again (DESIGN.md §4.6).

mod line;
mod prefix;
mod refusal;
pub mod tokens;
pub mod walk;

pub use line::{Edit, Strip, batch_body, line_body};
pub use prefix::Prompt;
pub use refusal::Refusal;

use super::endpoint::Endpoint;
use walk::{Kind, Walker, unquote};

/// The longest model name taken, in bytes: it goes into keys, labels and an
/// upstream path.
pub const MAX_MODEL: usize = 256;

/// What the provider uses where a moderation names no model (OpenAI's API
/// reference, moderations, `model`).
pub const DEFAULT_MODERATION_MODEL: &str = "omni-moderation-latest";

/// What admission and the lanes need to know of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub model: String,
    /// False where `model` is the provider's default: a batch line cannot do
    /// without one (WIRE.md §1, `missing_required_parameter`).
    pub names_model: bool,
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    pub background: bool,
    pub store: Option<bool>,
    /// As it stands there; `priority` is refused.
    pub service_tier: Option<String>,
    pub previous_response_id: Option<String>,
    /// Embedding inputs, which a batch is limited in; else 1.
    pub inputs: u32,
    /// Answers asked for by each prompt; 1 when not given.
    pub n: u32,
}

/// Reads a body in one pass: the whole text is checked to be JSON, no field
/// that routes a request stands twice, and the fields that the endpoint
/// requires are there with the right type.
///
/// # Errors
/// What the provider would refuse, so that it kills no batch.
pub fn scan(body: &[u8], endpoint: Endpoint) -> Result<Scan, Refusal> {
    let mut walker = Walker::new(text_of(body)?);
    let kind = walker.kind()?;
    if kind != Kind::Object {
        walker.value()?;
        walker.end()?;
        return Err(Refusal::NotAnObject(kind));
    }
    let mut reading = Reading::new(endpoint);
    walker.object(|walker, key| reading.field(walker, key))?;
    walker.end()?;
    reading.finish()
}

fn text_of(body: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(body).map_err(|error| Refusal::NotUtf8 {
        at: error.valid_up_to(),
    })
}

/// The fields that decide where and how a request runs. A second one would
/// be read one way here and perhaps another way by the provider.
const ROUTING: [&str; 14] = [
    "model",
    "messages",
    "input",
    "prompt",
    "stream",
    "stream_options",
    "service_tier",
    "background",
    "background_options",
    "store",
    "previous_response_id",
    "conversation",
    "metadata",
    "n",
];

struct Reading {
    endpoint: Endpoint,
    /// One bit for each of [`ROUTING`] that was seen.
    seen: u32,
    model: Option<String>,
    /// The endpoint's own content field, or what stands for it, is there.
    content: bool,
    scan: Scan,
}

type Step = Result<(), Refusal>;

impl Reading {
    fn new(endpoint: Endpoint) -> Self {
        Reading {
            endpoint,
            seen: 0,
            model: None,
            content: false,
            scan: Scan {
                names_model: false,
                model: String::new(),
                stream: false,
                include_usage: false,
                background: false,
                store: None,
                service_tier: None,
                previous_response_id: None,
                inputs: 1,
                n: 1,
            },
        }
    }

    fn field(&mut self, walker: &mut Walker<'_>, key: &str) -> Step {
        let name = unquote(key);
        let known = name
            .as_deref()
            .and_then(|name| ROUTING.iter().position(|known| *known == name));
        let Some(index) = known else {
            walker.value()?;
            return Ok(());
        };
        if self.seen & (1 << index) != 0 {
            return Err(Refusal::Duplicate(ROUTING[index]));
        }
        self.seen |= 1 << index;
        self.routing(walker, ROUTING[index])
    }

    fn routing(&mut self, walker: &mut Walker<'_>, param: &'static str) -> Step {
        use Endpoint::{ChatCompletions, Completions, Embeddings, Moderations, Responses};
        match (param, self.endpoint) {
            ("model", _) => self.model(walker),
            ("messages", ChatCompletions) => self.messages(walker),
            ("input", Embeddings) => self.embedding_input(walker),
            ("input", Moderations | Responses) | ("prompt", Completions) => {
                self.text_or_array(walker, param)
            }
            ("prompt" | "conversation", Responses) => {
                self.content |= walker.kind()? != Kind::Null;
                walker.value()?;
                Ok(())
            }
            ("previous_response_id", Responses) => self.previous_response_id(walker),
            ("stream", _) => {
                self.scan.stream = optional_bool(walker, param)?.unwrap_or(false);
                if self.scan.stream && matches!(self.endpoint, Embeddings | Moderations) {
                    return Err(Refusal::Unknown(param));
                }
                Ok(())
            }
            ("stream_options", _) => self.stream_options(walker),
            ("background", _) => {
                self.scan.background = optional_bool(walker, param)?.unwrap_or(false);
                Ok(())
            }
            ("store", _) => {
                self.scan.store = optional_bool(walker, param)?;
                Ok(())
            }
            ("service_tier", _) => match optional_text(walker, param)?.as_deref() {
                Some("priority") => Err(Refusal::PriorityTier),
                tier => {
                    self.scan.service_tier = tier.map(str::to_owned);
                    Ok(())
                }
            },
            ("metadata", _) => match walker.kind()? {
                Kind::Object | Kind::Null => walker.value().map(drop).map_err(Refusal::from),
                got => wrong(param, "an object", got),
            },
            ("n", ChatCompletions | Completions) => self.n(walker),
            _ => walker.value().map(drop).map_err(Refusal::from),
        }
    }

    fn model(&mut self, walker: &mut Walker<'_>) -> Step {
        let Some(model) = optional_text(walker, "model")? else {
            return Ok(());
        };
        if model.is_empty() {
            return Err(Refusal::Empty("model"));
        }
        if model.len() > MAX_MODEL {
            return invalid("model", "a model name has at most 256 bytes");
        }
        if model.chars().any(char::is_control) {
            return invalid("model", "a model name has no control characters");
        }
        self.model = Some(model);
        Ok(())
    }

    fn messages(&mut self, walker: &mut Walker<'_>) -> Step {
        const EXPECTED: &str = "an array of objects";
        let got = walker.kind()?;
        if got == Kind::Null {
            walker.value()?;
            return Ok(());
        }
        if got != Kind::Array {
            return wrong("messages", EXPECTED, got);
        }
        walker.array(|walker| {
            let got = walker.kind()?;
            if got != Kind::Object {
                return wrong("messages", EXPECTED, got);
            }
            walker.value()?;
            self.content = true;
            Ok(())
        })?;
        self.filled("messages")
    }

    fn text_or_array(&mut self, walker: &mut Walker<'_>, param: &'static str) -> Step {
        match walker.kind()? {
            Kind::Null => walker.value().map(drop).map_err(Refusal::from),
            Kind::String | Kind::Array => {
                self.content = true;
                walker.value().map(drop).map_err(Refusal::from)
            }
            got => wrong(param, "a string or an array", got),
        }
    }

    /// A string, an array of strings, of tokens, or of arrays of tokens. One
    /// array of tokens is one input.
    fn embedding_input(&mut self, walker: &mut Walker<'_>) -> Step {
        const EXPECTED: &str = "a string or an array of strings or of tokens";
        let got = walker.kind()?;
        if got != Kind::Array {
            return self.text_or_array(walker, "input");
        }
        let mut elements: u32 = 0;
        let mut all = None;
        walker.array(|walker| {
            let got = walker.kind()?;
            let expected = *all.get_or_insert(got);
            if !matches!(got, Kind::String | Kind::Number | Kind::Array) || got != expected {
                return wrong("input", EXPECTED, got);
            }
            walker.value()?;
            elements = elements.saturating_add(1);
            self.content = true;
            Ok(())
        })?;
        self.filled("input")?;
        if all != Some(Kind::Number) {
            self.scan.inputs = elements;
        }
        Ok(())
    }

    fn filled(&self, param: &'static str) -> Step {
        if self.content {
            Ok(())
        } else {
            Err(Refusal::Empty(param))
        }
    }

    fn previous_response_id(&mut self, walker: &mut Walker<'_>) -> Step {
        self.scan.previous_response_id = optional_text(walker, "previous_response_id")?;
        self.content |= self.scan.previous_response_id.is_some();
        Ok(())
    }

    fn stream_options(&mut self, walker: &mut Walker<'_>) -> Step {
        match walker.kind()? {
            Kind::Null => walker.value().map(drop).map_err(Refusal::from),
            Kind::Object => walker.object(|walker, key| {
                if unquote(key).as_deref() == Some("include_usage") {
                    let given = optional_bool(walker, "stream_options.include_usage")?;
                    self.scan.include_usage = given.unwrap_or(false);
                } else {
                    walker.value()?;
                }
                Ok(())
            }),
            got => wrong("stream_options", "an object", got),
        }
    }

    fn n(&mut self, walker: &mut Walker<'_>) -> Step {
        match walker.kind()? {
            Kind::Null => walker.value().map(drop).map_err(Refusal::from),
            Kind::Number => match walker.value()?.parse() {
                Ok(n) if n > 0 => {
                    self.scan.n = n;
                    Ok(())
                }
                _ => invalid("n", "it must be a whole number of at least 1"),
            },
            got => wrong("n", "an integer", got),
        }
    }

    fn finish(self) -> Result<Scan, Refusal> {
        let names_model = self.model.is_some();
        let model = match (self.model, self.endpoint) {
            (Some(model), _) => model,
            (None, Endpoint::Moderations) => DEFAULT_MODERATION_MODEL.to_owned(),
            (None, _) => return Err(Refusal::Missing("model")),
        };
        if !self.content {
            return Err(Refusal::Missing(match self.endpoint {
                Endpoint::ChatCompletions => "messages",
                Endpoint::Completions => "prompt",
                Endpoint::Responses | Endpoint::Embeddings | Endpoint::Moderations => "input",
            }));
        }
        Ok(Scan {
            model,
            names_model,
            ..self.scan
        })
    }
}

fn optional_bool(walker: &mut Walker<'_>, param: &'static str) -> Result<Option<bool>, Refusal> {
    match walker.kind()? {
        Kind::Null => walker.value().map(|_| None).map_err(Refusal::from),
        Kind::Bool => Ok(Some(walker.value()? == "true")),
        got => Err(Refusal::WrongType {
            param,
            expected: "a boolean",
            got,
        }),
    }
}

fn optional_text(walker: &mut Walker<'_>, param: &'static str) -> Result<Option<String>, Refusal> {
    match walker.kind()? {
        Kind::Null => walker.value().map(|_| None).map_err(Refusal::from),
        Kind::String => match unquote(walker.value()?) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(Refusal::Invalid {
                param,
                reason: "it holds half of a surrogate pair",
            }),
        },
        got => Err(Refusal::WrongType {
            param,
            expected: "a string",
            got,
        }),
    }
}

fn wrong(param: &'static str, expected: &'static str, got: Kind) -> Step {
    Err(Refusal::WrongType {
        param,
        expected,
        got,
    })
}

fn invalid(param: &'static str, reason: &'static str) -> Step {
    Err(Refusal::Invalid { param, reason })
}

#[cfg(test)]
mod tests;
