//! Entries of the allow-list, written as [`Guard::new`](super::Guard::new) says.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

use super::host::plain_host;

/// What one entry opens.
#[derive(Debug, Clone)]
pub enum Exception {
    /// https to the addresses in it.
    Net(IpNet),
    /// https to the host, on any port or on one.
    Host {
        host: Host<String>,
        port: Option<u16>,
    },
    /// https or http to exactly this.
    Origin {
        secure: bool,
        host: Host<String>,
        port: u16,
    },
}

impl Exception {
    pub fn parse(entry: &str) -> Result<Self, BadAllowEntry> {
        Self::read(entry).ok_or_else(|| BadAllowEntry {
            entry: entry.to_owned(),
        })
    }

    fn read(entry: &str) -> Option<Self> {
        if let Ok(network) = entry.parse::<IpNet>() {
            return Some(Exception::Net(network.trunc()));
        }
        if let Ok(address) = entry.parse::<Ipv6Addr>() {
            return Some(Exception::Net(IpNet::from(IpAddr::V6(address))));
        }
        let is_origin = entry.contains("://");
        let text = match is_origin {
            true => entry.to_owned(),
            false => format!("https://{entry}"),
        };
        let url = Url::parse(&text).ok()?;
        let is_bare = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        let host = plain_host(url.host()?);
        // Nothing here matches patterns, so a pattern would never match.
        let is_exact =
            !matches!(&host, Host::Domain(name) if name.is_empty() || name.contains('*'));
        if !is_bare || !is_exact {
            return None;
        }
        if is_origin {
            return Some(Exception::Origin {
                secure: match url.scheme() {
                    "https" => true,
                    "http" => false,
                    _ => return None,
                },
                host,
                port: url.port_or_known_default()?,
            });
        }
        // The url crate drops a scheme's own port, so `host:443` must be seen
        // in the text.
        let port = url
            .port()
            .or_else(|| entry.ends_with(":443").then_some(443));
        Some(Exception::Host { host, port })
    }

    /// Whether it names this very host.
    pub fn lists(&self, secure: bool, host: &Host<String>, port: u16) -> bool {
        match self {
            Exception::Net(_) => false,
            Exception::Host {
                host: listed,
                port: listed_port,
            } => secure && listed == host && listed_port.is_none_or(|listed| listed == port),
            Exception::Origin {
                secure: listed_secure,
                host: listed,
                port: listed_port,
            } => *listed_secure == secure && listed == host && *listed_port == port,
        }
    }

    /// Whether it is a network with this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        matches!(self, Exception::Net(network) if network.contains(&address))
    }
}

/// An entry that opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` in the webhook allow-list is not a host, `host:port`, a network such as `10.1.0.0/16`, or an origin such as `http://127.0.0.1:9000`"
)]
pub struct BadAllowEntry {
    pub entry: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::guard::Guard;

    #[test]
    fn bad_allow_entries() {
        for entry in [
            "",
            "10.0.0.0/33",
            "ftp://example.com",
            "https://example.com/path",
            "http://user@example.com",
            "example.com/path",
            "example.com:99999",
            "exa mple.com",
            "http://",
            ".",
            "*",
            "*.example.com",
        ] {
            assert_eq!(
                Guard::new(&[entry]).unwrap_err(),
                BadAllowEntry {
                    entry: entry.to_owned()
                }
            );
        }
    }
}
