//! Requests that two readers could read in two ways: what the caller is told, and byte
//! for byte what the upstream is sent. It is never sent two requests for one, and never
//! a header that the caller did not send.

use std::fmt::Write as _;

use super::raw::{recorded, statuses, told};

/// A request, by its parts; it asks for the connection to be closed.
fn request(line: &str, fields: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n{body}")
}

fn post(fields: &str, body: &str) -> String {
    request("POST /v1/files", fields, body)
}

fn get(fields: &str) -> String {
    request("GET /v1/models", fields, "")
}

/// A second request that rides in what one reader takes for the first one's body.
const EVIL: &str = "GET /v1/evil HTTP/1.1\r\nhost: a\r\n\r\n";

struct Row {
    name: &'static str,
    sent: String,
    /// The statuses of the answers; none where the connection is only closed.
    answers: &'static [u16],
    /// Requests that reach the upstream.
    reach: usize,
}

fn row(name: &'static str, sent: String, answers: &'static [u16], reach: usize) -> Row {
    Row {
        name,
        sent,
        answers,
        reach,
    }
}

const OK: &[u16] = &[200];
const BAD: &[u16] = &[400];

fn framing() -> Vec<Row> {
    let chunked = "transfer-encoding: chunked\r\n";
    let smuggled = format!("0\r\n\r\n{EVIL}");
    vec![
        row(
            "length and chunks: chunks win, the length goes",
            post(&format!("content-length: 4\r\n{chunked}"), &smuggled),
            OK,
            1,
        ),
        row(
            "chunks and length: the same",
            post(&format!("{chunked}content-length: 4\r\n"), &smuggled),
            OK,
            1,
        ),
        row(
            "two equal lengths become one",
            post("content-length: 2\r\ncontent-length: 2\r\n", "{}"),
            OK,
            1,
        ),
        row(
            "a list of equal lengths",
            post("content-length: 2, 2\r\n", "{}"),
            BAD,
            0,
        ),
        row(
            "two lengths that differ",
            post(
                "content-length: 2\r\ncontent-length: 40\r\n",
                &format!("{{}}{EVIL}"),
            ),
            BAD,
            0,
        ),
        row("+5", post("content-length: +5\r\n", "12345"), BAD, 0),
        row("-5", post("content-length: -5\r\n", "12345"), BAD, 0),
        row("0x5", post("content-length: 0x5\r\n", "12345"), BAD, 0),
        row("5 5", post("content-length: 5 5\r\n", "12345"), BAD, 0),
        row("no length", post("content-length: \r\n", "12345"), BAD, 0),
        row(
            "a length that overflows",
            post("content-length: 18446744073709551617\r\n", "x"),
            BAD,
            0,
        ),
        row(
            "leading zeros are a number",
            post("content-length: 0002\r\n", "{}"),
            OK,
            1,
        ),
        row(
            "more than the length is another request's beginning",
            post("content-length: 2\r\n", &format!("{{}}{EVIL}")),
            OK,
            1,
        ),
        row(
            "less than the length",
            post("content-length: 9\r\n", "{}"),
            &[408],
            1,
        ),
        row(
            "xchunked",
            post("transfer-encoding: xchunked\r\n", &smuggled),
            BAD,
            0,
        ),
        row(
            "chunked, identity",
            post("transfer-encoding: chunked, identity\r\n", &smuggled),
            BAD,
            0,
        ),
        row(
            "identity, chunked",
            post("transfer-encoding: identity, chunked\r\n", "0\r\n\r\n"),
            &[501],
            0,
        ),
        row(
            "identity and chunked, a line each",
            post(
                &format!("transfer-encoding: identity\r\n{chunked}"),
                "0\r\n\r\n",
            ),
            &[501],
            0,
        ),
        row(
            "chunked and identity, a line each",
            post(
                &format!("{chunked}transfer-encoding: identity\r\n"),
                &smuggled,
            ),
            BAD,
            0,
        ),
        row(
            "chunked twice",
            post("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"),
            &[501],
            0,
        ),
        row(
            "chunked twice, a line each",
            post(&format!("{chunked}{chunked}"), "0\r\n\r\n"),
            &[501],
            0,
        ),
        row(
            "an unknown coding",
            post("transfer-encoding: x, chunked\r\n", "0\r\n\r\n"),
            &[501],
            0,
        ),
        row(
            "CHUNKED",
            post("Transfer-Encoding: CHUNKED\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            OK,
            1,
        ),
        row(
            "a vertical tab before chunked",
            post("transfer-encoding: \x0bchunked\r\n", &smuggled),
            BAD,
            0,
        ),
        row(
            "chunked in quotes",
            post("transfer-encoding: \"chunked\"\r\n", &smuggled),
            BAD,
            0,
        ),
        row(
            "chunks in HTTP/1.0",
            format!("POST /v1/files HTTP/1.0\r\nhost: a\r\n{chunked}\r\n{smuggled}"),
            BAD,
            0,
        ),
        row(
            "an underscore is another name",
            post("content_length: 40\r\ncontent-length: 2\r\n", "{}"),
            OK,
            1,
        ),
        row(
            "a body with GET",
            request("GET /v1/models", "content-length: 2\r\n", "{}"),
            OK,
            1,
        ),
        row(
            "chunks with GET",
            request("GET /v1/models", chunked, "2\r\n{}\r\n0\r\n\r\n"),
            OK,
            1,
        ),
    ]
}

fn chunks() -> Vec<Row> {
    let chunked = |body: &str| post("transfer-encoding: chunked\r\n", body);
    vec![
        row(
            "a size that overflows",
            chunked("10000000000000002\r\n{}\r\n0\r\n\r\n"),
            BAD,
            0,
        ),
        row(
            "a size of the most there is",
            chunked("ffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            &[408],
            1,
        ),
        row("0x2", chunked("0x2\r\n{}\r\n0\r\n\r\n"), BAD, 0),
        row("a negative size", chunked("-2\r\n{}\r\n0\r\n\r\n"), BAD, 0),
        row("no size", chunked("\r\n{}\r\n0\r\n\r\n"), BAD, 0),
        row(
            "an extension goes no further",
            chunked("2;a=\"b\"\r\n{}\r\n0\r\n\r\n"),
            OK,
            1,
        ),
        row(
            "a line feed in an extension",
            chunked("2;a\n\r\n{}\r\n0\r\n\r\n"),
            BAD,
            0,
        ),
        row(
            "a size that ends with a line feed",
            chunked("2\n{}\r\n0\r\n\r\n"),
            BAD,
            0,
        ),
        row("nothing after a chunk", chunked("2\r\n{}0\r\n\r\n"), BAD, 1),
        row(
            "more after a chunk than its size",
            chunked("2\r\n{}}\r\n0\r\n\r\n"),
            BAD,
            1,
        ),
        row(
            "a space before a size",
            chunked(" 2\r\n{}\r\n0\r\n\r\n"),
            BAD,
            0,
        ),
        row(
            "a space after a size",
            chunked("2 \r\n{}\r\n0\r\n\r\n"),
            OK,
            1,
        ),
        row(
            "a request behind the last chunk",
            chunked(&format!("0\r\n\r\n{EVIL}")),
            OK,
            1,
        ),
        row(
            "trailers go no further unless announced",
            chunked("2\r\n{}\r\n0\r\nauthorization: Bearer evil\r\n\r\n"),
            OK,
            1,
        ),
        row(
            "trailers that are announced, framing among them",
            post(
                "transfer-encoding: chunked\r\ntrailer: x-sum, content-length\r\n",
                "2\r\n{}\r\n0\r\nx-sum: 1\r\ncontent-length: 40\r\n\r\n",
            ),
            OK,
            1,
        ),
    ]
}

fn heads() -> Vec<Row> {
    let long = "y".repeat(60_000);
    let longer = "y".repeat(70_000);
    vec![
        row("a folded value", get("x-a: b\r\n c\r\n"), BAD, 0),
        row(
            "a folded length",
            post("content-length:\r\n 2\r\n", "{}"),
            BAD,
            0,
        ),
        row(
            "line feeds alone are line ends, and go on as both",
            "GET /v1/models HTTP/1.1\nhost: a\nconnection: close\nx-a: b\n\n".into(),
            OK,
            1,
        ),
        row(
            "a line feed in a value begins a line, and goes on as one",
            get("x-a: b\nx-c: d\r\n"),
            OK,
            1,
        ),
        row(
            "a carriage return in a value",
            get("x-a: b\rx-c: d\r\n"),
            BAD,
            0,
        ),
        row("a carriage return in a name", get("x-a\r: b\r\n"), BAD, 0),
        row("NUL in a value", get("x-a: b\0c\r\n"), BAD, 0),
        row(
            "a control character in a value",
            get("x-a: b\x01c\r\n"),
            BAD,
            0,
        ),
        row("DEL in a value", get("x-a: b\x7fc\r\n"), BAD, 0),
        row("a tab in a value", get("x-a: b\tc\r\n"), OK, 1),
        row("a space before the colon", get("x-a : b\r\n"), BAD, 0),
        row(
            "a space before a length's colon",
            post("content-length : 2\r\n", "{}"),
            BAD,
            0,
        ),
        row(
            "a space before the first name",
            "GET /v1/models HTTP/1.1\r\n host: a\r\nconnection: close\r\n\r\n".into(),
            BAD,
            0,
        ),
        row("no colon", get("x-a\r\n"), BAD, 0),
        row("no name", get(": b\r\n"), BAD, 0),
        row("a name with a brace", get("x{a: b\r\n"), BAD, 0),
        row("a name beyond ASCII", get("x-\u{e9}: b\r\n"), BAD, 0),
        row(
            "a value beyond ASCII goes on as it is",
            get("x-a: \u{e9}\r\n"),
            OK,
            1,
        ),
        row(
            "another's absolute form: the path counts",
            request("GET http://evil.example/v1/models", "", ""),
            OK,
            1,
        ),
        row(
            "two hosts: ours goes on",
            get("host: evil.example\r\n"),
            OK,
            1,
        ),
        row(
            "no host",
            "GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n".into(),
            OK,
            1,
        ),
        row("HTTP/1.0", "GET /v1/models HTTP/1.0\r\n\r\n".into(), OK, 1),
        row("HTTP/0.9", "GET /v1/models\r\n\r\n".into(), BAD, 0),
        row(
            "HTTP/1.2",
            "GET /v1/models HTTP/1.2\r\nhost: a\r\n\r\n".into(),
            BAD,
            0,
        ),
        row(
            "HTTP/2.0",
            "GET /v1/models HTTP/2.0\r\nhost: a\r\n\r\n".into(),
            BAD,
            0,
        ),
        row(
            "HTTP/2 by its preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".into(),
            &[],
            0,
        ),
        row(
            "a space in the target",
            "GET /v1/mo dels HTTP/1.1\r\nhost: a\r\n\r\n".into(),
            BAD,
            0,
        ),
        row(
            "a tab in the target",
            "GET /v1/mo\tdels HTTP/1.1\r\nhost: a\r\n\r\n".into(),
            BAD,
            0,
        ),
        row(
            "a line end in the target",
            "GET /v1/models\r\nx: HTTP/1.1\r\nhost: a\r\n\r\n".into(),
            BAD,
            0,
        ),
        row(
            "a tunnel",
            "CONNECT a:1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".into(),
            &[405],
            0,
        ),
        row(
            "a long target",
            request(&format!("GET /v1/{long}"), "", ""),
            OK,
            1,
        ),
        row(
            "a longer one",
            request(&format!("GET /v1/{longer}"), "", ""),
            &[431],
            0,
        ),
        row(
            "empty lines before a request",
            format!("\r\n\r\n{}", get("")),
            OK,
            1,
        ),
    ]
}

fn hops() -> Vec<Row> {
    let key = "authorization: Bearer sk\r\n";
    vec![
        row(
            "what frames and authorises cannot be named away",
            request(
                "POST /v1/files",
                &format!(
                    "connection: authorization, content-length, host\r\n{key}content-length: 2\r\n"
                ),
                "{}",
            ),
            OK,
            1,
        ),
        row(
            "nor what says whose work it is and how the body reads",
            request(
                "POST /v1/files",
                "connection: api-key, openai-organization, openai-project, openai-beta, content-type, \
                 content-encoding, idempotency-key\r\napi-key: k\r\nopenai-organization: o\r\n\
                 openai-project: p\r\nopenai-beta: b\r\ncontent-type: application/json\r\n\
                 content-encoding: identity\r\nidempotency-key: i\r\ncontent-length: 2\r\n",
                "{}",
            ),
            OK,
            1,
        ),
        row(
            "nor chunks",
            post(
                "connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n",
                "2\r\n{}\r\n0\r\n\r\n",
            ),
            OK,
            1,
        ),
        row(
            "what is of one hop ends here",
            get(
                "connection: x-local\r\nx-local: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\n\
                 proxy-authorization: Basic x\r\nte: trailers\r\n",
            ),
            OK,
            1,
        ),
        row(
            "an upgrade is not passed on",
            get("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"),
            OK,
            1,
        ),
        row(
            "nor one to HTTP/2",
            get(
                "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
            ),
            OK,
            1,
        ),
        row(
            "what is expected is answered here",
            post("expect: 100-continue\r\ncontent-length: 2\r\n", "{}"),
            &[100, 200],
            1,
        ),
        row(
            "what else is expected goes on",
            get("expect: 200-maybe\r\n"),
            OK,
            1,
        ),
    ]
}

fn pipelines() -> Vec<Row> {
    let evil = "GET /v1/second HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let kept = |line: &str, fields: &str, body: &str| {
        format!("{line} HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}{evil}")
    };
    vec![
        row(
            "two are two, in order",
            kept("GET /v1/first", "", ""),
            &[200, 200],
            2,
        ),
        row(
            "behind a refused head nothing is read",
            kept("GET /v1/first", "x-a : b\r\n", ""),
            BAD,
            0,
        ),
        row(
            "behind a refused length neither",
            kept("POST /v1/first", "content-length: +2\r\n", "{}"),
            BAD,
            0,
        ),
        row(
            "behind both framings neither",
            kept(
                "POST /v1/first",
                "content-length: 4\r\ntransfer-encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            OK,
            1,
        ),
        row(
            "behind a call that is refused whole, the next is answered",
            kept(
                "POST /v1/embeddings",
                "offpeak-deadline: soon\r\ncontent-length: 2\r\n",
                "{}",
            ),
            &[400, 200],
            1,
        ),
        row(
            "behind a broken chunk nothing",
            kept("POST /v1/first", "transfer-encoding: chunked\r\n", "x\r\n"),
            BAD,
            0,
        ),
    ]
}

#[tokio::test]
async fn no_request_is_read_in_two_ways() {
    let (app, mut recorder) = recorded(&[]).await;
    let mut table = String::new();
    let mut wrong = String::new();
    for rows in [framing(), chunks(), heads(), hops(), pipelines()] {
        for row in rows {
            let answer = told(app.address, row.sent.as_bytes()).await;
            let seen = recorder.take().await;
            let answers = statuses(&answer);
            if (answers.as_slice(), seen.len()) != (row.answers, row.reach) {
                let _ = writeln!(
                    wrong,
                    "{}: {answers:?} {}, not {:?} {}",
                    row.name,
                    seen.len(),
                    row.answers,
                    row.reach
                );
            }
            let _ = writeln!(table, "# {}: {answers:?}", row.name);
            for request in seen {
                let request = request.escape_ascii().to_string();
                if request.contains("/evil") {
                    let _ = writeln!(wrong, "{}: smuggled {request}", row.name);
                }
                let shown = request.replace(&"y".repeat(60_000), "{60,000 y}");
                let _ = writeln!(table, "{}", shown.replace(&recorder.host(), "UPSTREAM"));
            }
        }
    }
    insta::assert_snapshot!("smuggling", table);
    assert_eq!(wrong, "");
    app.finish().await;
}
