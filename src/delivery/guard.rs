//! Where a webhook may go. A caller names the target, so the target is hostile
//! input: it must not make this process call the machines around it.
//!
//! The rules are checked on the URL when it is admitted, again before every
//! attempt, and on every address that its name resolves to; the connection is
//! made to exactly the addresses that passed, so a name that changes between
//! check and use gains nothing.
//!
//! The rules are here; `host` knows what is public, `exception` what the operator
//! allows besides, and `resolver` brings the rules to every lookup of a name.

mod exception;
mod host;
mod resolver;

use std::net::IpAddr;

use url::{Host, Url};

pub use self::{
    exception::BadAllowEntry,
    resolver::{GuardedResolver, SystemResolver},
};
use self::{
    exception::Exception,
    host::{is_local_name, not_public, plain_host},
};

/// The address policy: https to public addresses, and the listed exceptions.
#[derive(Debug, Clone)]
pub struct Guard {
    exceptions: Vec<Exception>,
}

/// How a URL that passed [`Guard::check_url`] may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Only to addresses that [`Guard::check_address`] admits.
    Public,
    /// To whatever its name resolves to: the operator listed this very host.
    Listed,
}

impl Guard {
    /// Reads the allow-list. An entry is a host (`hooks.internal`), a host and
    /// port (`hooks.internal:8443`), a network (`10.1.0.0/16`), or an origin
    /// (`http://127.0.0.1:9000`), which is the only way to admit http.
    pub fn new<S: AsRef<str>>(allow: &[S]) -> Result<Self, BadAllowEntry> {
        let exceptions = allow
            .iter()
            .map(|entry| Exception::parse(entry.as_ref().trim()))
            .collect::<Result<_, _>>()?;
        Ok(Guard { exceptions })
    }

    /// Checks all that can be known without asking the network.
    pub fn check_url(&self, url: &Url) -> Result<Route, Refused> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(Refused::Scheme),
        };
        let host = url.host().map(plain_host).ok_or(Refused::NoHost)?;
        let port = url.port_or_known_default().ok_or(Refused::NoHost)?;
        if self
            .exceptions
            .iter()
            .any(|exception| exception.lists(secure, &host, port))
        {
            return Ok(Route::Listed);
        }
        if !secure {
            return Err(Refused::PlainHttp);
        }
        match host {
            Host::Ipv4(ip) => self.check_address(ip.into()),
            Host::Ipv6(ip) => self.check_address(ip.into()),
            Host::Domain(name) if is_local_name(&name) => Err(Refused::LocalName),
            Host::Domain(_) => Ok(()),
        }?;
        Ok(Route::Public)
    }

    /// Checks one address a name resolved to.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Refused> {
        let Some(kind) = not_public(address) else {
            return Ok(());
        };
        let listed = self
            .exceptions
            .iter()
            .any(|exception| exception.contains(address));
        if listed {
            return Ok(());
        }
        Err(Refused::Address { kind })
    }
}

/// Why a target is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a webhook URL must be https")]
    PlainHttp,
    #[error("a webhook URL must be https, no other scheme")]
    Scheme,
    #[error("a webhook URL must not hold a user name or password")]
    Credentials,
    #[error("the webhook URL names no host")]
    NoHost,
    #[error("the webhook URL names this machine or its local network")]
    LocalName,
    #[error("the webhook URL leads to an address that is not public ({kind})")]
    Address { kind: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, url: &str) -> Result<Route, Refused> {
        guard.check_url(&Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")))
    }

    fn strict() -> Guard {
        Guard::new::<&str>(&[]).unwrap()
    }

    #[test]
    fn public_https_is_admitted() {
        for url in [
            "https://example.com/hook",
            "https://example.com:8443/hook?token=1",
            "https://EXAMPLE.com./",
            "https://8.8.8.8/",
            "https://172.15.255.255/",
            "https://172.32.0.0/",
            "https://100.63.255.255/",
            "https://100.128.0.0/",
            "https://[2606:4700:4700::1111]/",
            "https://[2a00:1450:4001::200e]/",
            "https://localhost.example.com/",
            "https://notlocalhost/",
            "https://thelocal/",
            "https://b\u{fc}cher.example/",
        ] {
            assert_eq!(check(&strict(), url), Ok(Route::Public), "{url}");
        }
    }

    #[test]
    fn addresses_that_are_not_public() {
        for (host, kind) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.1", "carrier-grade NAT"),
            ("100.100.100.200", "carrier-grade NAT"),
            ("100.127.255.255", "carrier-grade NAT"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.1.1", "link-local"),
            ("169.254.169.254", "cloud metadata"),
            ("168.63.129.16", "cloud metadata"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.8", "reserved"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "6to4 relay"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.7", "documentation"),
            ("203.0.113.9", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            // Other spellings of an IPv4 address.
            ("2130706433", "loopback"),
            ("0x7f000001", "loopback"),
            ("0x7f.1", "loopback"),
            ("0177.0.0.1", "loopback"),
            ("017700000001", "loopback"),
            ("127.1", "loopback"),
            ("127.0.1", "loopback"),
            ("0x7F.0x0.0x0.0x1", "loopback"),
            ("0300.0250.1.1", "private"),
            ("3232235777", "private"),
            ("10.1", "private"),
            ("0xa.1", "private"),
            ("127.0.0.1.", "loopback"),
            ("0", "unspecified"),
            ("%31%32%37.0.0.1", "loopback"),
            ("\u{ff11}27.0.0.1", "loopback"),
            ("127\u{3002}0\u{3002}0\u{3002}1", "loopback"),
            ("\u{2460}\u{2461}\u{2466}.0.0.1", "loopback"),
            ("\u{1d7cf}\u{1d7d0}\u{1d7d5}.0.0.1", "loopback"),
            ("1\u{ad}27.0.0.1", "loopback"),
            ("2852039166", "cloud metadata"),
            ("0xa9fea9fe", "cloud metadata"),
            ("[::]", "unspecified"),
            ("[::1]", "loopback"),
            ("[0:0:0:0:0:0:0:1]", "loopback"),
            ("[::ffff:127.0.0.1]", "IPv4-mapped"),
            ("[::ffff:8.8.8.8]", "IPv4-mapped"),
            ("[::ffff:a9fe:a9fe]", "IPv4-mapped"),
            ("[::ffff:10.0.0.1]", "IPv4-mapped"),
            ("[0:0:0:0:0:ffff:7f00:1]", "IPv4-mapped"),
            ("[::127.0.0.1]", "IPv4-compatible"),
            ("[::a9fe:a9fe]", "IPv4-compatible"),
            ("[::ffff:0:127.0.0.1]", "reserved"),
            ("[64:ff9b::7f00:1]", "NAT64"),
            ("[64:ff9b::169.254.169.254]", "NAT64"),
            ("[64:ff9b::8.8.8.8]", "NAT64"),
            ("[64:ff9b:1::a00:1]", "NAT64"),
            ("[2002:7f00:1::]", "6to4"),
            ("[2002:a9fe:a9fe::1]", "6to4"),
            ("[2001:0:7f00:1::]", "Teredo"),
            ("[2001::80ff:fffe]", "Teredo"),
            ("[2001:20::1]", "reserved"),
            ("[2001:db8::1]", "documentation"),
            ("[3fff::1]", "documentation"),
            ("[fd00:ec2::254]", "cloud metadata"),
            ("[fd12:3456::1]", "private"),
            ("[fc00::1]", "private"),
            ("[fe80::1]", "link-local"),
            ("[fec0::1]", "private"),
            ("[febf::1]", "link-local"),
            ("[ff02::1]", "multicast"),
            ("[ff0e::1]", "multicast"),
            ("[100::1]", "reserved"),
            ("[5f00::1]", "reserved"),
            ("[4000::1]", "reserved"),
        ] {
            assert_eq!(
                check(&strict(), &format!("https://{host}/")),
                Err(Refused::Address { kind }),
                "{host}"
            );
        }
    }

    #[test]
    fn urls_refused_for_other_reasons() {
        for (url, why) in [
            ("http://example.com/", Refused::PlainHttp),
            ("http://127.0.0.1/", Refused::PlainHttp),
            ("ftp://example.com/", Refused::Scheme),
            ("file:///etc/passwd", Refused::Scheme),
            ("unix:/run/docker.sock", Refused::Scheme),
            ("HTTP://example.com/", Refused::PlainHttp),
            ("http://example.com:443/", Refused::PlainHttp),
            ("ws://example.com/", Refused::Scheme),
            ("gopher://127.0.0.1:6379/_SET", Refused::Scheme),
            ("data:text/plain,hello", Refused::Scheme),
            ("javascript:alert(1)", Refused::Scheme),
            ("https://user@example.com/", Refused::Credentials),
            ("https://good.example@127.0.0.1/", Refused::Credentials),
            ("https://good.example:443@127.0.0.1/", Refused::Credentials),
            ("https://127.0.0.1@good.example/", Refused::Credentials),
            ("https://%67ood@127.0.0.1/", Refused::Credentials),
            ("https://user:pass@example.com/", Refused::Credentials),
            ("https://:pass@example.com/", Refused::Credentials),
            ("https://example.com@127.0.0.1/", Refused::Credentials),
            ("https://localhost/", Refused::LocalName),
            ("https://LOCALHOST:8443/", Refused::LocalName),
            ("https://localhost./", Refused::LocalName),
            ("https://localhost../", Refused::LocalName),
            ("https://%6cocalhost/", Refused::LocalName),
            ("https://loc\u{ad}alhost/", Refused::LocalName),
            ("https://localhost\u{3002}/", Refused::LocalName),
            ("https://metadata.google.internal./", Refused::LocalName),
            ("https://api.localhost/", Refused::LocalName),
            ("https://localhost.localdomain/", Refused::LocalName),
            ("https://printer.local/", Refused::LocalName),
            ("https://metadata.google.internal/", Refused::LocalName),
            ("https://router.home.arpa/", Refused::LocalName),
            ("https://\u{24c1}ocalhost/", Refused::LocalName),
            ("https://./", Refused::LocalName),
        ] {
            assert_eq!(check(&strict(), url), Err(why), "{url}");
        }
    }

    #[test]
    fn the_allow_list_opens_what_it_names_and_no_more() {
        let public = Ok(Route::Public);
        let listed = Ok(Route::Listed);
        let loopback = Err(Refused::Address { kind: "loopback" });
        let private = Err(Refused::Address { kind: "private" });
        for (entry, url, expected) in [
            // A host: https, any port.
            ("hooks.internal", "https://hooks.internal/", listed),
            ("hooks.internal", "https://Hooks.Internal.:8443/", listed),
            (
                "hooks.internal",
                "http://hooks.internal/",
                Err(Refused::PlainHttp),
            ),
            (
                "hooks.internal",
                "https://a.hooks.internal/",
                Err(Refused::LocalName),
            ),
            ("127.0.0.1", "https://127.0.0.1:9/", listed),
            ("127.0.0.1", "https://2130706433/", listed),
            ("127.0.0.1", "https://127.0.0.2/", loopback),
            ("[::1]", "https://[::1]/", listed),
            ("::1", "https://[::1]/", public),
            // A host and port.
            ("localhost:8443", "https://localhost:8443/", listed),
            (
                "localhost:8443",
                "https://localhost/",
                Err(Refused::LocalName),
            ),
            ("localhost:443", "https://localhost/", listed),
            (
                "localhost:443",
                "https://localhost:444/",
                Err(Refused::LocalName),
            ),
            (
                "localhost:8443",
                "http://localhost:8443/",
                Err(Refused::PlainHttp),
            ),
            // A network: https to literal addresses in it, and to names that
            // resolve into it.
            ("10.1.0.0/16", "https://10.1.2.3/", public),
            ("10.1.2.3/16", "https://10.1.200.3/", public),
            ("10.1.0.0/16", "https://10.2.0.1/", private),
            ("10.1.0.0/16", "http://10.1.2.3/", Err(Refused::PlainHttp)),
            ("fd00:1::/32", "https://[fd00:1::5]/", public),
            ("fd00:1::/32", "https://[fd00:2::5]/", private),
            (
                "127.0.0.0/8",
                "https://[::ffff:127.0.0.1]/",
                Err(Refused::Address {
                    kind: "IPv4-mapped",
                }),
            ),
            // An origin: this scheme, host and port.
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/x", listed),
            (
                "http://127.0.0.1:9000",
                "http://127.0.0.1:9001/",
                Err(Refused::PlainHttp),
            ),
            ("http://127.0.0.1:9000", "https://127.0.0.1:9000/", loopback),
            ("http://hooks", "http://hooks:80/", listed),
            ("https://10.0.0.1", "https://10.0.0.1/", listed),
            (
                "https://10.0.0.1",
                "http://10.0.0.1:443/",
                Err(Refused::PlainHttp),
            ),
            // Never opened.
            (
                "127.0.0.1",
                "https://user@127.0.0.1/",
                Err(Refused::Credentials),
            ),
        ] {
            let guard = Guard::new(&[entry]).unwrap();
            assert_eq!(check(&guard, url), expected, "{entry} for {url}");
        }
    }
}
