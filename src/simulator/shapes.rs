//! Whole answers in the wire's shapes (openai-python's types are the reference).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::answers::{Answer, Choice, Endpoint, Said, Usage, id};

/// What an answer has beside its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// Distinguishes runs of one request; ids are made from it.
    pub run: &'a str,
    pub seed: u64,
    /// Unix seconds.
    pub created: u64,
    /// The tier that served it: `default`, `flex`, `priority`.
    pub tier: &'a str,
}

impl Frame<'_> {
    pub fn id(&self, prefix: &str) -> String {
        id(prefix, self.seed, self.run)
    }
}

/// The body of a 200.
pub(super) fn whole(answer: &Answer, frame: &Frame) -> Value {
    match answer.endpoint {
        Endpoint::Chat => chat(answer, frame),
        Endpoint::Responses => response(answer, frame, "completed"),
        Endpoint::Embeddings => embeddings(answer),
        Endpoint::Completions => completion(answer, frame),
        Endpoint::Moderations => moderation(answer, frame),
    }
}

fn chat(answer: &Answer, frame: &Frame) -> Value {
    let logprobs = answer.body.is_true("logprobs");
    let choices: Vec<Value> = (0..)
        .zip(&answer.choices)
        .map(|(index, choice)| {
            json!({
                "index": index,
                "message": message(choice, frame, index),
                "logprobs": token_logprobs(&choice.said, logprobs),
                "finish_reason": finish_reason(choice),
            })
        })
        .collect();
    json!({
        "id": frame.id("chatcmpl-"),
        "object": "chat.completion",
        "created": frame.created,
        "model": answer.model,
        "choices": choices,
        "usage": usage(&answer.usage),
        "service_tier": frame.tier,
        "system_fingerprint": "fp_simulator",
    })
}

fn message(choice: &Choice, frame: &Frame, index: usize) -> Value {
    let mut message = json!({
        "role": "assistant", "content": null, "refusal": null, "annotations": [],
    });
    match &choice.said {
        Said::Text(text) => message["content"] = text.as_str().into(),
        Said::Refusal(text) => message["refusal"] = text.as_str().into(),
        Said::Call { name, arguments } => {
            message["tool_calls"] = json!([{
                "id": call_id(frame, index),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }]);
        }
    }
    message
}

pub(super) fn call_id(frame: &Frame, index: usize) -> String {
    id("call_", frame.seed, (frame.run, index))
}

pub(super) fn finish_reason(choice: &Choice) -> &'static str {
    match choice.said {
        Said::Call { .. } => "tool_calls",
        _ if choice.cut => "length",
        _ => "stop",
    }
}

/// One logprob a word; enough to see that they arrive.
pub(super) fn token_logprobs(said: &Said, wanted: bool) -> Value {
    let Said::Text(text) = said else {
        return Value::Null;
    };
    if !wanted {
        return Value::Null;
    }
    let content: Vec<Value> = text
        .split_inclusive(' ')
        .map(|word| {
            json!({"token": word, "logprob": -0.25, "bytes": word.as_bytes(), "top_logprobs": []})
        })
        .collect();
    json!({"content": content, "refusal": null})
}

pub(super) fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached, "cache_write_tokens": usage.written, "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}

/// Usage as Responses and the batch object count it.
pub(super) fn usage_in_out(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached, "cache_write_tokens": usage.written,
        },
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    })
}

/// A response object with the given status; output and usage only when completed
/// (`incomplete` when the text was cut).
pub(super) fn response(answer: &Answer, frame: &Frame, status: &str) -> Value {
    let done = status == "completed";
    let cut = done && answer.choices.iter().any(|choice| choice.cut);
    let items: Vec<Value> = if done {
        response_items(answer, frame)
    } else {
        Vec::new()
    };
    let echoed = |name: &str, otherwise: Value| answer.body.get(name).unwrap_or(otherwise);
    json!({
        "id": frame.id("resp_"),
        "object": "response",
        "created_at": frame.created,
        "status": if cut { "incomplete" } else { status },
        "background": answer.body.is_true("background"),
        "error": null,
        "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
        "instructions": echoed("instructions", Value::Null),
        "max_output_tokens": echoed("max_output_tokens", Value::Null),
        "metadata": echoed("metadata", json!({})),
        "model": answer.model,
        "output": items,
        "parallel_tool_calls": echoed("parallel_tool_calls", true.into()),
        "previous_response_id": echoed("previous_response_id", Value::Null),
        "reasoning": echoed("reasoning", json!({"effort": null, "summary": null})),
        "service_tier": frame.tier,
        "store": echoed("store", true.into()),
        "temperature": echoed("temperature", 1.0.into()),
        "text": echoed("text", json!({"format": {"type": "text"}})),
        "tool_choice": echoed("tool_choice", "auto".into()),
        "tools": echoed("tools", json!([])),
        "top_p": echoed("top_p", 1.0.into()),
        "truncation": echoed("truncation", "disabled".into()),
        "usage": done.then(|| usage_in_out(&answer.usage)),
        "user": echoed("user", Value::Null),
    })
}

pub(super) fn response_items(answer: &Answer, frame: &Frame) -> Vec<Value> {
    answer
        .choices
        .iter()
        .take(1)
        .map(|choice| match &choice.said {
            Said::Call { name, arguments } => json!({
                "id": frame.id("fc_"), "type": "function_call", "status": "completed",
                "call_id": call_id(frame, 0), "name": name, "arguments": arguments,
            }),
            said => json!({
                "id": frame.id("msg_"), "type": "message", "role": "assistant",
                "status": if choice.cut { "incomplete" } else { "completed" },
                "content": [response_part(said)],
            }),
        })
        .collect()
}

pub(super) fn response_part(said: &Said) -> Value {
    match said {
        Said::Text(text) => {
            json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
        }
        Said::Refusal(text) => json!({"type": "refusal", "refusal": text}),
        Said::Call { .. } => Value::Null,
    }
}

fn embeddings(answer: &Answer) -> Value {
    let base64 = answer.body.text("encoding_format").as_deref() == Some("base64");
    let data: Vec<Value> = (0..answer.questions.len())
        .map(|index| {
            let vector = answer.vector(index);
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Value::from(STANDARD.encode(bytes))
            } else {
                Value::from(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    json!({
        "object": "list",
        "data": data,
        "model": answer.model,
        "usage": {"prompt_tokens": answer.usage.prompt, "total_tokens": answer.usage.prompt},
    })
}

fn completion(answer: &Answer, frame: &Frame) -> Value {
    let choices: Vec<Value> = (0..)
        .zip(&answer.choices)
        .map(|(index, choice): (usize, _)| {
            json!({
                "index": index, "text": plain_text(&choice.said), "logprobs": null,
                "finish_reason": finish_reason(choice),
            })
        })
        .collect();
    json!({
        "id": frame.id("cmpl-"),
        "object": "text_completion",
        "created": frame.created,
        "model": answer.model,
        "choices": choices,
        "usage": usage(&answer.usage),
    })
}

pub(super) fn plain_text(said: &Said) -> &str {
    match said {
        Said::Text(text) | Said::Refusal(text) => text,
        Said::Call { arguments, .. } => arguments,
    }
}

/// An input that contains `[flag]` is flagged as violence.
fn moderation(answer: &Answer, frame: &Frame) -> Value {
    const CATEGORIES: [&str; 13] = [
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "illicit",
        "illicit/violent",
        "self-harm",
        "self-harm/instructions",
        "self-harm/intent",
        "sexual",
        "sexual/minors",
        "violence",
        "violence/graphic",
    ];
    let result = |text: &String| {
        let flagged = text.contains("[flag]");
        let hit = |name: &str| flagged && name == "violence";
        let by_category = |value: &dyn Fn(&str) -> Value| -> Value {
            CATEGORIES
                .iter()
                .map(|name| (name.to_string(), value(name)))
                .collect()
        };
        json!({
            "flagged": flagged,
            "categories": by_category(&|name| hit(name).into()),
            "category_scores": by_category(&|name| if hit(name) { 0.99 } else { 0.0001 }.into()),
            "category_applied_input_types": by_category(&|_| json!(["text"])),
        })
    };
    json!({
        "id": frame.id("modr-"),
        "model": answer.model,
        "results": answer.questions.iter().map(result).collect::<Vec<_>>(),
    })
}
