//! More callers than files may be open.

use std::fs;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    process::Setup,
    provider::{Provider, quick},
    soon,
};

/// Callers of a bound that the process has no files for, and of one that it has.
#[tokio::test]
async fn where_files_run_out_the_idle_make_room() {
    for bound in ["100000", "20"] {
        let dir = tempfile::tempdir().unwrap();
        let provider = Provider::start(quick()).await;
        let mut setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
            .with("OFFPEAK_SERVER__MAX_CONNECTIONS", bound);
        setup.files = Some(100);
        let stderr = dir.path().join("stderr");
        let server = setup.start(&stderr).await;
        let address = server.base.strip_prefix("http://").unwrap();
        let mut open = Vec::new();
        for number in 0..300 {
            let mut caller = TcpStream::connect(address).await.unwrap();
            caller
                .write_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-north.one\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 4096];
            let read = soon("an answer", caller.read(&mut answer)).await.unwrap();
            let head = String::from_utf8_lossy(&answer[..read]).into_owned();
            assert!(
                head.starts_with("HTTP/1.1 200"),
                "{bound}: {number}: {head}"
            );
            open.push(caller);
        }
        let mut first = open.swap_remove(0);
        let mut rest = Vec::new();
        soon("the end of the first", first.read_to_end(&mut rest))
            .await
            .unwrap();
        let told = fs::read_to_string(&stderr).unwrap();
        let complaints = told.matches("cannot accept connections").count();
        assert!(complaints < 100, "{told}");
    }
}
