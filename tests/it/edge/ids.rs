//! 202, polling, cancelling, erasing: what an `op_…` id is good for.

use offpeak::simulator;
use serde_json::json;

use super::{CHAT, SIX_HOURS, chat, response};
use crate::{app::TestApp, wire::Caller};

const ASYNC: &[&str] = &[SIX_HOURS, "prefer: respond-async"];

async fn queue(caller: &mut Caller, line: &str, body: String) -> String {
    let answer = caller.call(line, ASYNC, body).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    answer.head.id()
}

#[tokio::test]
async fn every_endpoints_stub_has_its_own_shape_and_is_answered() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    for (path, body, list) in [
        ("chat/completions", chat("stub", ""), "choices"),
        ("responses", response("stub", json!({})), "output"),
        (
            "embeddings",
            json!({"model": "text-embedding-3-small", "input": ["stub", "two"]}).to_string(),
            "data",
        ),
        (
            "completions",
            json!({"model": "gpt-3.5-turbo-instruct", "prompt": "stub"}).to_string(),
            "choices",
        ),
        (
            "moderations",
            json!({"model": "omni-moderation-latest", "input": "stub"}).to_string(),
            "results",
        ),
    ] {
        let answer = caller.call(&format!("POST /v1/{path}"), ASYNC, body).await;
        assert_eq!(answer.status(), 202, "{path}: {}", answer.text());
        let (stub, id) = (answer.json(), answer.head.id());
        assert_eq!(stub["id"], json!(id), "{path}");
        assert_eq!(stub["status"], "queued", "{path}");
        assert_eq!(stub[list], json!([]), "{path}");
        assert_eq!(answer.head.value("preference-applied"), "respond-async");
        let done = caller
            .call(
                &format!("GET /within/6h/v1/{path}/{id}"),
                &["prefer: wait=60"],
                "",
            )
            .await;
        assert_eq!(done.status(), 200, "{path}: {}", done.text());
        assert!(!done.json()[list].as_array().unwrap().is_empty(), "{path}");
        assert_eq!(done.head.id(), id);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_poll_never_waits_and_a_long_poll_is_woken() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let id = queue(&mut caller, CHAT, chat("polled", "slow=500ms")).await;
    let get = format!("GET /v1/chat/completions/{id}");
    let pending = caller.call(&get, &[], "").await;
    assert_eq!(pending.status(), 202);
    assert!(pending.head.get("retry-after").is_some());
    let done = caller.call(&get, &["prefer: wait=60"], "").await;
    assert_eq!(done.status(), 200);
    let again = caller.call(&get, &[], "").await;
    assert_eq!(again.body, done.body, "byte for byte, as often as asked");
    app.finish().await;
}

#[tokio::test]
async fn whose_id_it_is_not_finds_nothing() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let id = queue(&mut caller, CHAT, chat("mine", "never")).await;
    let table: &[(&str, &[&str])] = &[
        (
            "GET /v1/chat/completions/ID",
            &["authorization: Bearer sk-other"],
        ),
        (
            "DELETE /v1/chat/completions/ID",
            &["authorization: Bearer sk-other"],
        ),
        (
            "POST /v1/chat/completions/ID/cancel",
            &["authorization: Bearer sk-other"],
        ),
        ("GET /v1/responses/ID", &[]),
        ("GET /v1/chat/completions/ID/messages", &[]),
        ("GET /v1/responses/ID/input_items", &[]),
        ("POST /v1/chat/completions/ID", &[]),
        ("GET /v1/chat/completions/op_1", &[]),
        (
            "GET /v1/chat/completions/op_00000000000000000000000000",
            &[],
        ),
        ("GET /v1/chat/completions?after=ID", &[]),
    ];
    let calls = app.simulator.log().operations;
    for (line, headers) in table {
        let line = line.replace("ID", &id);
        let answer = caller.call(&line, headers, "").await;
        assert_eq!(answer.status(), 404, "{line}");
        assert_eq!(answer.error_code(), "not_found");
        assert_eq!(answer.head.value("x-should-retry"), "false");
    }
    let others = |operation: &simulator::Operation| {
        use simulator::Operation::*;
        matches!(
            operation,
            GetChat | DeleteChat | GetResponse | CancelResponse | Other
        )
    };
    for (operation, count) in app.simulator.log().operations {
        if others(&operation) {
            assert_eq!(
                calls.get(&operation),
                Some(&count),
                "{operation:?} went upstream"
            );
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn cancelling_ends_it_once() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let id = queue(&mut caller, CHAT, chat("cancelled", "never")).await;
    let get = format!("GET /v1/chat/completions/{id}");
    let mut waiting = app.caller().await;
    waiting.send(&get, &["prefer: wait=60"], "").await;
    let cancel = format!("POST /v1/chat/completions/{id}/cancel");
    for _ in 0..2 {
        let answer = caller.call(&cancel, &[], "").await;
        assert_eq!(
            (answer.status(), answer.error_code().as_str()),
            (410, "request_cancelled")
        );
        assert_eq!(answer.head.value("x-should-retry"), "false");
        assert_eq!(answer.head.value("offpeak-status"), "cancelled");
    }
    assert_eq!(waiting.answer().await.status(), 410, "who waits is told");
    assert_eq!(caller.call(&get, &[], "").await.status(), 410);

    let id = queue(
        &mut caller,
        "POST /v1/responses",
        response("r", json!({"metadata": {"sim": "never"}})),
    )
    .await;
    let answer = caller
        .call(&format!("POST /v1/responses/{id}/cancel"), &[], "")
        .await;
    assert_eq!(
        (answer.status(), &answer.json()["status"]),
        (200, &json!("cancelled"))
    );
    let answer = caller
        .call(&format!("GET /v1/responses/{id}"), &[], "")
        .await;
    assert_eq!(
        (answer.status(), &answer.json()["status"]),
        (200, &json!("cancelled"))
    );

    let id = queue(&mut caller, CHAT, chat("too late", "")).await;
    let done = caller
        .call(
            &format!("GET /v1/chat/completions/{id}"),
            &["prefer: wait=60"],
            "",
        )
        .await;
    let late = caller
        .call(&format!("POST /v1/chat/completions/{id}/cancel"), &[], "")
        .await;
    assert_eq!(
        (late.status(), late.body),
        (200, done.body),
        "its answer stands"
    );
    app.finish().await;
}

#[tokio::test]
async fn erasing_leaves_nothing() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let done = queue(&mut caller, CHAT, chat("done", "")).await;
    caller
        .call(
            &format!("GET /v1/chat/completions/{done}"),
            &["prefer: wait=60"],
            "",
        )
        .await;
    let open = queue(&mut caller, CHAT, chat("open", "never")).await;
    for id in [open, done] {
        let path = format!("/v1/chat/completions/{id}");
        let answer = caller.call(&format!("DELETE {path}"), &[], "").await;
        assert_eq!(answer.status(), 200);
        let deleted = json!({"id": id, "object": "chat.completion.deleted", "deleted": true});
        assert_eq!(answer.json(), deleted);
        assert_eq!(
            caller.call(&format!("GET {path}"), &[], "").await.status(),
            404
        );
        assert_eq!(
            caller
                .call(&format!("DELETE {path}"), &[], "")
                .await
                .status(),
            404
        );
    }
    app.finish().await;
}

#[tokio::test]
async fn a_caller_who_holds_hears_of_a_cancel_and_of_an_erasure() {
    let app = TestApp::start().await;
    for (act, question) in [("POST", "held, cancelled"), ("DELETE", "held, erased")] {
        let mut holder = app.caller().await;
        let headers = [SIX_HOURS, "idempotency-key: k"];
        let body = chat(question, "never");
        let key = format!("idempotency-key: {act}");
        let headers = [headers[0], key.as_str()];
        holder.send(CHAT, &headers, &body).await;
        // The same key joins the request that is held, and tells its id.
        let mut other = app.caller().await;
        let async_headers = [SIX_HOURS, key.as_str(), "prefer: respond-async"];
        let id = other.call(CHAT, &async_headers, &body).await.head.id();
        let line = match act {
            "POST" => format!("POST /v1/chat/completions/{id}/cancel"),
            _ => format!("DELETE /v1/chat/completions/{id}"),
        };
        other.call(&line, &[], "").await;
        let answer = holder.answer().await;
        assert_eq!(answer.status(), 410, "{act}: {}", answer.text());
        assert_eq!(answer.head.value("x-should-retry"), "false");
    }
    app.finish().await;
}

#[tokio::test]
async fn who_joins_what_has_ended_gets_the_answer() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let streamed = json!({
        "model": "gpt-4o-mini", "stream": true,
        "messages": [{"role": "user", "content": "joined stream"}],
    });
    for (line, how, body) in [
        (CHAT, "prefer: respond-async", chat("joined", "")),
        (CHAT, "prefer: wait=0", chat("joined", "wait")),
        (CHAT, "prefer: wait=0", streamed.to_string()),
        (
            "POST /v1/responses",
            "offpeak-tag: t",
            response("joined", json!({"background": true})),
        ),
    ] {
        let key = format!("idempotency-key: {}", body.len());
        let headers = [SIX_HOURS, how, key.as_str()];
        let first = caller.call(line, &headers, &body).await;
        assert_eq!(first.status(), 202, "{}", first.text());
        let get = format!("GET {}/{}", &line[5..], first.head.id());
        let done = caller.call(&get, &["prefer: wait=60"], "").await;
        assert_eq!(done.status(), 200, "{}", done.text());
        let again = caller.call(line, &headers, &body).await;
        assert_eq!(
            (again.status(), again.head.value("offpeak-status")),
            (200, "succeeded"),
            "{how} {body}"
        );
        assert_eq!(again.head.id(), first.head.id());
        match body.contains("stream") {
            true => assert!(again.text().contains("data: [DONE]"), "{}", again.text()),
            false => assert_eq!(again.body, done.body, "{how} {body}"),
        }
    }
    let headers = [SIX_HOURS, "prefer: respond-async", "idempotency-key: gone"];
    let id = caller
        .call(CHAT, &headers, chat("cancelled then", "never"))
        .await
        .head
        .id();
    let cancel = format!("POST /v1/chat/completions/{id}/cancel");
    assert_eq!(caller.call(&cancel, &[], "").await.status(), 410);
    let again = caller
        .call(CHAT, &headers, chat("cancelled then", "never"))
        .await;
    assert_eq!(
        (again.status(), again.error_code().as_str()),
        (410, "request_cancelled")
    );
    app.finish().await;
}

#[tokio::test]
async fn background_mode_is_another_way_to_say_it() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let body = response("background", json!({"background": true}));
    let answer = caller.call("POST /v1/responses", &[SIX_HOURS], body).await;
    assert_eq!(answer.status(), 202);
    let stub = answer.json();
    assert_eq!(stub["object"], "response");
    assert_eq!(
        (&stub["status"], &stub["background"]),
        (&json!("queued"), &json!(true))
    );
    let id = answer.head.id();
    let done = caller
        .call(&format!("GET /v1/responses/{id}"), &["prefer: wait=60"], "")
        .await;
    assert_eq!(
        (done.status(), &done.json()["status"]),
        (200, &json!("completed"))
    );
    let streamed = caller
        .call(&format!("GET /v1/responses/{id}?stream=true"), &[], "")
        .await;
    assert_eq!(
        (streamed.status(), streamed.error_code().as_str()),
        (400, "stream_unsupported")
    );
    app.finish().await;
}

#[tokio::test]
async fn a_previous_response_is_named_by_the_providers_id() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let line = "POST /v1/responses";
    let first = queue(&mut caller, line, response("first", json!({}))).await;
    let done = caller
        .call(
            &format!("GET /v1/responses/{first}"),
            &["prefer: wait=60"],
            "",
        )
        .await;
    let provider_id = done.json()["id"].as_str().unwrap().to_owned();
    let next = response("second", json!({"previous_response_id": first}));
    let second = caller.call(line, &[SIX_HOURS], next).await;
    assert_eq!(second.status(), 200, "{}", second.text());
    let log = app.simulator.log();
    let seen = log
        .requests
        .iter()
        .find(|request| request.prompt.contains("second"))
        .unwrap();
    let body = seen.body.as_deref().unwrap();
    assert!(
        body.contains(&provider_id) && !body.contains("op_"),
        "{body}"
    );

    let pending = queue(
        &mut caller,
        line,
        response("p", json!({"metadata": {"sim": "never"}})),
    )
    .await;
    let chat_id = queue(&mut caller, CHAT, chat("no response", "")).await;
    for (id, code) in [
        (pending.as_str(), "previous_response_not_ready"),
        (&chat_id, "previous_response_not_found"),
        (
            "op_00000000000000000000000000",
            "previous_response_not_found",
        ),
        ("op_x", "previous_response_not_found"),
    ] {
        let body = response("third", json!({"previous_response_id": id}));
        let answer = caller.call(line, &[SIX_HOURS], body).await;
        assert_eq!((answer.status(), answer.error_code().as_str()), (400, code));
    }
    app.finish().await;
}
