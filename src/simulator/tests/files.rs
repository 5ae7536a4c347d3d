use serde_json::Value;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_file_is_kept_listed_read_and_deleted() {
    let bench = Bench::new();
    let content = input(&["", ""]);
    let id = bench.upload(&content).await;
    let file = bench.get(&format!("/v1/files/{id}")).await.json();
    assert_eq!(file["object"], "file");
    assert_eq!(file["bytes"], content.len());
    assert_eq!(file["filename"], "in.jsonl");
    assert_eq!(file["purpose"], "batch");
    assert_eq!(file["created_at"], START);
    assert_eq!(file["expires_at"], Value::Null);
    assert_eq!(
        bench.get(&format!("/v1/files/{id}/content")).await.text,
        content
    );
    let list = bench.get("/v1/files?purpose=batch").await.json();
    assert_eq!(list["data"][0]["id"], id);
    let none = bench.get("/v1/files?purpose=batch_output").await.json();
    assert_eq!(none["data"], json!([]));
    let other = bench
        .call_as("sk-other", "GET", &format!("/v1/files/{id}"), "")
        .await;
    assert_eq!(other.status, 404);
    let path = format!("/v1/files/{id}");
    let deleted = bench.call_as("sk-test", "DELETE", &path, "").await.json();
    assert_eq!(
        deleted,
        json!({"id": id, "object": "file", "deleted": true})
    );
    assert_eq!(bench.get(&path).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn what_an_upload_refuses() {
    let bench = Bench::with(|settings| settings.limits.file_bytes = 2_000);
    let good = input(&[""]);
    let seconds = |seconds: &'static str| {
        let anchor = ("expires_after[anchor]", "created_at");
        vec![
            ("purpose", "batch"),
            anchor,
            ("expires_after[seconds]", seconds),
        ]
    };
    let now = ("expires_after[anchor]", "now");
    for (fields, content, status) in [
        (vec![("purpose", "batch")], good.as_str(), 200),
        (vec![("purpose", "batch")], "", 400),
        (vec![("purpose", "batch")], "{oops\n", 400),
        (vec![("purpose", "batch")], &"x".repeat(2_001), 413),
        (vec![], &good, 400),
        (vec![("purpose", "mischief")], &good, 400),
        (seconds("3600"), &good, 200),
        (seconds("2592000"), &good, 200),
        (seconds("3599"), &good, 400),
        (seconds("2592001"), &good, 400),
        (seconds("soon"), &good, 400),
        (
            vec![
                ("purpose", "batch"),
                now,
                ("expires_after[seconds]", "3600"),
            ],
            &good,
            400,
        ),
        (
            vec![("purpose", "batch"), ("expires_after[seconds]", "3600")],
            &good,
            400,
        ),
    ] {
        let reply = bench.upload_with(&fields, content).await;
        assert_eq!(reply.status.as_u16(), status, "{fields:?}: {}", reply.text);
        if status != 200 {
            reply.error();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_expires() {
    let bench = Bench::new();
    let expires = [
        ("purpose", "batch"),
        ("expires_after[anchor]", "created_at"),
        ("expires_after[seconds]", "3600"),
    ];
    let file = bench.upload_with(&expires, &input(&[""])).await.json();
    assert_eq!(file["expires_at"], START + 3600);
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert_eq!(bench.get(&path).await.status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(bench.get(&path).await.status, 404);
}
