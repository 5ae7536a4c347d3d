use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn events(endpoint: Endpoint, answer: &Value, include_usage: bool) -> Vec<Value> {
    let stream = replay(endpoint, answer.to_string().as_bytes(), include_usage).unwrap();
    let stream = String::from_utf8(stream).unwrap();
    stream
        .split_terminator("\n\n")
        .map(|event| {
            let data = event.split_once("data: ").unwrap().1;
            match data {
                "[DONE]" => json!("[DONE]"),
                data => serde_json::from_str(data).unwrap(),
            }
        })
        .collect()
}

fn assemble(endpoint: Endpoint, stream: &[u8], cut: usize) -> Result<Value, Broken> {
    let mut assembler = Assembler::new(endpoint);
    for part in stream.chunks(cut.max(1)) {
        assembler.push(part);
    }
    let answer = assembler.finish()?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

fn chat(choices: Value) -> Value {
    json!({"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m",
        "choices":choices,"system_fingerprint":"fp","service_tier":"default",
        "usage":{"total_tokens":3}})
}

#[test]
fn chat_text() {
    let long = "é".repeat(100);
    let answer = chat(json!([
        {"index":1,"message":{"role":"assistant","content":null,"refusal":"no"},"logprobs":null,"finish_reason":"stop"},
        {"index":0,"message":{"role":"assistant","content":long,"refusal":null,"annotations":[]},
         "logprobs":{"content":[{"token":"é"}],"refusal":null},"finish_reason":"length"},
    ]));
    let events = events(Endpoint::ChatCompletions, &answer, true);
    let opening = &events[0]["choices"][0];
    assert_eq!(
        opening,
        &json!({"index":0,"delta":{"role":"assistant","content":"","refusal":null,"annotations":[]},
            "logprobs":null,"finish_reason":null})
    );
    let of = |index: u64| {
        events
            .iter()
            .filter_map(move |event| event["choices"].get(0))
            .filter(move |choice| choice["index"] == index)
    };
    let text: String = of(0)
        .filter_map(|choice| choice["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, long);
    assert!(of(0).filter(|choice| !choice["logprobs"].is_null()).count() == 1);
    assert_eq!(of(0).next_back().unwrap()["finish_reason"], "length");
    assert_eq!(of(0).next_back().unwrap()["delta"], json!({}));
    assert_eq!(
        of(1).map(|choice| &choice["delta"]).collect::<Vec<_>>(),
        [
            &json!({"role":"assistant","content":null}),
            &json!({"refusal":"no"}),
            &json!({})
        ]
    );
    let [chunks @ .., usage, done] = &events[..] else {
        panic!("too few events");
    };
    assert_eq!(done, "[DONE]");
    assert_eq!(usage["usage"], json!({"total_tokens":3}));
    assert_eq!(usage["choices"], json!([]));
    for chunk in chunks {
        assert!(chunk.as_object().unwrap().contains_key("usage"));
        assert!(chunk["usage"].is_null());
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["system_fingerprint"], "fp");
    }
}

#[test]
fn chat_without_usage_has_none() {
    let answer = chat(
        json!([{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]),
    );
    let events = events(Endpoint::ChatCompletions, &answer, false);
    assert_eq!(events.len(), 4);
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn chat_tool_calls() {
    let answer = chat(
        json!([{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,
        "tool_calls":[
            {"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
            {"id":"call_2","type":"function","function":{"name":"g","arguments":""}},
            {"id":"call_3","type":"custom","custom":{"name":"h","input":"x"}}]}}]),
    );
    let deltas: Vec<Value> = events(Endpoint::ChatCompletions, &answer, false)
        .iter()
        .filter_map(|event| event["choices"][0]["delta"].get("tool_calls").cloned())
        .collect();
    assert_eq!(
        deltas,
        [
            json!([{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]),
            json!([{"index":0,"function":{"arguments":"{\"a\":1}"}}]),
            json!([{"index":1,"id":"call_2","type":"function","function":{"name":"g","arguments":""}}]),
            json!([{"index":2,"id":"call_3","type":"custom","custom":{"name":"h","input":"x"}}]),
        ]
    );
}

#[test]
fn raw_values_survive() {
    let answer = br#"{
      "id": "x", "object": "chat.completion", "created": 1, "model": "m",
      "choices": [ { "index": 0, "message": { "role": "assistant", "content": "a\ud800\u0000\ud83d\ude00 b" },
        "logprobs": null, "finish_reason": "stop" } ],
      "usage": { "cost": 0.1000000000000000000000000000001,
                 "big": 1e400 }
    }"#;
    let stream = replay(Endpoint::ChatCompletions, answer, true).unwrap();
    let text = String::from_utf8(stream.clone()).unwrap();
    assert!(text.contains(r#""content":"a\ud800\u0000\ud83d\ude00 b""#));
    assert!(text.contains(r#""usage":{"cost":0.1000000000000000000000000000001,"big":1e400}"#));
    let mut assembler = Assembler::new(Endpoint::ChatCompletions);
    assembler.push(&stream);
    let whole = String::from_utf8(assembler.finish().unwrap()).unwrap();
    assert_eq!(
        whole,
        r#"{"object":"chat.completion","id":"x","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a\ud800\u0000\ud83d\ude00 b"},"logprobs":null,"finish_reason":"stop"}],"usage":{"cost":0.1000000000000000000000000000001,"big":1e400}}"#
    );
}

fn response() -> Value {
    json!({"id":"resp_1","object":"response","created_at":1,"status":"completed","error":null,
        "incomplete_details":null,"model":"m","output":[
        {"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"why"}],
         "content":[{"type":"reasoning_text","text":"because"}],"encrypted_content":"e"},
        {"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search","query":"q"}},
        {"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[
            {"type":"output_text","text":"hello","annotations":[{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":1}],
             "logprobs":[{"token":"hello","logprob":-0.5,"bytes":[],"top_logprobs":[]}]},
            {"type":"refusal","refusal":"no"}]},
        {"id":"fc_1","type":"function_call","status":"completed","call_id":"call_1","name":"f","arguments":"{}"},
        {"id":"ct_1","type":"custom_tool_call","status":"completed","call_id":"call_2","name":"g","input":"in"}],
        "usage":{"total_tokens":7}})
}

#[test]
fn response_events_in_order() {
    let answer = response();
    let events = events(Endpoint::Responses, &answer, false);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| {
            event["type"]
                .as_str()
                .unwrap()
                .trim_start_matches("response.")
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.annotation.added",
            "output_text.done",
            "content_part.done",
            "content_part.added",
            "refusal.delta",
            "refusal.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
            "completed",
        ]
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let created = &events[0]["response"];
    assert_eq!(created["status"], "in_progress");
    assert_eq!(created["output"], json!([]));
    assert!(created["usage"].is_null());
    assert_eq!(events.last().unwrap()["response"], answer);
    assert_eq!(
        events[16],
        json!({"type":"response.output_text.delta","sequence_number":16,"item_id":"msg_1","output_index":2,
            "content_index":0,"delta":"hello","logprobs":[{"token":"hello","logprob":-0.5,"bytes":[],"top_logprobs":[]}]})
    );
    let stream = replay(Endpoint::Responses, answer.to_string().as_bytes(), false).unwrap();
    assert!(stream.starts_with(
        b"event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,"
    ));
}

#[test]
fn a_response_ends_as_its_status_says() {
    for (status, kind) in [
        ("completed", "response.completed"),
        ("incomplete", "response.incomplete"),
        ("failed", "response.failed"),
        ("cancelled", "response.failed"),
    ] {
        let answer = json!({"id":"r","status":status,"output":[]});
        let events = events(Endpoint::Responses, &answer, false);
        assert_eq!(events.last().unwrap()["type"], kind);
    }
}

#[test]
fn what_cannot_be_replayed() {
    use Endpoint::*;
    for (endpoint, answer) in [
        (ChatCompletions, "[]"),
        (ChatCompletions, "{}"),
        (ChatCompletions, "{\"choices\":[1]}"),
        (ChatCompletions, "{\"choices\":[{}]}"),
        (
            ChatCompletions,
            "{\"choices\":[{\"message\":{\"tool_calls\":[7]}}]}",
        ),
        (ChatCompletions, "not json"),
        (Completions, "{\"choices\":[{}]}"),
        (Responses, "{\"status\":\"in_progress\"}"),
        (Responses, "{\"status\":\"completed\",\"output\":[7]}"),
        (Embeddings, "{}"),
        (Moderations, "{}"),
    ] {
        assert!(
            replay(endpoint, answer.as_bytes(), true).is_err(),
            "{answer}"
        );
    }
    assert!(replay(ChatCompletions, b"\"\xff\"", true).is_err());
}

#[test]
fn a_failure_is_one_event() {
    let failure = failure(b"{\n \"error\": {\"message\": \"m\"}\n}").unwrap();
    assert_eq!(
        failure,
        b"event: error\ndata: {\"error\":{\"message\":\"m\"}}\n\n"
    );
    for endpoint in [Endpoint::ChatCompletions, Endpoint::Responses] {
        assert_eq!(
            assemble(endpoint, &failure, 7),
            Err(Broken::Failed(r#"{"error":{"message":"m"}}"#.to_owned()))
        );
    }
}

#[test]
fn live_streams_with_quirks() {
    // The role in every chunk, calls opened by two entries in one chunk,
    // Azure's filter chunks, no `[DONE]`, comments, CRLF.
    let stream = concat!(
        ": OPENROUTER PROCESSING\r\n\r\n",
        "data: {\"id\":\"\",\"object\":\"\",\"created\":0,\"model\":\"\",\"choices\":[],\"prompt_filter_results\":[1]}\r\n\r\n",
        "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"h\u{e9}\"},\"finish_reason\":null}],\"usage\":null}\r\n\r\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}},{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{\"}}]}}]}\r\n\r\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"\",\"function\":{\"arguments\":\"}\"}}]}}],\"obfuscation\":\"xx\"}\r\n\r\n",
        "data: {\"id\":\"\",\"model\":\"\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"content_filter_results\":{\"hate\":{\"severity\":\"safe\"}}}]}\r\n\r\n",
        "data: {\"choices\":[],\"usage\":{\"total_tokens\":2}}",
    );
    let expected = json!({"id":"c","object":"chat.completion","created":5,"model":"m","prompt_filter_results":[1],
        "choices":[{"index":0,"finish_reason":"stop","logprobs":null,"content_filter_results":{"hate":{"severity":"safe"}},
            "message":{"role":"assistant","content":"hé","tool_calls":[
                {"id":"a","type":"function","function":{"name":"f","arguments":""}},
                {"id":"b","function":{"name":"g","arguments":"{}"}}]}}],
        "usage":{"total_tokens":2}});
    for cut in 1..60 {
        assert_eq!(
            assemble(Endpoint::ChatCompletions, stream.as_bytes(), cut).unwrap(),
            expected
        );
    }
}

/// Log probabilities in another form are no reason to lose an answer that was paid for.
#[test]
fn log_probabilities_that_are_no_object_are_kept_as_they_are() {
    let stream = "data: {\"choices\":[{\"index\":0,\"text\":\"x\",\"logprobs\":[-0.5],\"finish_reason\":\"stop\"}]}\n\n\
                  data: [DONE]\n\n";
    let answer = assemble(Endpoint::Completions, stream.as_bytes(), 7).unwrap();
    assert_eq!(answer["choices"][0]["logprobs"], json!([-0.5]));
    assert_eq!(answer["choices"][0]["text"], "x");
}

#[test]
fn streams_that_break() {
    use Endpoint::*;
    let cut = Err(Broken::Truncated);
    let begun = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    assert_eq!(assemble(ChatCompletions, b"", 1), cut);
    assert_eq!(assemble(ChatCompletions, begun.as_bytes(), 9), cut);
    assert_eq!(assemble(ChatCompletions, b"data: [DONE]\n\n", 9), cut);
    let created = b"data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}\n\n";
    assert_eq!(assemble(Responses, created, 9), cut);
    assert_eq!(
        assemble(Responses, b"event: error\ndata: {\"type\":\"error\",\"code\":\"c\",\"message\":\"m\",\"param\":null}\n\n", 9),
        Err(Broken::Failed(
            r#"{"error":{"message":"m","type":"server_error","param":null,"code":"c"}}"#.to_owned()
        ))
    );
    assert!(matches!(
        assemble(ChatCompletions, b"data: {\"choices\n\n", 9),
        Err(Broken::Malformed(_))
    ));
    assert!(assemble(Embeddings, begun.as_bytes(), 9).is_err());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,80}",
        "[a-z\\n\\t\"\\\\ ]{0,300}",
        Just(String::new())
    ]
}

fn logprobs() -> impl Strategy<Value = Value> {
    let tokens = proptest::collection::vec(
        (text(), any::<f32>()).prop_map(|(token, logprob)| {
            json!({"token":token,"logprob":logprob,"bytes":null,"top_logprobs":[]})
        }),
        0..4,
    );
    prop_oneof![
        Just(Value::Null),
        tokens.prop_map(|tokens| json!({"content":tokens,"refusal":null})),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    let call = (text(), text(), any::<bool>()).prop_map(|(id, text, custom)| match custom {
        true => json!({"id":id,"type":"custom","custom":{"name":"c","input":text}}),
        false => json!({"id":id,"type":"function","function":{"name":"f","arguments":text}}),
    });
    let option = proptest::option::of::<BoxedStrategy<Value>>;
    (
        proptest::option::of(text()),
        proptest::option::of(text()),
        option(
            proptest::collection::vec(call, 1..4)
                .prop_map(Value::from)
                .boxed(),
        ),
        option(
            text()
                .prop_map(|text| json!({"name":"f","arguments":text}))
                .boxed(),
        ),
        option(
            text()
                .prop_map(|text| json!({"id":"a","data":text,"transcript":text,"expires_at":9}))
                .boxed(),
        ),
        option(
            text()
                .prop_map(|text| json!([{"type":"url_citation","url_citation":{"url":text}}]))
                .boxed(),
        ),
    )
        .prop_map(|(content, refusal, calls, function, audio, annotations)| {
            let mut message = json!({"role":"assistant","content":content});
            // An empty refusal cannot be told from none in a stream.
            let refusal = refusal.filter(|text| !text.is_empty());
            message["refusal"] = refusal.map_or(Value::Null, Value::from);
            if message["refusal"].is_string() {
                message["content"] = Value::Null;
            }
            let rest = [
                ("tool_calls", calls),
                ("function_call", function),
                ("audio", audio),
                ("annotations", annotations),
            ];
            for (name, value) in rest {
                if let Some(value) = value {
                    message[name] = value;
                }
            }
            message
        })
}

fn chat_answer() -> impl Strategy<Value = Value> {
    let choice = (message(), logprobs(), text());
    proptest::collection::vec(choice, 1..4).prop_map(|choices| {
        let choices: Vec<Value> = choices
            .into_iter()
            .enumerate()
            .map(|(index, (message, logprobs, extra))| {
                json!({"index":index,"message":message,"logprobs":logprobs,"finish_reason":"stop","extra":extra})
            })
            .collect();
        let mut answer = chat(json!(choices));
        answer["moderation"] = json!({"flagged":false});
        answer
    })
}

fn pretty_or_not(answer: &Value, pretty: bool) -> Vec<u8> {
    match pretty {
        true => serde_json::to_vec_pretty(answer).unwrap(),
        false => serde_json::to_vec(answer).unwrap(),
    }
}

proptest! {
    #[test]
    fn a_replayed_chat_assembles_to_itself(answer in chat_answer(), pretty: bool, crlf: bool, cut in 1usize..200) {
        // serde_json reads some numbers a last bit off, so both sides are read
        // from text.
        let bytes = pretty_or_not(&answer, pretty);
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let mut stream = replay(Endpoint::ChatCompletions, &bytes, true).unwrap();
        stream.splice(0..0, HEARTBEAT.iter().copied());
        if crlf {
            stream = String::from_utf8(stream).unwrap().replace('\n', "\r\n").into_bytes();
        }
        prop_assert_eq!(assemble(Endpoint::ChatCompletions, &stream, cut).unwrap(), answer);
    }

    #[test]
    fn a_replayed_completion_assembles_to_itself(texts in proptest::collection::vec(text(), 1..4), pretty: bool, cut in 1usize..200) {
        let choices: Vec<Value> = texts.iter().enumerate().map(|(index, text)| json!({"text":text,"index":index,
            "logprobs":{"tokens":[text],"text_offset":[0]},"finish_reason":"stop"})).collect();
        let answer = json!({"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":choices,"usage":{"total_tokens":1}});
        let stream = replay(Endpoint::Completions, &pretty_or_not(&answer, pretty), true).unwrap();
        prop_assert_eq!(assemble(Endpoint::Completions, &stream, cut).unwrap(), answer);
    }

    #[test]
    fn a_replayed_response_assembles_to_itself(text in text(), pretty: bool, cut in 1usize..200) {
        let mut answer = response();
        answer["output"][0]["summary"][0]["text"] = json!(text);
        answer["output"][2]["content"][0]["text"] = json!(text);
        answer["output"][3]["arguments"] = json!(text);
        let stream = replay(Endpoint::Responses, &pretty_or_not(&answer, pretty), false).unwrap();
        prop_assert_eq!(assemble(Endpoint::Responses, &stream, cut).unwrap(), answer);
    }

    #[test]
    fn nothing_panics(bytes: Vec<u8>, text in "(data: )?[\\[\\]{}\":,a-z0-9\\n]{0,60}", cut in 1usize..9) {
        for endpoint in Endpoint::ALL {
            // Random bytes are no answer and no stream.
            for input in [&bytes, text.as_bytes()] {
                prop_assert!(replay(endpoint, input, true).is_err());
                prop_assert!(assemble(endpoint, input, cut).is_err());
            }
        }
    }
}
