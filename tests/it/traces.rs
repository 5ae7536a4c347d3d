//! Spans as a collector gets them: a receiver of OTLP that reads the protobuf.

mod collector;
mod passing;
mod program;
mod requests;

use serde_json::json;

const CHAT: &str = "POST /v1/chat/completions";
const SIX_HOURS: &str = "offpeak-deadline: 6h";
/// W3C Trace Context's own example.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn chat(question: &str) -> String {
    json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": question}],
    })
    .to_string()
}

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{SPAN}-{flags}")
}
