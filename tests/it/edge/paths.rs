//! Paths that look like ours and are not, and the other way round: who answers, and what
//! the upstream is sent. A path passes on byte for byte, and none of its spellings leads
//! to an operator's path or around its token.

use super::raw::{recorded, statuses, told};

#[derive(Debug, PartialEq)]
enum By {
    /// The upstream, asked for this.
    Upstream(&'static str),
    /// An error of ours: its code.
    Us(&'static str),
    /// Nobody: the request is no HTTP.
    Nobody,
}

use By::{Nobody, Upstream, Us};

#[tokio::test]
async fn no_spelling_of_a_path_leads_to_another_one() {
    let rows = [
        ("/v1/models", Upstream("/v1/models")),
        ("/v1/models/", Upstream("/v1/models/")),
        ("/V1/models", Upstream("/V1/models")),
        ("//v1//models", Upstream("//v1//models")),
        ("/v1//models", Upstream("/v1//models")),
        ("/v1/./models", Upstream("/v1/./models")),
        ("/v1/models;x=1", Upstream("/v1/models;x=1")),
        ("/v1/a%2Fb%2fc", Upstream("/v1/a%2Fb%2fc")),
        ("/v1/%", Upstream("/v1/%")),
        ("/v1/%00", Upstream("/v1/%00")),
        ("/v1/%0d%0ax-evil:%201", Upstream("/v1/%0d%0ax-evil:%201")),
        ("/v1/\u{e9}", Upstream("/v1/\u{e9}")),
        ("/v1/a\\b", Upstream("/v1/a\\b")),
        ("/v1/models?", Upstream("/v1/models?")),
        (
            "/v1/models?a=/offpeak/admin/status",
            Upstream("/v1/models?a=/offpeak/admin/status"),
        ),
        ("/v1/models??a&&b=%26#f", Upstream("/v1/models??a&&b=%26")),
        ("/", Upstream("/")),
        ("?a", Nobody),
        ("", Nobody),
        ("*", Upstream("*")),
        // An operator's path, in all the ways that some server may read as it.
        ("/offpeak/admin/status", Us("invalid_api_key")),
        ("/offpeak/admin/status?token=x", Us("invalid_api_key")),
        (
            "http://evil.example/offpeak/admin/status",
            Us("invalid_api_key"),
        ),
        ("/offpeak/admin/status/", Us("not_found")),
        ("/offpeak//admin/status", Us("not_found")),
        ("/offpeak/./admin/status", Us("not_found")),
        ("/offpeak/v1/../admin/status", Us("not_found")),
        ("/offpeak/admin%2fstatus", Us("not_found")),
        ("/offpeak/%61dmin/status", Us("not_found")),
        ("/offpeak/admin/status;x", Us("not_found")),
        ("/offpeak/admin/status%00", Us("not_found")),
        ("/offpeak/Admin/status", Us("not_found")),
        ("/offpeak/admin/", Us("not_found")),
        ("/offpeak/assets", Us("not_found")),
        ("/offpeak/assets/../admin/status", Us("not_found")),
        ("/offpeak/assets/%2e%2e/main.js", Us("not_found")),
        (
            "/v1/../offpeak/admin/status",
            Upstream("/v1/../offpeak/admin/status"),
        ),
        (
            "/v1/%2e%2e/offpeak/admin/status",
            Upstream("/v1/%2e%2e/offpeak/admin/status"),
        ),
        (
            "/%6fffpeak/admin/status",
            Upstream("/%6fffpeak/admin/status"),
        ),
        ("/Offpeak/admin/status", Upstream("/Offpeak/admin/status")),
        ("//offpeak/admin/status", Upstream("//offpeak/admin/status")),
        (
            "/./offpeak/admin/status",
            Upstream("/./offpeak/admin/status"),
        ),
        (
            "/;/offpeak/admin/status",
            Upstream("/;/offpeak/admin/status"),
        ),
        ("/offpeak;/admin/status", Upstream("/offpeak;/admin/status")),
        (
            "/offpeak%2fadmin/status",
            Upstream("/offpeak%2fadmin/status"),
        ),
        ("/metrics/", Upstream("/metrics/")),
        ("/Metrics", Upstream("/Metrics")),
        // A deadline in the path does not open another root.
        ("/within/6h/v1/models", Upstream("/v1/models")),
        (
            "/within/6h/v1/../../offpeak/admin/status",
            Upstream("/v1/../../offpeak/admin/status"),
        ),
        ("/within/6h/v1%2f..%2foffpeak", Us("not_found")),
        ("/within/6h/../offpeak/admin/status", Us("not_found")),
        ("/within/6h/offpeak/admin/status", Us("not_found")),
        ("/within/6h/metrics", Us("not_found")),
        ("/within/6h//v1/models", Us("not_found")),
        ("/within//v1/models", Us("invalid_deadline")),
        ("/within/6h/within/6h/v1/models", Us("not_found")),
        ("/within/%0d%0a/v1/models", Us("invalid_deadline")),
        ("/Within/6h/v1/models", Upstream("/Within/6h/v1/models")),
        // Our ids never go upstream as ours, however they are written.
        (
            "/v1/responses/op_01kap9kdcg0000040000000000",
            Us("not_found"),
        ),
        (
            "/v1/responses/op_01kap9kdcg0000040000000000/input_items",
            Us("not_found"),
        ),
        ("/v1/files/op_01kap9kdcg0000040000000000", Us("not_found")),
        (
            "/v1/responses?after=op_01kap9kdcg0000040000000000",
            Us("not_found"),
        ),
        (
            "/v1/responses/op_01kap9kdcg0000040000000000%00",
            Us("not_found"),
        ),
        (
            "/v1/responses/op%5f01kap9kdcg0000040000000000",
            Upstream("/v1/responses/op%5f01kap9kdcg0000040000000000"),
        ),
        (
            "/offpeak/v1/requests/op_01kap9kdcg0000040000000000%00",
            Us("not_found"),
        ),
        (
            "/offpeak/v1/requests/..%2f..%2fadmin%2fstatus",
            Us("not_found"),
        ),
    ];
    let (app, mut recorder) = recorded(&[]).await;
    let mut wrong = Vec::new();
    for (target, expected) in rows {
        let sent = format!(
            "GET {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk\r\nconnection: close\r\n\r\n"
        );
        let answer = told(app.address, sent.as_bytes()).await;
        let seen = recorder.take().await;
        let asked: Vec<String> = seen
            .iter()
            .map(|request| {
                let line = request.split(|byte| *byte == b'\r').next().unwrap();
                let line = String::from_utf8(line.to_vec()).unwrap();
                line["GET ".len()..line.len() - " HTTP/1.1".len()].to_owned()
            })
            .collect();
        let holds = match &expected {
            Upstream(path) => asked == [*path] && statuses(&answer) == [200],
            Us(code) => asked.is_empty() && error_code(&answer) == *code,
            Nobody => asked.is_empty() && statuses(&answer) == [400],
        };
        if !holds {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            wrong.push(format!("{target}: {expected:?}, not {asked:?} {answer}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
    app.finish().await;
}

fn error_code(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
