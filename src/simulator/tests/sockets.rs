use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::simulator::{Fault, Kind, Operation, serve, serve_connection};

const ASK: &[u8] =
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn over_a_port_a_cut_sends_nothing_and_a_truncated_body_ends_early() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, bench.sim.clone(), stop.clone()));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(ASK).await.unwrap();
        let mut reply = Vec::new();
        // A reset instead of an end is as good.
        let _ = stream.read_to_end(&mut reply).await;
        String::from_utf8(reply).unwrap()
    };
    assert!(ask().await.starts_with("HTTP/1.1 200"));
    for kind in [Kind::Reset, Kind::ReplyLost] {
        bench.sim.inject(Fault::once(Operation::ListModels, kind));
        assert_eq!(ask().await, "");
    }
    bench
        .sim
        .inject(Fault::once(Operation::ListModels, Kind::Truncated));
    let half = ask().await;
    assert!(
        half.contains("gpt-3.5") && !half.ends_with("0\r\n\r\n"),
        "{half}"
    );
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn over_a_pipe_a_cut_sends_nothing() {
    let bench = Bench::new();
    let mut tasks = JoinSet::new();
    for (fault, expected) in [(None, "HTTP/1.1 200"), (Some(Kind::ReplyLost), "")] {
        if let Some(kind) = fault {
            bench.sim.inject(Fault::once(Operation::Any, kind));
        }
        let (mut client, server) = tokio::io::duplex(65_536);
        tasks.spawn(serve_connection(server, bench.sim.clone()));
        client.write_all(ASK).await.unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        assert_eq!(&reply[..expected.len()], expected);
        assert_eq!(reply.is_empty(), expected.is_empty());
    }
}
