//! On real sockets of this machine.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolving};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::delivery::settings::Endpoint;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn settings(allow: &[String]) -> Settings {
    Settings {
        timeout: Duration::from_secs(20),
        allow: allow.to_vec(),
        endpoints: BTreeMap::new(),
        horizon: Duration::from_secs(60),
        first_retry: Duration::from_secs(1),
        max_concurrent: 1,
        max_per_endpoint: 1,
        max_inline_bytes: 1024,
    }
}

/// A receiver on a free port, and a sender that may call it.
async fn receiver() -> (TcpListener, Url, Sender) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let url = Url::parse(&format!("{origin}/hook?x=1")).unwrap();
    let sender = Sender::new(settings(&[origin])).unwrap();
    (listener, url, sender)
}

async fn deliver(sender: &Sender, url: &Url) -> Outcome {
    let secrets = [Secret::new(SECRET)];
    sender
        .deliver(Attempt {
            url,
            webhook_id: "evt_1",
            body: Bytes::from_static(br#"{"object":"event"}"#),
            bill: Some(Bill {
                paid: Usd::from_pico(75_000_000),
                standard: Usd::from_pico(150_000_000),
            }),
            secrets: &secrets,
            now: Timestamp::from_secs(1_763_832_346),
        })
        .await
}

/// Accepts one connection and reads one request with the test body.
async fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(br#"{"object":"event"}"#) {
        let read = socket.read_buf(&mut seen).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&seen));
    }
    (socket, String::from_utf8(seen).unwrap())
}

/// Delivers once to a receiver that answers with `response`.
async fn answered(response: &str) -> (Outcome, String) {
    let (listener, url, sender) = receiver().await;
    let serve = async {
        let (mut socket, seen) = accept(&listener).await;
        socket.write_all(response.as_bytes()).await.unwrap();
        seen
    };
    tokio::join!(deliver(&sender, &url), serve)
}

#[tokio::test]
async fn sends_a_signed_post() {
    let (outcome, seen) = answered("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(outcome, Outcome::Delivered { status: 204 });

    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /hook?x=1 HTTP/1.1"));
    let headers: BTreeMap<&str, &str> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        headers["user-agent"],
        concat!("offpeak/", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(headers["webhook-id"], "evt_1");
    assert_eq!(headers["offpeak-cost-usd"], "0.000075");
    assert_eq!(headers["offpeak-saved-usd"], "0.000075");
    assert_eq!(headers["webhook-timestamp"], "1763832346");
    let expected = standardwebhooks::Webhook::new(SECRET)
        .unwrap()
        .sign("evt_1", 1_763_832_346, body.as_bytes())
        .unwrap();
    assert_eq!(headers["webhook-signature"], expected);
}

#[tokio::test]
async fn statuses() {
    let retry = |status, reason, seconds: Option<u64>| Outcome::Retry {
        status: Some(status),
        reason,
        retry_after: seconds.map(Duration::from_secs),
    };
    for (head, expected) in [
        ("200 OK", Outcome::Delivered { status: 200 }),
        ("202 Accepted", Outcome::Delivered { status: 202 }),
        ("304 Not Modified", retry(304, Failure::Redirect, None)),
        ("400 Bad Request", retry(400, Failure::Status, None)),
        ("404 Not Found", retry(404, Failure::Status, None)),
        ("410 Gone", Outcome::Gone),
        (
            "429 Too Many Requests\r\nretry-after: 7",
            retry(429, Failure::Status, Some(7)),
        ),
        (
            "503 Unavailable\r\nretry-after: Sat, 22 Nov 2025 17:26:46 GMT",
            retry(503, Failure::Status, Some(60)),
        ),
        (
            "503 Unavailable\r\nretry-after: Sat, 22 Nov 2025 17:00:00 GMT",
            retry(503, Failure::Status, Some(0)),
        ),
        (
            "503 Unavailable\r\nretry-after: soon",
            retry(503, Failure::Status, None),
        ),
    ] {
        let response = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(answered(&response).await.0, expected, "{head}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/", elsewhere.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        let (outcome, _) = answered(&format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
        assert_eq!(
            outcome,
            Outcome::Retry {
                status: Some(status),
                reason: Failure::Redirect,
                retry_after: None
            }
        );
    }
    assert_untouched(&elsewhere);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    let (listener, url, sender) = receiver().await;
    let serve = async {
        let (mut socket, _) = accept(&listener).await;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        // Ends only because the sender hangs up.
        while socket.write_all(chunk.as_bytes()).await.is_ok() {}
    };
    let (outcome, ()) = tokio::join!(deliver(&sender, &url), serve);
    assert_eq!(outcome, Outcome::Delivered { status: 200 });
}

#[tokio::test]
async fn silence_is_a_timeout_and_a_stalled_body_is_not() {
    let (listener, url, _) = receiver().await;
    let mut settings = settings(&[url.origin().ascii_serialization()]);
    settings.timeout = Duration::from_millis(300);
    let sender = Sender::new(settings).unwrap();

    for (head, expected) in [
        (
            "",
            Outcome::Retry {
                status: None,
                reason: Failure::Timeout,
                retry_after: None,
            },
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe",
            Outcome::Delivered { status: 200 },
        ),
    ] {
        let serve = async {
            let (mut socket, _) = accept(&listener).await;
            socket.write_all(head.as_bytes()).await.unwrap();
            // Holds the connection open until the sender gives it up.
            let _ = socket.read(&mut [0; 16]).await;
        };
        let (outcome, ()) = tokio::join!(deliver(&sender, &url), serve);
        assert_eq!(outcome, expected);
    }
}

#[tokio::test]
async fn broken_and_refused_connections() {
    let retry = |reason| Outcome::Retry {
        status: None,
        reason,
        retry_after: None,
    };
    let (listener, url, sender) = receiver().await;
    let hang_up = async { drop(accept(&listener).await) };
    let (outcome, ()) = tokio::join!(deliver(&sender, &url), hang_up);
    assert_eq!(outcome, retry(Failure::Broken));

    drop(listener);
    assert_eq!(deliver(&sender, &url).await, retry(Failure::Connect));
}

#[tokio::test]
async fn without_an_exception_nothing_is_sent() {
    let (listener, url, _) = receiver().await;
    let sender = Sender::new(settings(&[])).unwrap();
    assert_eq!(
        deliver(&sender, &url).await,
        Outcome::Refused {
            reason: Refused::PlainHttp
        }
    );
    let mut secure = url.clone();
    secure.set_scheme("https").unwrap();
    assert_eq!(
        deliver(&sender, &secure).await,
        Outcome::Refused {
            reason: Refused::Address { kind: "loopback" }
        }
    );
    assert_untouched(&listener);
}

/// Says that every name is this machine.
struct Here(SocketAddr);

impl Resolve for Here {
    fn resolve(&self, _: Name) -> Resolving {
        let found = std::iter::once(self.0);
        Box::pin(std::future::ready(Ok(Box::new(found) as Addrs)))
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_when_resolved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = Url::parse(&format!("https://hooks.example:{}/", address.port())).unwrap();
    let sender =
        |allow: &[String]| Sender::with_resolver(settings(allow), Arc::new(Here(address))).unwrap();

    let refused = deliver(&sender(&[]), &url).await;
    assert_eq!(
        refused,
        Outcome::Refused {
            reason: Refused::Address { kind: "loopback" }
        }
    );
    // Another port of the host being listed does not help.
    let other_port = sender(&["hooks.example:1".to_owned()]);
    assert_eq!(deliver(&other_port, &url).await, refused);
    assert_untouched(&listener);

    for entry in ["hooks.example", "127.0.0.0/8"] {
        let sender = sender(&[entry.to_owned()]);
        let hang_up = async { drop(listener.accept().await.unwrap()) };
        let (outcome, ()) = tokio::join!(deliver(&sender, &url), hang_up);
        assert!(
            matches!(
                outcome,
                Outcome::Retry {
                    reason: Failure::Connect,
                    ..
                }
            ),
            "{entry}: {outcome:?}"
        );
    }
}

/// Gives the addresses of each look-up in turn, all on one port.
struct Changing {
    port: u16,
    answers: Mutex<VecDeque<Vec<&'static str>>>,
}

impl Resolve for Changing {
    fn resolve(&self, _: Name) -> Resolving {
        let answer = self.answers.lock().pop_front().expect("one look-up more");
        let port = self.port;
        let found = answer
            .into_iter()
            .map(move |ip| SocketAddr::new(ip.parse().unwrap(), port));
        Box::pin(std::future::ready(Ok(Box::new(found) as Addrs)))
    }
}

/// The operator's network stands for the public one: what is outside of it is
/// refused at the connection that would have gone there, however the name was
/// answered before.
#[tokio::test]
async fn a_name_that_is_rebound_is_refused_at_the_next_connection() {
    let allowed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = allowed.local_addr().unwrap().port();
    let inside = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let url = Url::parse(&format!("https://hooks.example:{port}/")).unwrap();
    let answers = [
        vec!["127.0.0.1"],
        vec!["127.0.0.2"],
        vec!["127.0.0.2", "10.0.0.1", "127.0.0.1"],
        vec!["::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    ];
    let resolver = Changing {
        port,
        answers: Mutex::new(answers.into()),
    };
    let sender = Sender::with_resolver(settings(&["127.0.0.1/32".into()]), Arc::new(resolver));
    let sender = sender.unwrap();
    for expected in ["taken", "loopback", "taken", "NAT64"] {
        let hang_up = async {
            if expected == "taken" {
                drop(allowed.accept().await.unwrap());
            }
        };
        let (outcome, ()) = tokio::join!(deliver(&sender, &url), hang_up);
        match outcome {
            // It was called, and spoke no TLS.
            Outcome::Retry {
                reason: Failure::Connect,
                ..
            } => assert_eq!(expected, "taken"),
            Outcome::Refused {
                reason: Refused::Address { kind },
            } => assert_eq!(kind, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_untouched(&inside);
    assert_untouched(&allowed);
}

/// What a receiver sends is bounded in bytes, decoded or not, and in time.
#[tokio::test]
async fn bombs_and_drips() {
    let retry = |reason| Outcome::Retry {
        status: None,
        reason,
        retry_after: None,
    };
    let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n";
    let header = format!("x-filler: {}\r\n", "x".repeat(1000));
    let chunk = format!("400\r\n{}\r\n", "\0".repeat(1024));
    for (head, again, pause, expected) in [
        (gzip, chunk.as_str(), 0, Outcome::Delivered { status: 200 }),
        ("HTTP/1.1 200 OK\r\n", &header, 0, retry(Failure::Broken)),
        ("HTTP/1.1 200 OK\r\n", "x", 10, retry(Failure::Timeout)),
        (
            "",
            "HTTP/1.1 100 Continue\r\n\r\n",
            10,
            retry(Failure::Timeout),
        ),
    ] {
        let (listener, url, _) = receiver().await;
        let mut settings = settings(&[url.origin().ascii_serialization()]);
        settings.timeout = Duration::from_millis(match pause {
            0 => 20_000,
            _ => 300,
        });
        let sender = Sender::new(settings).unwrap();
        let serve = async {
            let (mut socket, _) = accept(&listener).await;
            socket.write_all(head.as_bytes()).await.unwrap();
            // Ends only because the sender hangs up.
            while socket.write_all(again.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        };
        let (outcome, ()) = tokio::join!(deliver(&sender, &url), serve);
        assert_eq!(outcome, expected, "{again:.30}");
    }
}

#[tokio::test]
async fn what_cannot_be_signed_is_not_sent() {
    let (listener, url, sender) = receiver().await;
    for (secrets, reason) in [
        (vec![], Unsignable::Headers),
        (
            vec![Secret::new("whsec_!")],
            Unsignable::Secret(BadSecret::Encoding),
        ),
    ] {
        let attempt = Attempt {
            url: &url,
            webhook_id: "evt_1",
            body: Bytes::new(),
            bill: None,
            secrets: &secrets,
            now: Timestamp::ZERO,
        };
        assert_eq!(
            sender.deliver(attempt).await,
            Outcome::Unsignable { reason }
        );
    }
    assert_untouched(&listener);
}

#[test]
fn bad_settings_are_found_at_start() {
    let with_endpoint = |url: &str, secret: Option<&str>| {
        let mut settings = settings(&[]);
        settings.endpoints.insert(
            "nightly".to_owned(),
            Endpoint {
                url: url.to_owned(),
                secret: secret.map(Secret::new),
            },
        );
        settings
    };
    for (settings, message) in [
        (
            settings(&["a b".to_owned()]),
            "`a b` in the webhook allow-list is not a host",
        ),
        (
            with_endpoint("http://example.com/", None),
            "webhook endpoint `nightly`: a webhook URL must be https",
        ),
        (
            with_endpoint("https://example.com/", Some("whsec_x")),
            "webhook endpoint `nightly`: a webhook secret is `whsec_` followed by base64",
        ),
    ] {
        let error = Sender::new(settings).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// Nobody has connected: a connection would be waiting in the backlog.
fn assert_untouched(listener: &TcpListener) {
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(listener.poll_accept(&mut context).is_pending());
}
