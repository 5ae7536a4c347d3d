//! A receiver of webhooks: whether it may be called, is reached, and takes an event.

use http::Method;
use serde_json::json;

use super::{
    connect::connect,
    http::{Said, ask, bearer},
    report::{Check, span},
};
use crate::delivery::{self, Guard, Sender, guard::Route};

const NAME: &str = "webhook";

/// `target` is a URL, or the name of a configured endpoint. The way there is tried by
/// the rules of the server that these settings are of.
pub async fn reach(settings: &delivery::Settings, target: &str) -> Check {
    let refused = |why: String| {
        Check::failed(NAME, format!("It is not called: {why}."))
            .advise("Targets are https and public, or listed in webhook.allow.")
    };
    let (sender, guard) = match (Sender::new(settings.clone()), Guard::new(&settings.allow)) {
        (Ok(sender), Ok(guard)) => (sender, guard),
        _ => return Check::skipped(NAME, "The settings of [webhook] are not valid."),
    };
    let url = match sender.resolve_target(target) {
        Ok(target) => target.url,
        Err(why) => return refused(why.to_string()),
    };
    let route = match guard.check_url(&url) {
        Ok(route) => route,
        Err(why) => return refused(why.to_string()),
    };
    let admits = |address| match route {
        Route::Listed => Ok(()),
        Route::Public => guard.check_address(address),
    };
    match connect(&url, admits).await {
        Ok(steps) => {
            let tls = steps
                .tls
                .map_or(String::new(), |it| format!(", TLS {}", span(it)));
            let host = url.host_str().unwrap_or_default();
            let took = format!("name {}, TCP {}{tls}", span(steps.name), span(steps.tcp));
            Check::ok(
                NAME,
                format!("{host} may be called and is reached: {took}."),
            )
        }
        Err(obstacle) => Check::failed(NAME, obstacle.says).advise(obstacle.advice),
    }
}

/// Has the running server send a test event, signed and guarded as all are.
pub async fn test(http: &reqwest::Client, server: &str, key: &str, target: &str) -> Check {
    let url = format!("{server}/offpeak/v1/webhooks/test");
    let body = json!({"target": target});
    tested(ask(http, Method::POST, &url, &bearer(key), Some(&body)).await)
}

const TEST: &str = "webhook test";

/// Without a server or a caller's key.
pub fn untested() -> Check {
    Check::skipped(
        TEST,
        "A test event takes a running server, and OPENAI_API_KEY to be a key that calls it.",
    )
}

fn tested(answer: Result<Said, String>) -> Check {
    let said = match answer {
        Ok(said) => said,
        Err(why) => return Check::failed(TEST, format!("The server does not answer: {why}.")),
    };
    let answered = said.body["status_code"].as_u64();
    match said.status {
        200 if said.body["delivered"] == true => {
            let status = answered.map_or(String::new(), |status| format!(" ({status})"));
            Check::ok(TEST, format!("The receiver took a test event{status}."))
        }
        200 => {
            let why = said.body["error"].as_str().unwrap_or("it does not say why");
            Check::failed(
                TEST,
                format!("The receiver did not take a test event: {why}."),
            )
            .advise("See the receiver's log; `GET /offpeak/v1/webhook-secret` has the secret.")
        }
        403 if said.code() == Some("no_calls_yet") => Check::skipped(
            TEST,
            "No call with a deadline was made with OPENAI_API_KEY yet.",
        )
        .advise("Send one first: only who calls may have others called."),
        status => {
            let says = format!("No test event was sent ({status}): {}", said.message());
            Check::failed(TEST, says)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{http::tests::said, report::Verdict};

    #[test]
    fn how_a_test_event_ended() {
        for (status, text, verdict, says) in [
            (
                200,
                r#"{"delivered":true,"status_code":204}"#,
                Verdict::Ok,
                "(204)",
            ),
            (
                200,
                r#"{"delivered":false,"status_code":503,"error":"it said 503"}"#,
                Verdict::Failed,
                "it said 503",
            ),
            (
                403,
                r#"{"error":{"code":"no_calls_yet","message":"m"}}"#,
                Verdict::Skipped,
                "No call",
            ),
            (
                400,
                r#"{"error":{"code":"invalid_webhook","message":"Not that."}}"#,
                Verdict::Failed,
                "Not that.",
            ),
        ] {
            let check = tested(Ok(said(status, text)));
            assert_eq!(check.verdict, verdict, "{}", check.says);
            assert!(check.says.contains(says), "{}", check.says);
        }
    }
}
