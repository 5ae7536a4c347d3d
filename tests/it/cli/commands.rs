//! What is asked of a running server, by its operator and by who calls.

use std::{fs, sync::Arc};

use serde_json::{Value, json};

use super::{KEY, OPERATOR, Said, World, job::Job, offpeak, said};
use crate::kill::hooks::Hooks;

impl World {
    /// What a command says of this server.
    async fn says(&self, args: &[&str]) -> Said {
        let mut command = offpeak(args);
        command.args(["--url", &self.base()]);
        said(command).await
    }

    async fn says_well(&self, args: &[&str]) -> String {
        let said = self.says(args).await;
        assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
        assert_eq!(said.err, "", "{args:?}");
        // No terminal reads it.
        assert!(!said.out.contains('\u{1b}'), "{said:?}");
        said.out
    }

    async fn says_json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_str(&self.says_well(&args).await).unwrap()
    }

    async fn answers(&self, path: &str, key: &str) -> Value {
        let call = client()
            .get(format!("{}{path}", self.base()))
            .bearer_auth(key);
        call.send().await.unwrap().json().await.unwrap()
    }
}

fn client() -> reqwest::Client {
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Lines of a table, less its head.
fn rows(table: &str) -> Vec<&str> {
    table
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_saved_and_what_was_asked() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 5);
    let done = job.run(&["--wait", "--tag", "nightly, \"b\""]).await;
    assert_eq!(done.code, Some(0), "{done:?}");

    let savings = world.answers("/offpeak/v1/savings", KEY).await;
    assert_eq!(world.says_json(&["savings"]).await, savings);
    assert_eq!(savings["total"]["requests"], 5);
    let paid = savings["total"]["paid_usd"].as_str().unwrap();
    let by_model = world.says_well(&["savings"]).await;
    assert!(rows(&by_model)[0].starts_with("gpt-4o-mini "), "{by_model}");
    assert!(rows(&by_model)[1].starts_with("all "), "{by_model}");
    let csv = world.says_well(&["savings", "--by", "tag", "--csv"]).await;
    let row = csv.lines().nth(1).unwrap();
    assert!(row.starts_with("\"nightly, \"\"b\"\"\",5,5,0,0,"), "{csv}");
    assert!(row.contains(paid), "{csv}");
    for by in ["lane", "day", "hour"] {
        let table = world.says_well(&["savings", "--by", by]).await;
        assert_eq!(rows(&table).len(), 2, "{table}");
    }

    let list = world
        .says_json(&["requests", "--limit", "3", "--status", "succeeded"])
        .await;
    assert_eq!(list["data"].as_array().unwrap().len(), 3);
    assert_eq!(list["has_more"], true);
    let none = world.says_well(&["requests", "--tag", "other"]).await;
    assert!(none.starts_with("There is no such request"), "{none}");
    let all = world
        .says_well(&["requests", "--tag", "nightly, \"b\"", "--since", "1h"])
        .await;
    assert_eq!(rows(&all).len(), 5, "{all}");
    let id = list["data"][0]["id"].as_str().unwrap();
    let shown = world.says_well(&["requests", "show", id]).await;
    assert!(shown.contains(id) && shown.contains("succeeded"), "{shown}");
    let request = world
        .answers(&format!("/offpeak/v1/requests/{id}"), KEY)
        .await;
    assert_eq!(world.says_json(&["requests", "show", id]).await, request);

    // Of one that has ended nothing can be cancelled; and another key sees nothing.
    let refused = world.says(&["requests", "cancel", id]).await;
    assert!(
        refused.code == Some(2) && refused.err.contains("409"),
        "{refused:?}"
    );
    let mut other = offpeak(&["requests", "show", id, "--url", &world.base()]);
    other.env("OPENAI_API_KEY", "sk-south.two");
    let refused = said(other).await;
    assert!(
        refused.code == Some(2) && refused.err.contains("404"),
        "{refused:?}"
    );
    let refused = world.says(&["requests", "show", "op_../x"]).await;
    assert!(
        refused.code == Some(2) && refused.err.contains("no id"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_pauses_and_looks_and_resumes() {
    let world = World::start(&[]).await;
    let paused = world.says_well(&["pause"]).await;
    assert!(paused.starts_with("paused: 0 open"), "{paused}");
    let job = Job::new(&world, 4);
    assert_eq!(job.run(&[]).await.code, Some(0));
    let status = world.says_json(&["status"]).await;
    assert_eq!(
        (&status["paused"], &status["requests"]["queued"]),
        (&json!(true), &json!(4))
    );

    let queued = world.says_json(&["requests", "--status", "queued"]).await;
    let id = queued["data"][0]["id"].as_str().unwrap();
    let cancelled = world.says_well(&["requests", "cancel", id]).await;
    assert_eq!(cancelled, format!("{id} is cancelled.\n"));

    let flushed = world.says(&["flush"]).await;
    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    let resumed = world.says_well(&["resume"]).await;
    assert!(resumed.starts_with("running: 3 open"), "{resumed}");
    // Cancelled by its caller: it stands in the output as such.
    let done = job.run(&["--wait"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let out = fs::read_to_string(job.out()).unwrap();
    let cancelled: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["response"]["status_code"] != 200)
        .collect();
    assert_eq!(cancelled.len(), 1, "{out}");
    assert_eq!(cancelled[0]["id"], id);
    assert_eq!(cancelled[0]["response"]["status_code"], 410);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_the_batches_and_what_all_have() {
    let world = World::start(&[]).await;
    let job = Job::new(&world, 6);
    let tagged = ["--wait", "--tag", "north"];
    assert_eq!(job.run(&tagged).await.code, Some(0));
    let batches = world.answers("/offpeak/admin/batches", OPERATOR).await;
    let of_all = batches["data"].as_array().unwrap();
    assert!(!of_all.is_empty());
    assert_eq!(world.says_json(&["batches"]).await, batches);
    let table = world.says_well(&["batches"]).await;
    assert_eq!(rows(&table).len(), of_all.len(), "{table}");
    let id = of_all[0]["id"].as_str().unwrap();
    assert!(rows(&table)[0].starts_with(id), "{table}");
    let one = world.says_json(&["batches", "--limit", "1"]).await;
    assert_eq!(one["data"].as_array().unwrap().len(), 1);

    // Of all tenants, whose key nobody shows.
    let mut command = offpeak(&["requests", "--all", "--json", "--url", &world.base()]);
    command.env_remove("OPENAI_API_KEY");
    let all = said(command).await;
    assert_eq!(all.code, Some(0), "{all:?}");
    let all: Value = serde_json::from_str(&all.out).unwrap();
    assert_eq!(all["data"].as_array().unwrap().len(), 6);
    let table = world.says_well(&["requests", "--all"]).await;
    assert!(table.lines().next().unwrap().contains("tenant"), "{table}");
    let id = all["data"][0]["id"].as_str().unwrap();
    let shown = world.says_json(&["requests", "show", id, "--all"]).await;
    assert_eq!(shown["id"], id);
    let savings = world.says_json(&["savings", "--all"]).await;
    assert_eq!(savings["total"]["requests"], 6);
    let by_tenant = world
        .says_well(&["savings", "--by", "tenant", "--all"])
        .await;
    assert_eq!(rows(&by_tenant).len(), 2, "{by_tenant}");
    let dead = world.says_json(&["webhooks", "--all"]).await;
    assert_eq!(dead["data"], json!([]));

    let copy = world.path().join("copy.backup");
    let data = world.path().join("data");
    let copied = world
        .says_json(&[
            "backup",
            copy.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
        ])
        .await;
    assert_eq!(copied["object"], "offpeak.backup");
    assert!(copied["records"].as_u64().unwrap() > 6, "{copied}");
    assert!(copy.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_listed_tested_and_sent_again() {
    let hooks = Hooks::start(Arc::default()).await;
    let receiver = hooks.url.trim_end_matches("/hook");
    let world = World::start(&[
        (
            "OFFPEAK_WEBHOOK__ALLOW",
            &format!("{receiver},http://127.0.0.1:1"),
        ),
        ("OFFPEAK_WEBHOOK__HORIZON", "1ms"),
    ])
    .await;
    let nobody = "http://127.0.0.1:1/hook";
    // A key that has called has a secret.
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]});
    let call = client()
        .post(format!("{}/v1/chat/completions", world.base()))
        .bearer_auth(KEY)
        .header("offpeak-deadline", "1h")
        .header("offpeak-webhook", nobody)
        .json(&body);
    let reply = call.send().await.unwrap();
    assert_eq!(reply.status(), 202);
    let id = reply.headers()["offpeak-request-id"]
        .to_str()
        .unwrap()
        .to_owned();

    let taken = world.says_well(&["webhooks", "test", &hooks.url]).await;
    assert!(taken.contains("took it"), "{taken}");
    let refused = world.says(&["webhooks", "test", nobody]).await;
    assert!(
        refused.code == Some(1) && refused.out.contains("did not take it"),
        "{refused:?}"
    );
    let dead = loop {
        let dead = world.says_json(&["webhooks", "--dead"]).await;
        if dead["data"].as_array().is_some_and(|dead| !dead.is_empty()) {
            break dead;
        }
    };
    assert_eq!(dead["data"][0]["request_id"], id);
    let table = world.says_well(&["webhooks"]).await;
    assert!(
        rows(&table)[0].starts_with(&format!("{id}  dead ")),
        "{table}"
    );
    let again = world.says_well(&["webhooks", "redeliver", nobody]).await;
    assert_eq!(
        again,
        format!("1 dead letters of {nobody} are sent again.\n")
    );
    let again = world.says_well(&["webhooks", "redeliver", &id]).await;
    assert_eq!(again, format!("{id} is sent again.\n"));
}

const OF_A_CALLER: [&[&str]; 4] = [
    &["savings"],
    &["requests"],
    &["requests", "show", "op_01kap9kdcg0000040000000000"],
    &["webhooks"],
];

const OF_AN_OPERATOR: [&[&str]; 9] = [
    &["savings", "--all"],
    &["requests", "--all"],
    &["batches"],
    &["webhooks", "--all"],
    &["keys", "list"],
    &["status"],
    &["pause"],
    &["shadow", "--all"],
    &["watch"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_or_finds_nobody_is_told() {
    let world = World::start(&[]).await;
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    for args in OF_A_CALLER.iter().chain(&OF_AN_OPERATOR) {
        let nobody = said({
            let mut command = offpeak(args);
            command.args(["--url", "http://127.0.0.1:1"]);
            command
        });
        let nobody = nobody.await;
        assert_eq!(nobody.code, Some(2), "{args:?}: {nobody:?}");
        assert!(
            nobody
                .err
                .contains("no answer from an Offpeak at http://127.0.0.1:1"),
            "{nobody:?}"
        );

        let mut keyless = offpeak(args);
        keyless
            .args(["--url", &world.base(), "--data-dir", empty])
            .env_remove("OPENAI_API_KEY")
            .env_remove("OFFPEAK_ADMIN_TOKEN");
        let keyless = said(keyless).await;
        assert_eq!(keyless.code, Some(2), "{args:?}: {keyless:?}");
        assert!(keyless.err.contains("is not set"), "{args:?}: {keyless:?}");
    }
    for args in OF_AN_OPERATOR {
        let mut wrong = offpeak(args);
        wrong
            .args(["--url", &world.base()])
            .env("OFFPEAK_ADMIN_TOKEN", "wrong");
        let wrong = said(wrong).await;
        assert_eq!(wrong.code, Some(2), "{args:?}: {wrong:?}");
        assert!(wrong.err.contains("401"), "{args:?}: {wrong:?}");
        assert!(!wrong.err.contains(OPERATOR));
    }
    // The token is where the server wrote it.
    fs::write(format!("{empty}/admin.token"), format!("{OPERATOR}\n")).unwrap();
    let mut found = offpeak(&["status", "--url", &world.base(), "--data-dir", empty]);
    found.env_remove("OFFPEAK_ADMIN_TOKEN");
    let found = said(found).await;
    assert_eq!(found.code, Some(0), "{found:?}");
}
