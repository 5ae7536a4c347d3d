//! What a request is answered with: a pure function of the seed and the request.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    body::{Body, Directive},
    draw::{Draw, digest, hex},
    error::ApiError,
    faults::Operation,
    settings::Settings,
};

/// The endpoints that are answered, live and in batches (WIRE.md §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Responses,
    Embeddings,
    Completions,
    Moderations,
}

impl Endpoint {
    pub fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/chat/completions" => Endpoint::Chat,
            "/v1/responses" => Endpoint::Responses,
            "/v1/embeddings" => Endpoint::Embeddings,
            "/v1/completions" => Endpoint::Completions,
            "/v1/moderations" => Endpoint::Moderations,
            _ => return None,
        })
    }

    pub fn operation(self) -> Operation {
        match self {
            Endpoint::Chat => Operation::Chat,
            Endpoint::Responses => Operation::Responses,
            Endpoint::Embeddings => Operation::Embeddings,
            Endpoint::Completions => Operation::Completions,
            Endpoint::Moderations => Operation::Moderations,
        }
    }

    fn asks_in(self) -> &'static str {
        match self {
            Endpoint::Chat => "messages",
            Endpoint::Completions => "prompt",
            Endpoint::Responses | Endpoint::Embeddings | Endpoint::Moderations => "input",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub prompt: u64,
    /// Of those of the prompt.
    pub cached: u64,
    /// Of the others of the prompt.
    pub written: u64,
    pub completion: u64,
}

impl Usage {
    pub fn add(&mut self, other: &Usage) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.written += other.written;
        self.completion += other.completion;
    }
}

/// One choice of a completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Text(String),
    Refusal(String),
    Call { name: String, arguments: String },
}

#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub said: Said,
    /// The text was cut at the caller's token limit.
    pub cut: bool,
}

/// A request, read, with all that its answer says but ids and times.
pub(super) struct Answer<'a> {
    pub body: Body<'a>,
    pub endpoint: Endpoint,
    pub model: String,
    pub directive: Directive,
    pub fingerprint: u128,
    pub questions: Vec<String>,
    pub choices: Vec<Choice>,
    pub usage: Usage,
    seed: u64,
}

impl<'a> Answer<'a> {
    /// The error is the one that the endpoint answers with.
    pub fn to(endpoint: Endpoint, text: &'a str, settings: &Settings) -> Result<Self, ApiError> {
        let body = Body::parse(text).map_err(|_| {
            let message = "We could not parse the JSON body of your request.";
            ApiError::new(StatusCode::BAD_REQUEST, None, message)
        })?;
        Answer::to_body(endpoint, body, settings)
    }

    pub fn to_body(
        endpoint: Endpoint,
        body: Body<'a>,
        settings: &Settings,
    ) -> Result<Self, ApiError> {
        let Some(model) = body.text("model").or_else(|| default_model(endpoint)) else {
            let message = "you must provide a model parameter";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, None, message));
        };
        if !settings.models.contains_key(&model) {
            return Err(ApiError::model_not_found(&model));
        }
        let questions = body.questions();
        if questions.is_empty() {
            return Err(ApiError::missing(endpoint.asks_in()));
        }
        let mut answer = Answer {
            endpoint,
            model,
            directive: body.directive(),
            fingerprint: body.fingerprint(),
            usage: Usage {
                prompt: body.directive().prompt.unwrap_or(body.prompt_tokens()),
                ..Usage::default()
            },
            body,
            questions,
            choices: Vec::new(),
            seed: settings.seed,
        };
        if !matches!(endpoint, Endpoint::Embeddings | Endpoint::Moderations) {
            answer.look_in_cache(settings.cache.share);
            answer.choose();
        }
        Ok(answer)
    }

    /// Sixteen hex digits that tell this answer from every other.
    pub fn mark(&self) -> String {
        mark(self.seed, self.fingerprint)
    }

    /// An embedding of the `index`th input.
    pub fn vector(&self, index: usize) -> Vec<f32> {
        let dimensions = self.body.get("dimensions").unwrap_or(1536);
        let of = format!("{}\0{}", self.model, self.questions[index]);
        let mut draw = Draw::new(self.seed, "vector", of.as_bytes());
        let scale = 1.0 / f64::from(dimensions).sqrt();
        (0..dimensions)
            .map(|_| (draw.normal() * scale) as f32)
            .collect()
    }

    /// As it is told to, else as it happens.
    fn look_in_cache(&mut self, share: f64) {
        let mut draw = Draw::new(self.seed, "cache", &self.fingerprint.to_be_bytes());
        let told = (self.directive.cached, self.directive.written);
        let usage = &mut self.usage;
        let (cached, written) = match told {
            (None, None) if draw.unit() < share => {
                let cached = (usage.prompt as f64 * draw.unit()) as u64;
                (
                    cached,
                    ((usage.prompt - cached) as f64 * draw.unit()) as u64,
                )
            }
            told => (told.0.unwrap_or(0), told.1.unwrap_or(0)),
        };
        usage.cached = cached.min(usage.prompt);
        usage.written = written.min(usage.prompt - usage.cached);
    }

    fn choose(&mut self) {
        let copies: usize = self.body.get("n").unwrap_or(1).clamp(1, 128);
        let limit: Option<u64> = ["max_completion_tokens", "max_output_tokens", "max_tokens"]
            .iter()
            .find_map(|name| self.body.get(name));
        let asked = match self.endpoint {
            Endpoint::Completions => self.questions.len(),
            _ => 1,
        };
        for index in 0..asked * copies {
            let said = self.say(index, self.questions.get(index / copies));
            let (choice, tokens) = self.measured(said, limit);
            self.usage.completion += tokens;
            self.choices.push(choice);
        }
    }

    fn say(&self, index: usize, question: Option<&String>) -> Said {
        if self.directive.refusal {
            return Said::Refusal(format!("I'm sorry, I can't answer {}.", self.mark()));
        }
        if let Some((name, schema)) = self.called_tool() {
            let arguments = fill(&schema, &self.mark()).to_string();
            return Said::Call { name, arguments };
        }
        if let Some(schema) = self.wanted_json() {
            return Said::Text(fill(&schema, &self.mark()).to_string());
        }
        let question: String = question.map_or("", |text| text).chars().take(200).collect();
        let number = match index {
            0 => String::new(),
            _ => format!(" #{index}"),
        };
        let mut text = format!("Answer {}{number}: {question}", self.mark());
        // Four bytes a token, as the prompt is counted.
        let wanted = self.directive.tokens.unwrap_or(0).min(1_000_000) as usize * 4;
        while text.len() < wanted {
            text.push_str(" la");
        }
        Said::Text(text)
    }

    fn measured(&self, said: Said, limit: Option<u64>) -> (Choice, u64) {
        let length = match &said {
            Said::Text(text) | Said::Refusal(text) => text.len(),
            Said::Call { name, arguments } => name.len() + arguments.len(),
        };
        let tokens = self.directive.tokens.unwrap_or((length as u64).div_ceil(4));
        let limit = limit.unwrap_or(u64::MAX).max(1);
        match said {
            Said::Text(text) if tokens > limit => {
                let kept = text.chars().take(limit as usize * 4).collect();
                let said = Said::Text(kept);
                (Choice { said, cut: true }, limit)
            }
            said => (Choice { said, cut: false }, tokens),
        }
    }

    /// The first tool's name and parameters, if tools may be called.
    fn called_tool(&self) -> Option<(String, Value)> {
        let barred = self.body.text("tool_choice").as_deref() == Some("none");
        if barred || self.body.ends_with_tool_result() {
            return None;
        }
        let tools: Vec<Value> = self.body.get("tools")?;
        let tool = tools.first()?;
        // Chat nests it in `function`, Responses does not.
        let function = tool.get("function").unwrap_or(tool);
        let name = function.get("name")?.as_str()?.to_owned();
        let schema = function.get("parameters").cloned();
        Some((name, schema.unwrap_or_default()))
    }

    /// The schema of the JSON that `response_format` or `text.format` asks for.
    fn wanted_json(&self) -> Option<Value> {
        let format: Value = match self.endpoint {
            Endpoint::Responses => self.body.get::<Value>("text")?.get("format")?.clone(),
            _ => self.body.get("response_format")?,
        };
        match format.get("type")?.as_str()? {
            "json_schema" => {
                let nested = format.get("json_schema").unwrap_or(&format);
                Some(nested.get("schema").cloned().unwrap_or_default())
            }
            "json_object" => Some(json!({"properties": {"answer": {"type": "string"}}})),
            _ => None,
        }
    }
}

pub(super) fn mark(seed: u64, fingerprint: u128) -> String {
    hex(&digest(seed, "answer", &fingerprint.to_be_bytes()), 16)
}

/// A unique id such as `chatcmpl-…`, a function of what it is for.
pub(super) fn id(prefix: &str, seed: u64, of: impl Serialize) -> String {
    let of = serde_json::to_vec(&of).unwrap_or_default();
    format!("{prefix}{}", hex(&digest(seed, prefix, &of), 24))
}

fn default_model(endpoint: Endpoint) -> Option<String> {
    (endpoint == Endpoint::Moderations).then(|| "omni-moderation-latest".to_owned())
}

/// A value that fits a JSON schema, with `text` for its strings.
fn fill(schema: &Value, text: &str) -> Value {
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        Some(kind) => kind.as_str(),
        None => None,
    };
    match kind {
        Some("string") => text.into(),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        Some("null") => Value::Null,
        Some("array") => match schema.get("items") {
            Some(items) => json!([fill(items, text)]),
            None => json!([]),
        },
        _ => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let filled = properties.into_iter().flatten();
            filled
                .map(|(name, schema)| (name.clone(), fill(schema, text)))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Result<String, u16> {
        let settings = Settings::default();
        let answer = Answer::to(Endpoint::Chat, body, &settings);
        let answer = answer.map_err(|error| error.status.as_u16())?;
        Ok(match &answer.choices[0].said {
            Said::Text(text) => text.clone(),
            Said::Refusal(text) => format!("refusal {text}"),
            Said::Call { name, arguments } => format!("{name}({arguments})"),
        })
    }

    #[test]
    fn an_answer_is_a_function_of_the_question() {
        let ask = |text: &str, more: &str| {
            answer(&format!(
                r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}]{more}}}"#
            ))
            .unwrap()
        };
        assert_eq!(ask("hi", ""), ask("hi", r#","service_tier":"flex""#));
        assert_ne!(ask("hi", ""), ask("hi", r#","temperature":0"#));
        assert!(ask("hi", "").ends_with(": hi"));
        let tools = r#","tools":[{"type":"function","function":{"name":"f","parameters":
            {"type":"object","properties":{"n":{"type":"integer"}}}}}]"#;
        assert_eq!(ask("hi", tools), r#"f({"n":1})"#);
        assert!(ask("hi", r#","metadata":{"sim":"refusal"}"#).starts_with("refusal"));
        assert_eq!(ask("hi", r#","max_tokens":2"#).len(), 8);
    }

    #[test]
    fn what_cannot_be_answered_says_so() {
        for (body, status) in [
            ("{", 400),
            (r#"{"messages":[]}"#, 400),
            (r#"{"model":"gpt-4o-mini"}"#, 400),
            (
                r#"{"model":"no-such","messages":[{"role":"user","content":"a"}]}"#,
                404,
            ),
        ] {
            assert_eq!(answer(body), Err(status), "{body}");
        }
    }
}
