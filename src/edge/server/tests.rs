mod patience;

use super::*;
use crate::edge::testing::{self, Proxy, Wire, start};
use axum::{Extension, routing::any};
use http::Request;

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: us\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn call_in_flight(grace: Duration) -> (Wire, Proxy, Wire) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", upstream.local_addr().unwrap());
    let proxy = start(&base, Router::new(), grace);
    let mut caller = proxy.connect().await;
    caller.write(GET).await;
    let mut wire = Wire::accept(&upstream).await;
    wire.read_head().await;
    (wire, proxy, caller)
}

#[tokio::test]
async fn our_calls_go_to_the_router() {
    let router = Router::new().fallback(any(async || "the router"));
    let proxy = start("http://127.0.0.1:1/v1", router, Duration::ZERO);
    let mut caller = proxy.connect().await;
    caller
        .write(
            "POST /v1/embeddings HTTP/1.1\r\nhost: us\r\nx-deadline: 6h\r\n\
             content-length: 2\r\n\r\n{}",
        )
        .await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(caller.read(10).await, b"the router");
    caller.write(GET).await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn the_router_can_pass_a_call_through() {
    let router = Router::new().fallback(any(
        async |Extension(passthrough): Extension<Arc<Passthrough>>,
               mut request: Request<axum::body::Body>| {
            request.headers_mut().remove("x-deadline");
            passthrough
                .forward(request)
                .await
                .map(axum::body::Body::new)
        },
    ));
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", upstream.local_addr().unwrap());
    let proxy = start(&base, router, Duration::ZERO);
    let mut caller = proxy.connect().await;
    caller
        .write(
            "POST /v1/files HTTP/1.1\r\nhost: us\r\nx-deadline: 6h\r\n\
             content-length: 4\r\n\r\nfile",
        )
        .await;
    let mut wire = Wire::accept(&upstream).await;
    let head = wire.read_head().await;
    assert!(head.starts_with("POST /v1/files HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-length: 4\r\n"), "{head}");
    assert_eq!(wire.read(4).await, b"file");
    wire.write(OK).await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(caller.read(2).await, b"ok");
}

#[tokio::test]
async fn a_broken_answer_does_not_look_whole_to_http_1_0() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", upstream.local_addr().unwrap());
    let proxy = start(&base, Router::new(), Duration::ZERO);
    for (whole, ends) in [(true, None), (false, Some(io::ErrorKind::ConnectionReset))] {
        let mut caller = proxy.connect().await;
        caller
            .write("GET /v1/models HTTP/1.0\r\nhost: us\r\n\r\n")
            .await;
        let mut wire = Wire::accept(&upstream).await;
        wire.read_head().await;
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        wire.write_chunk(b"half").await;
        assert!(caller.read_head().await.starts_with("HTTP/1.0 200"));
        assert_eq!(caller.read(4).await, b"half");
        if whole {
            wire.write("0\r\n\r\n").await;
        }
        drop(wire);
        assert_eq!(caller.end().await, ends);
    }
}

#[tokio::test]
async fn a_stop_lets_calls_in_flight_finish() {
    let (mut wire, mut proxy, mut caller) = call_in_flight(Duration::from_secs(30)).await;
    let mut idle = proxy.connect().await;
    proxy.stop.cancel();
    idle.assert_closed().await;
    wire.write(OK).await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(caller.read(2).await, b"ok");
    caller.assert_closed().await;
    proxy.ended().await;
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

#[tokio::test]
async fn a_stop_cuts_calls_after_the_grace_period() {
    let (mut wire, mut proxy, mut caller) = call_in_flight(Duration::from_millis(1)).await;
    proxy.stop.cancel();
    caller.assert_closed().await;
    wire.assert_closed().await;
    proxy.ended().await;
}

#[tokio::test]
async fn a_vanished_caller_is_noticed() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let _caller = TcpStream::connect(listener.local_addr().unwrap()).await;
    let (stream, _seat) = Entrance::new(listener, For::Callers, 1).let_in().await;
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap());
    let minute = Duration::from_secs(60);
    assert_eq!(socket.tcp_keepalive_time().unwrap(), minute);
    let probes = socket.tcp_keepalive_retries().unwrap();
    assert_eq!(socket.tcp_keepalive_interval().unwrap() * probes, minute);
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut settings = testing::settings(Duration::ZERO);
    settings.listen = address;
    let passthrough = Passthrough::new(
        crate::edge::passthrough::Settings {
            connect_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            max_idle: 0,
        },
        &"http://127.0.0.1:1/v1".parse().unwrap(),
    )
    .unwrap();
    let routers = Routers {
        callers: Router::new(),
        operators: Router::new(),
    };
    let server = Server::new(settings, passthrough, Arc::new(Desk::new(routers)));
    let failed = server.err().map(|(address, error)| (address, error.kind()));
    assert_eq!(failed, Some((address, io::ErrorKind::AddrInUse)));
}
