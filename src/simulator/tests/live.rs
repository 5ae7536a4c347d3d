use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::*;
use crate::simulator::{Lane, answer_mark};

#[tokio::test(start_paused = true)]
async fn a_chat_answers_with_the_headers_of_the_wire() {
    let bench = Bench::new();
    let body = question("hello", "");
    let reply = bench.post("/v1/chat/completions", body.clone()).await;
    assert_eq!(reply.status, 200);
    let chat = reply.json();
    let content = chat["choices"][0]["message"]["content"].as_str().unwrap();
    let mark = answer_mark(1, &body.to_string()).unwrap();
    assert_eq!(content, format!("Answer {mark}: hello"));
    assert_eq!(chat["service_tier"], "default");
    assert_eq!(reply.header("openai-version"), "2020-10-01");
    assert_eq!(reply.header("x-ratelimit-limit-requests"), "30000");
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), "29999");
    assert_eq!(reply.header("x-ratelimit-reset-requests"), "2ms");
    assert!(reply.header("x-request-id").starts_with("req_"));
    assert!(reply.header("openai-organization").starts_with("org-"));
    assert_ne!(reply.header("openai-processing-ms"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_needed() {
    let bench = Bench::new();
    let bare = Request::get("/v1/models").body(Body::empty()).unwrap();
    assert_eq!(bench.send(bare).await.error(), (401, Value::Null));
    let bad = bench.call_as("sk-bad1", "GET", "/v1/models", "").await;
    assert_eq!(bad.error(), (401, json!("invalid_api_key")));
    let azure = Request::get("/v1/models")
        .header("api-key", "k")
        .body(Body::empty());
    assert_eq!(bench.send(azure.unwrap()).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn models_are_known_or_not() {
    let bench = Bench::new();
    let list = bench.get("/v1/models").await.json();
    assert!(list["data"].as_array().unwrap().len() > 5);
    assert_eq!(
        bench.get("/v1/models/gpt-4o-mini").await.json()["id"],
        "gpt-4o-mini"
    );
    let unknown = bench.get("/v1/models/gpt-nope").await;
    assert_eq!(unknown.error(), (404, json!("model_not_found")));
    let body = json!({"model": "gpt-nope", "messages": [{"role": "user", "content": "x"}]});
    let chat = bench.post("/v1/chat/completions", body).await;
    assert_eq!(chat.error(), (404, json!("model_not_found")));
    assert_eq!(
        bench.get("/v1/nothing").await.error(),
        (404, json!("unknown_url"))
    );
}

fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.lines().last());
    data.filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_what_the_answer_says() {
    let bench = Bench::new();
    let mut body = question("one two three four five", "");
    body["n"] = json!(2);
    let whole = bench
        .post("/v1/chat/completions", body.clone())
        .await
        .json();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let reply = bench.post("/v1/chat/completions", body).await;
    assert_eq!(
        reply.header("content-type"),
        "text/event-stream; charset=utf-8"
    );
    assert!(reply.text.ends_with("data: [DONE]\n\n"));
    let chunks = events(&reply.text);
    let mut texts = [String::new(), String::new()];
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        for choice in chunk["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            texts[index] += choice["delta"]["content"].as_str().unwrap_or("");
        }
    }
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["message"]["content"], **text);
    }
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole["usage"]);
    assert_eq!(chunks[0]["usage"], Value::Null);
    assert_eq!(bench.sim.log().runs_of("one two"), 2);
}

#[tokio::test(start_paused = true)]
async fn tools_logprobs_and_limits() {
    let bench = Bench::new();
    let mut body = question("weather?", "");
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    body["tools"] =
        json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    let called = bench
        .post("/v1/chat/completions", body.clone())
        .await
        .json();
    let choice = &called["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let call = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "weather");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string());
    body["stream"] = json!(true);
    let reply = bench.post("/v1/chat/completions", body).await;
    let pieces: String = events(&reply.text)
        .iter()
        .filter_map(|chunk| {
            let calls = &chunk["choices"][0]["delta"]["tool_calls"];
            calls[0]["function"]["arguments"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(pieces, call["arguments"].as_str().unwrap());

    let mut limited = question("a long story", "tokens=100");
    limited["max_tokens"] = json!(10);
    limited["logprobs"] = json!(true);
    let limited = bench.post("/v1/chat/completions", limited).await.json();
    assert_eq!(limited["choices"][0]["finish_reason"], "length");
    assert_eq!(limited["usage"]["completion_tokens"], 10);
    assert!(limited["choices"][0]["logprobs"]["content"][0]["logprob"].is_f64());
}

#[tokio::test(start_paused = true)]
async fn responses_stream_typed_events_in_order() {
    let bench = Bench::new();
    let ask = json!({"model": "gpt-4o-mini", "input": "say this", "stream": true});
    let reply = bench.post("/v1/responses", ask).await;
    let events = events(&reply.text);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
        assert!(
            reply
                .text
                .contains(&format!("event: {}\n", event["type"].as_str().unwrap()))
        );
    }
    let mut kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let done = &events.last().unwrap()["response"];
    let path = format!("/v1/responses/{}", done["id"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.json(), *done);
}

#[tokio::test(start_paused = true)]
async fn embeddings_repeat_and_base64_is_the_same_vector() {
    let bench = Bench::new();
    let model = "text-embedding-3-small";
    let mut ask = json!({"model": model, "input": ["a", "b"], "dimensions": 8});
    let floats = bench.post("/v1/embeddings", ask.clone()).await.json();
    ask["encoding_format"] = json!("base64");
    let coded = bench.post("/v1/embeddings", ask).await.json();
    for index in 0..2 {
        let bytes = coded["data"][index]["embedding"].as_str().unwrap();
        let bytes = STANDARD.decode(bytes).unwrap();
        let vector: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        let plain: Vec<f32> =
            serde_json::from_value(floats["data"][index]["embedding"].clone()).unwrap();
        assert_eq!(vector, plain);
        assert_eq!(plain.len(), 8);
    }
    assert_ne!(
        floats["data"][0]["embedding"],
        floats["data"][1]["embedding"]
    );
}

#[tokio::test(start_paused = true)]
async fn completions_and_moderations() {
    let bench = Bench::new();
    let ask = json!({"model": "gpt-3.5-turbo-instruct", "prompt": "once"});
    let text = bench.post("/v1/completions", ask).await.json();
    assert_eq!(text["object"], "text_completion");
    assert!(
        text["choices"][0]["text"]
            .as_str()
            .unwrap()
            .ends_with(": once")
    );
    let ask = json!({"input": ["good", "bad [flag]"]});
    let moderation = bench.post("/v1/moderations", ask).await.json();
    assert_eq!(moderation["results"][0]["flagged"], false);
    assert_eq!(moderation["results"][1]["categories"]["violence"], true);
}

#[tokio::test(start_paused = true)]
async fn a_stored_chat_can_be_had_again_by_its_key_only() {
    let bench = Bench::new();
    let mut ask = question("keep", "");
    ask["store"] = json!(true);
    let chat = bench.post("/v1/chat/completions", ask).await.json();
    let path = format!("/v1/chat/completions/{}", chat["id"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.json()["choices"], chat["choices"]);
    assert_eq!(
        bench.call_as("sk-other", "GET", &path, "").await.status,
        404
    );
    assert_eq!(
        bench.call_as("sk-test", "DELETE", &path, "").await.status,
        200
    );
    assert_eq!(bench.get(&path).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn live_rate_limits_refill() {
    let bench = Bench::with(|settings| settings.limits.requests_per_minute = 2);
    let ask = || bench.post("/v1/chat/completions", question("x", ""));
    assert_eq!(ask().await.status, 200);
    assert_eq!(ask().await.status, 200);
    let refused = ask().await;
    assert_eq!(refused.error(), (429, json!("rate_limit_exceeded")));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
    let wait: u64 = refused.header("retry-after-ms").parse().unwrap();
    tokio::time::advance(Duration::from_millis(wait + 1)).await;
    assert_eq!(ask().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn requests_steer_their_answers() {
    let bench = Bench::new();
    for (sim, status) in [
        ("status=500", 500),
        ("status=400", 400),
        ("status=429", 429),
    ] {
        let reply = bench.post("/v1/chat/completions", question("x", sim)).await;
        assert_eq!(reply.error().0, status);
    }
    for status in [500, 500, 200] {
        let reply = bench
            .post("/v1/chat/completions", question("y", "flaky=2"))
            .await;
        assert_eq!(reply.status.as_u16(), status);
    }
    let began = tokio::time::Instant::now();
    bench
        .post("/v1/chat/completions", question("z", "slow=30s"))
        .await;
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert_eq!(bench.sim.bill().calls(Lane::Standard), 2);
}

#[tokio::test(start_paused = true)]
async fn bad_bodies_are_refused() {
    let bench = Bench::new();
    for (path, body) in [
        ("/v1/chat/completions", "{"),
        ("/v1/chat/completions", r#"{"model":"gpt-4o-mini"}"#),
        ("/v1/chat/completions", r#"{"messages":[]}"#),
        ("/v1/responses", r#"{"model":"gpt-4o-mini"}"#),
        (
            "/v1/responses",
            r#"{"model":"gpt-4o-mini","input":"x","previous_response_id":"resp_0"}"#,
        ),
        ("/v1/embeddings", r#"{"model":"text-embedding-3-small"}"#),
    ] {
        let reply = bench.call_as("sk-test", "POST", path, body).await;
        assert_eq!(reply.error().0, 400, "{path} {body}");
    }
}
