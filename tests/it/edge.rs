//! Deferred calls, as a caller sees them.

mod bad_input;
mod bounds;
mod held;
mod hostile_json;
mod ids;
mod injection;
mod keys;
mod lines;
mod operators;
mod paths;
mod raw;
mod shadow;
mod smuggling;
mod streams;
mod through;
mod turnaround;
mod upstream;

use serde_json::json;

const CHAT: &str = "POST /v1/chat/completions";
const SIX_HOURS: &str = "offpeak-deadline: 6h";

/// A chat completion that asks `question`, and steers the simulator by `sim`.
fn chat(question: &str, sim: &str) -> String {
    let metadata = match sim {
        "" => json!({}),
        sim => json!({"sim": sim}),
    };
    json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": question}],
        "metadata": metadata,
    })
    .to_string()
}

fn response(question: &str, more: serde_json::Value) -> String {
    let mut body = json!({"model": "gpt-4o-mini", "input": question});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}
