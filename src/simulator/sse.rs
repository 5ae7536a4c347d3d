//! Streamed answers as server-sent events (WIRE.md §2; openai-python's event types).

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    answers::{Answer, Endpoint, Said},
    shapes::{self, Frame},
};

/// The frames of the whole stream, each to be sent after one chunk's delay.
pub(super) fn frames(answer: &Answer, frame: &Frame) -> Vec<Bytes> {
    match answer.endpoint {
        Endpoint::Responses => response_events(answer, frame),
        Endpoint::Completions => completion_chunks(answer, frame),
        _ => chat_chunks(answer, frame),
    }
}

/// Pieces of a few words, cut at spaces only.
fn pieces(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    // Long answers come in larger pieces, so that a stream stays under ~200 frames.
    let a_piece = (words.len() / 200).max(2);
    words.chunks(a_piece).map(|words| words.concat()).collect()
}

fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

fn wants_usage(answer: &Answer) -> bool {
    let options: Option<Value> = answer.body.get("stream_options");
    options.is_some_and(|options| options["include_usage"] == true)
}

fn chat_chunks(answer: &Answer, frame: &Frame) -> Vec<Bytes> {
    let with_usage = wants_usage(answer);
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": frame.id("chatcmpl-"), "object": "chat.completion.chunk",
            "created": frame.created, "model": answer.model, "service_tier": frame.tier,
            "system_fingerprint": "fp_simulator", "choices": choices,
        });
        if with_usage {
            chunk["usage"] = usage;
        }
        data(&chunk)
    };
    let logprobs = answer.body.is_true("logprobs");
    let mut frames = Vec::new();
    for (index, choice) in answer.choices.iter().enumerate() {
        let mut push = |delta: Value, logprobs: Value, finish: Option<&str>| {
            let choice = json!([{
                "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish,
            }]);
            frames.push(chunk(choice, Value::Null));
        };
        match &choice.said {
            Said::Text(text) => {
                push(
                    json!({"role": "assistant", "content": "", "refusal": null}),
                    Value::Null,
                    None,
                );
                for piece in pieces(text) {
                    let tokens = shapes::token_logprobs(&Said::Text(piece.clone()), logprobs);
                    push(json!({"content": piece}), tokens, None);
                }
            }
            Said::Refusal(text) => {
                push(
                    json!({"role": "assistant", "content": null, "refusal": ""}),
                    Value::Null,
                    None,
                );
                for piece in pieces(text) {
                    push(json!({"refusal": piece}), Value::Null, None);
                }
            }
            Said::Call { name, arguments } => {
                let call = json!({
                    "index": 0, "id": shapes::call_id(frame, index), "type": "function",
                    "function": {"name": name, "arguments": ""},
                });
                let first = json!({"role": "assistant", "content": null, "tool_calls": [call]});
                push(first, Value::Null, None);
                for piece in pieces(arguments) {
                    let call = json!({"index": 0, "function": {"arguments": piece}});
                    push(json!({"tool_calls": [call]}), Value::Null, None);
                }
            }
        }
        push(json!({}), Value::Null, Some(shapes::finish_reason(choice)));
    }
    if with_usage {
        frames.push(chunk(json!([]), shapes::usage(&answer.usage)));
    }
    frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
    frames
}

fn completion_chunks(answer: &Answer, frame: &Frame) -> Vec<Bytes> {
    let with_usage = wants_usage(answer);
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": frame.id("cmpl-"), "object": "text_completion", "created": frame.created,
            "model": answer.model, "choices": choices,
        });
        if with_usage {
            chunk["usage"] = usage;
        }
        data(&chunk)
    };
    let mut frames = Vec::new();
    for (index, choice) in answer.choices.iter().enumerate() {
        let mut push = |text: &str, finish: Option<&str>| {
            let choice =
                json!([{"index": index, "text": text, "logprobs": null, "finish_reason": finish}]);
            frames.push(chunk(choice, Value::Null));
        };
        for piece in pieces(shapes::plain_text(&choice.said)) {
            push(&piece, None);
        }
        push("", Some(shapes::finish_reason(choice)));
    }
    if with_usage {
        frames.push(chunk(json!([]), shapes::usage(&answer.usage)));
    }
    frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
    frames
}

/// Typed events, numbered from 0.
#[derive(Default)]
struct Events {
    frames: Vec<Bytes>,
}

impl Events {
    fn push(&mut self, kind: &str, mut event: Value) {
        event["type"] = kind.into();
        event["sequence_number"] = self.frames.len().into();
        let frame = format!("event: {kind}\ndata: {event}\n\n");
        self.frames.push(frame.into());
    }
}

fn response_events(answer: &Answer, frame: &Frame) -> Vec<Bytes> {
    let mut events = Events::default();
    let started = shapes::response(answer, frame, "in_progress");
    events.push("response.created", json!({"response": started}));
    events.push("response.in_progress", json!({"response": started}));
    let items = shapes::response_items(answer, frame);
    for (index, (item, choice)) in items.iter().zip(&answer.choices).enumerate() {
        let mut opened = item.clone();
        opened["status"] = "in_progress".into();
        if let Said::Call { arguments, .. } = &choice.said {
            opened["arguments"] = "".into();
            events.push(
                "response.output_item.added",
                json!({"output_index": index, "item": opened}),
            );
            call_events(&mut events, index, &item["id"], arguments);
        } else {
            opened["content"] = json!([]);
            events.push(
                "response.output_item.added",
                json!({"output_index": index, "item": opened}),
            );
            part_events(&mut events, index, &item["id"], &choice.said);
        }
        events.push(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }
    let done = shapes::response(answer, frame, "completed");
    let kind = match done["status"].as_str() {
        Some("incomplete") => "response.incomplete",
        _ => "response.completed",
    };
    events.push(kind, json!({"response": done}));
    events.frames
}

fn call_events(events: &mut Events, index: usize, item: &Value, arguments: &str) {
    for piece in pieces(arguments) {
        let delta = json!({"item_id": item, "output_index": index, "delta": piece});
        events.push("response.function_call_arguments.delta", delta);
    }
    let done = json!({"item_id": item, "output_index": index, "arguments": arguments});
    events.push("response.function_call_arguments.done", done);
}

fn part_events(events: &mut Events, index: usize, item: &Value, said: &Said) {
    let part = shapes::response_part(said);
    let (kind, field) = match said {
        Said::Refusal(_) => ("response.refusal", "refusal"),
        _ => ("response.output_text", "text"),
    };
    let about = |more: &[(&str, Value)]| {
        let mut event = json!({"item_id": item, "output_index": index, "content_index": 0});
        for (name, value) in more {
            event[name] = value.clone();
        }
        event
    };
    let mut empty = part.clone();
    empty[field] = "".into();
    events.push("response.content_part.added", about(&[("part", empty)]));
    for piece in pieces(shapes::plain_text(said)) {
        let mut event = about(&[("delta", piece.into())]);
        if field == "text" {
            event["logprobs"] = json!([]);
        }
        events.push(&format!("{kind}.delta"), event);
    }
    let mut done = about(&[(field, part[field].clone())]);
    if field == "text" {
        done["logprobs"] = json!([]);
    }
    events.push(&format!("{kind}.done"), done);
    events.push("response.content_part.done", about(&[("part", part)]));
}
