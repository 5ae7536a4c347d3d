//! A caller that speaks HTTP/1.1 byte by byte, so that tests see what is sent
//! when, and can hang up.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::app::HANG;

/// The key of every caller that names no other.
pub const KEY: &str = "authorization: Bearer sk-test";

/// One connection.
pub struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer's head.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    headers: BTreeMap<String, String>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Caller {
    pub async fn connect(address: SocketAddr) -> Caller {
        Caller {
            stream: TcpStream::connect(address).await.unwrap(),
            buffer: Vec::new(),
        }
    }

    /// Sends a whole request; `headers` are lines. Without a credential among
    /// them it is [`KEY`]'s.
    pub async fn send(&mut self, line: &str, headers: &[&str], body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut request = format!("{line} HTTP/1.1\r\nhost: offpeak\r\n");
        if !headers
            .iter()
            .any(|header| header.starts_with("authorization"))
        {
            request += KEY;
            request += "\r\n";
        }
        for header in headers {
            request += header;
            request += "\r\n";
        }
        if !body.is_empty() {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        self.write(&request).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        let written = timeout(HANG, self.stream.write_all(bytes)).await;
        written.expect("a hang").unwrap();
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(&mut self, line: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Answer {
        self.send(line, headers, body).await;
        self.answer().await
    }

    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let body = self.rest(&head).await.expect("the answer was cut");
        Answer { head, body }
    }

    pub async fn head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill().await, "closed before a head: {:?}", self.seen());
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Head {
            status: status.parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
        }
    }

    /// Reads what comes until the connection ends.
    pub async fn closed(&mut self) {
        while self.fill().await {}
    }

    /// Waits until something of a body has come.
    pub async fn begun(&mut self) {
        while self.buffer.is_empty() {
            assert!(self.fill().await, "the connection is cut");
        }
    }

    /// The rest of a body; `None` where the connection is cut before its end.
    pub async fn rest(&mut self, head: &Head) -> Option<Vec<u8>> {
        if let Some(length) = head.get("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length {
                if !self.fill().await {
                    return None;
                }
            }
            return Some(self.buffer.drain(..length).collect());
        }
        let mut body = Vec::new();
        loop {
            match self.chunk().await? {
                chunk if chunk.is_empty() => return Some(body),
                chunk => body.extend(chunk),
            }
        }
    }

    /// The next chunk of a chunked body, empty at its end; `None` where the
    /// connection is cut.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let size = std::str::from_utf8(&self.buffer[..at]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                let whole = at + 2 + size + 2;
                if self.buffer.len() >= whole {
                    let chunk = self.buffer.drain(..whole).collect::<Vec<u8>>();
                    return Some(chunk[at + 2..at + 2 + size].to_vec());
                }
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Whether more came before the connection closed.
    async fn fill(&mut self) -> bool {
        let read = timeout(HANG, self.stream.read_buf(&mut self.buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("a hang after {:?}", self.seen()));
        read.is_ok_and(|count| count > 0)
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The header's value; empty where it is missing.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub fn id(&self) -> String {
        self.get("offpeak-request-id")
            .expect("no request id")
            .to_owned()
    }
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of an error in OpenAI's shape, with all four keys.
    pub fn error_code(&self) -> String {
        let body = self.json();
        let error = body["error"]
            .as_object()
            .unwrap_or_else(|| panic!("{body}"));
        for key in ["message", "type", "param", "code"] {
            assert!(error.contains_key(key), "no {key}: {body}");
        }
        error["code"].as_str().unwrap_or_default().to_owned()
    }
}
