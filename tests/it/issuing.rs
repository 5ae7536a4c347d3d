//! `offpeak serve` and `offpeak keys` as processes: what an operator types, and what is
//! said in the log.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use offpeak::{
    app::SystemClock,
    simulator::{self, Simulator},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

const UPSTREAM_KEY: &str = "sk-secret-of-the-server";

fn offpeak() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offpeak"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Killed when dropped.
struct Server {
    child: Child,
    base: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// With everything in the log that there is to say.
fn serve(upstream: &str, dir: &Path) -> Server {
    let config = dir.join("offpeak.toml");
    let keys = "[auth]\nmode = \"keys\"\n[auth.upstream.default]\nkey_env = \"MY_KEY\"\n";
    fs::write(&config, keys).unwrap();
    let mut child = offpeak()
        .args(["serve", "--listen", "127.0.0.1:0", "--upstream", upstream])
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--config")
        .arg(config)
        .env("MY_KEY", UPSTREAM_KEY)
        .env("OFFPEAK_LOG", "trace")
        .env("OFFPEAK_STORE__RESERVE_BYTES", "0")
        .stdout(Stdio::piped())
        .stderr(
            File::options()
                .create(true)
                .append(true)
                .open(dir.join("log"))
                .unwrap(),
        )
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let base = line.split(' ').nth(3).unwrap_or_default().to_owned();
    assert!(base.starts_with("http://"), "{line}");
    Server { child, base }
}

/// What `offpeak keys` says; its exit code, output and errors.
fn keys(base: &str, dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = offpeak()
        .arg("keys")
        .args(args)
        .args(["--url", base, "--data-dir"])
        .arg(dir.join("data"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

async fn call(base: &str, key: &str, deadline: Option<&str>) -> u16 {
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = serde_json::json!({"model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hello"}]});
    let mut call = http
        .post(format!("{base}/v1/chat/completions"))
        .bearer_auth(key)
        .header("prefer", "respond-async")
        .json(&body);
    if let Some(deadline) = deadline {
        call = call.header("offpeak-deadline", deadline);
    }
    call.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_issues_lists_and_revokes_and_no_key_is_in_the_log() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
    let provider = Simulator::new(simulator::Settings::default(), SystemClock::new().now());
    let mut serving = JoinSet::new();
    serving.spawn(simulator::serve(
        listener,
        provider,
        CancellationToken::new(),
    ));
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = serve(&upstream, dir);
    let base = server.base.clone();

    let (code, none, _) = keys(&base, dir, &["list"]);
    assert!(code == 0 && none.starts_with("No keys"), "{none}");
    let (code, told, said) = keys(
        &base,
        dir,
        &[
            "create",
            "--name",
            "nightly evals",
            "--model",
            "gpt-4o*",
            "--rate",
            "600",
            "--budget-usd-per-month",
            "25",
            "--expires",
            "90days",
            "--allow-passthrough",
        ],
    );
    assert_eq!((code, said.as_str()), (0, ""), "{told}");
    let key = told.lines().last().unwrap().to_owned();
    assert!(key.starts_with("ofp_") && key.len() == 47, "{told}");
    let (_, list, _) = keys(&base, dir, &["list", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let row = &list["data"][0];
    let id = row["id"].as_str().unwrap().to_owned();
    for (field, expected) in [
        ("name", serde_json::json!("nightly evals")),
        ("models", serde_json::json!(["gpt-4o*"])),
        ("requests_per_minute", serde_json::json!(600)),
        ("budget_usd_per_month", serde_json::json!("25.00")),
        ("passthrough", serde_json::json!(true)),
        ("upstream", serde_json::json!("default")),
    ] {
        assert_eq!(row[field], expected, "{field}");
    }
    assert_eq!(call(&base, &key, None).await, 200);
    assert_eq!(call(&base, &key, Some("6h")).await, 202);
    assert_eq!(call(&base, "ofp_guess", Some("6h")).await, 401);

    // A kill, and it is known again; revoked, and it is not.
    drop(server);
    let server = serve(&upstream, dir);
    let base = server.base.clone();
    assert_eq!(call(&base, &key, None).await, 200);
    let (code, told, _) = keys(&base, dir, &["revoke", &id]);
    assert!(
        code == 0 && told.contains(&id) && told.contains("nightly evals"),
        "{told}"
    );
    assert_eq!(call(&base, &key, None).await, 401);
    let (_, table, _) = keys(&base, dir, &["list"]);
    assert!(
        table.contains("revoked") && !table.contains(&key),
        "{table}"
    );
    drop(server);
    let server = serve(&upstream, dir);
    assert_eq!(call(&server.base, &key, None).await, 401);

    for (args, says) in [
        (&["create", "--name", ""][..], "`name` takes 1 to 128"),
        (
            &["create", "--name", "a", "--expires", "soon"],
            "`soon` is no time",
        ),
        (
            &["create", "--name", "a", "--upstream", "eu"],
            "names no `eu`",
        ),
        (
            &["create", "--name", "a", "--budget-usd-per-month", "x"],
            "`x` is no amount",
        ),
        (
            &["revoke", "ok_01kap9kdcg0000040000000000"],
            "No key `ok_01kap9kdcg0000040000000000`",
        ),
        (&["revoke", "../status"], "is no id of this kind"),
    ] {
        let (code, out, said) = keys(&server.base, dir, args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
    let (code, _, said) = keys(&server.base, Path::new("/nowhere"), &["list"]);
    assert!(
        code == 2 && said.contains("/nowhere/data/admin.token"),
        "{said}"
    );
    drop(server);

    let log = fs::read_to_string(dir.join("log")).unwrap();
    assert!(
        log.contains("nightly evals") && log.contains(&id),
        "what is logged is found"
    );
    for secret in [&key[..], &key[4..], UPSTREAM_KEY] {
        assert!(!log.contains(secret));
    }
    serving.shutdown().await;
}

#[test]
fn a_variable_that_is_not_set_is_told_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for (variables, says) in [
        (&[][..], "the variable MY_KEY is not set"),
        (&[("MY_KEY", "")], "the variable MY_KEY is not set"),
        (&[("MY_KEY", "sk two")], "the variable MY_KEY, which"),
    ] {
        let output = offpeak()
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .env("OFFPEAK_AUTH__MODE", "keys")
            .env("OFFPEAK_AUTH__UPSTREAM__DEFAULT__KEY_ENV", "MY_KEY")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && !said.contains("sk two"), "{said}");
    }
    assert!(!dir.path().join("store").exists(), "nothing was begun");
}
