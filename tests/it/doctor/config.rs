use std::fs;

use serde_json::{Value, json};

use super::offpeak;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A file with this in it.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("offpeak.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[tokio::test]
async fn what_differs_is_told_with_its_source_and_without_secrets() {
    let (_dir, path) = file(&format!(
        "[packing]\nlinger = '200ms'\nmax_lines = 50_000\n\
         [server]\nlisten = '0.0.0.0:8080'\n\
         [webhook.endpoints.billing]\n\
         url = 'https://hooks.example.com/private-path?token=hidden'\nsecret = '{SECRET}'\n"
    ));
    let environment = [
        ("OFFPEAK_WATCH__POLL_MAX", "5m"),
        ("OFFPEAK_PACKING__LINGER", "300ms"),
    ];
    let args = ["config", "check", "--json", "--config", &path];
    let ended = offpeak(&args, &environment).await;
    let told = ended.json();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(told["valid"], true);
    let in_file = format!("in {path}");
    let row = |key: &str, value: &str, default: Value, origin: &str| json!({"key": key, "value": value, "default": default, "origin": origin});
    let expected = json!([
        row(
            "packing.linger",
            "\"300ms\"",
            json!("\"5s\""),
            "in the variable OFFPEAK_PACKING__LINGER"
        ),
        row(
            "server.listen",
            "\"0.0.0.0:8080\"",
            json!("\"127.0.0.1:8080\""),
            &in_file
        ),
        row(
            "watch.poll_max",
            "\"5m\"",
            json!("\"2m\""),
            "in the variable OFFPEAK_WATCH__POLL_MAX"
        ),
        row(
            "webhook.endpoints.billing.secret",
            "not shown",
            Value::Null,
            &in_file
        ),
        row(
            "webhook.endpoints.billing.url",
            "\"https://hooks.example.com/\", and more that is not shown",
            Value::Null,
            &in_file
        ),
    ]);
    assert_eq!(told["settings"], expected);
    let warning = told["warnings"][0].as_str().unwrap();
    assert!(warning.contains("not loopback"), "{warning}");

    let text = offpeak(&args[..2], &environment).await;
    assert!(text.stdout.starts_with("2 settings differ"), "{text}");
    let text = offpeak(&["config", "check", "--config", &path], &environment).await;
    assert!(text.stdout.contains("warning: server.listen"), "{text}");
    for said in [ended.said(), text.said()] {
        for hidden in [SECRET, "hidden", "private-path"] {
            assert!(!said.contains(hidden), "{said}");
        }
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_in_the_words_of_serve() {
    let (_dir, path) = file(
        "[packing]\nlingr = '5s'\nlinger = 'soon'\n\
         [admission]\non_full = 'drop'\n\
         [server]\nmax_connections = 0\n\
         [auth]\nmode = 'keys'\n[auth.upstream.default]\nkey_env = 'NO_SUCH_KEY'\n\
         [webhook]\nallow = ['not an entry']\n\
         [log]\nfilter = 'loud=very'\n",
    );
    let environment = [
        ("OFFPEAK_SHADOW__DEADLINE", "30days"),
        ("OFFPEAK_MASTER_KEY", "short-but-secret"),
    ];
    let check = ["config", "check", "--json", "--config", &path];
    let ended = offpeak(&check, &environment).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    let told = ended.json();
    assert_eq!(told["valid"], false);
    let errors = told["errors"].as_array().unwrap();
    let messages: Vec<&str> = errors
        .iter()
        .map(|it| it["message"].as_str().unwrap())
        .collect();
    for says in [
        "there is no setting `packing.lingr`",
        "the nearest is `packing.linger`",
        "`packing.linger` is \"soon\"",
        "`admission.on_full` is \"drop\"",
        "server.max_connections",
        "the variable NO_SUCH_KEY is not set",
        "not an entry",
        "log.filter: `loud=very`",
        "`shadow.deadline` is \"30days\"",
        "the master key is not 32 bytes",
    ] {
        let found = messages.iter().filter(|message| message.contains(says));
        assert_eq!(found.count(), 1, "{says}: {messages:#?}");
    }
    assert_eq!(errors.len(), 9, "{messages:#?}");
    assert!(!ended.said().contains("short-but-secret"));

    let serve = offpeak(&["serve", "--config", &path], &environment).await;
    assert_eq!(serve.code, Some(2), "{serve}");
    let first = serve.stderr.trim().strip_prefix("offpeak: ").unwrap();
    assert!(messages.contains(&first), "{first}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_apart() {
    let (_dir, path) = file("[packing\n");
    for (path, says) in [
        (path.as_str(), "not valid TOML"),
        ("/nonexistent/offpeak.toml", "cannot read the settings"),
    ] {
        let ended = offpeak(&["config", "check", "--config", path], &[]).await;
        assert_eq!(ended.code, Some(2), "{ended}");
        assert!(ended.stdout.contains(says), "{ended}");
    }
    let ended = offpeak(&["config", "check"], &[]).await;
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stdout.contains("at their defaults"), "{ended}");
}

#[tokio::test]
async fn a_file_of_prices_is_read_too() {
    let (_dir, prices) = file("[models.mine]\nstandard = { input = 'free', output = '1' }\n");
    let environment = [("OFFPEAK_PRICES__FILE", prices.as_str())];
    let ended = offpeak(&["config", "check", "--json"], &environment).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    let errors = ended.json()["errors"].clone();
    assert_eq!(errors[0]["key"], "prices.file", "{ended}");
    assert_eq!(errors.as_array().unwrap().len(), 1, "{ended}");
}
