//! A connection step by step, so that it can be told which one fails, and what each takes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::PATIENCE;

/// What each step took.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    pub address: SocketAddr,
    pub name: Duration,
    pub tcp: Duration,
    /// None without TLS.
    pub tls: Option<Duration>,
}

/// The step that failed, and why.
#[derive(Debug)]
pub struct Obstacle {
    pub says: String,
    pub advice: &'static str,
}

/// Goes as far as HTTP would begin, to the first address that `admits` lets pass and
/// that answers.
///
/// # Errors
/// The step that fails, or takes longer than [`PATIENCE`].
pub async fn connect<E: std::fmt::Display>(
    url: &Url,
    admits: impl Fn(IpAddr) -> Result<(), E>,
) -> Result<Steps, Obstacle> {
    let obstacle = |says: String, advice| Obstacle { says, advice };
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(443);

    let began = Instant::now();
    let found = match within(addresses(url, port)).await {
        Ok(found) => found,
        Err(why) => {
            let says = format!("The name {host} is not found: {why}.");
            return Err(obstacle(
                says,
                "Is it spelled right, and does DNS work here?",
            ));
        }
    };
    let name = began.elapsed();
    let (mut open, mut refused) = (Vec::new(), None);
    for address in found {
        match admits(address.ip()) {
            Ok(()) => open.push(address),
            Err(why) => refused = Some(why.to_string()),
        }
    }
    if let (true, Some(why)) = (open.is_empty(), refused) {
        let advice = "List it in webhook.allow if that is meant.";
        return Err(obstacle(format!("{host} is not called: {why}."), advice));
    }

    let (stream, address, tcp) = match first_open(&open).await {
        Ok(opened) => opened,
        Err(why) => {
            let says = format!("{host}:{port} is not reached: {why}.");
            return Err(obstacle(
                says,
                "Is it up, and does a firewall let this machine through?",
            ));
        }
    };
    let tls = match url.scheme() {
        "https" => match within(shake_hands(&host, stream)).await {
            Ok(took) => Some(took),
            Err(why) => {
                let says = format!("{host}:{port} is reached, and TLS fails: {why}.");
                return Err(obstacle(
                    says,
                    "Are this machine's root certificates installed (ca-certificates), and its \
                     clock right?",
                ));
            }
        },
        _ => None,
    };
    Ok(Steps {
        address,
        name,
        tcp,
        tls,
    })
}

async fn addresses(url: &Url, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    match url.host() {
        Some(Host::Ipv4(ip)) => Ok(vec![(ip, port).into()]),
        Some(Host::Ipv6(ip)) => Ok(vec![(ip, port).into()]),
        Some(Host::Domain(name)) => Ok(lookup_host((name, port)).await?.collect()),
        None => Ok(Vec::new()),
    }
}

async fn first_open(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr, Duration), String> {
    let mut why = "it has no address".to_owned();
    for address in addresses {
        let began = Instant::now();
        match within(TcpStream::connect(address)).await {
            Ok(stream) => return Ok((stream, *address, began.elapsed())),
            Err(error) => why = format!("{} says: {error}", address.ip()),
        }
    }
    Err(why)
}

/// Against the system's root certificates, as a server does.
async fn shake_hands(host: &str, stream: TcpStream) -> std::io::Result<Duration> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_native_roots()?
        .with_no_client_auth();
    // An IPv6 address stands in brackets in a URL.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    let began = Instant::now();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    Ok(began.elapsed())
}

async fn within<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, step).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing came within {} s", PATIENCE.as_secs())),
    }
}
