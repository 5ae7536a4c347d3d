//! Where a webhook may go. A caller names the target, so the target is hostile
//! input: it must not make this process call the machines around it.
//!
//! The rules are checked on the URL when it is admitted, again before every
//! attempt, and on every address that its name resolves to; the connection is
//! made to exactly the addresses that passed, so a name that changes between
//! check and use gains nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

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
        let listed = self.exceptions.iter().any(
            |exception| matches!(exception, Exception::Net(network) if network.contains(&address)),
        );
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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` in the webhook allow-list is not a host, `host:port`, a network such as `10.1.0.0/16`, or an origin such as `http://127.0.0.1:9000`"
)]
pub struct BadAllowEntry {
    pub entry: String,
}

/// A resolver that hands out only addresses that the guard admits. A name with
/// none of them is refused, with [`Refused`] in the error's chain of causes.
pub struct GuardedResolver {
    guard: Guard,
    inner: Arc<dyn Resolve>,
}

impl GuardedResolver {
    pub fn new(guard: Guard, inner: Arc<dyn Resolve>) -> Self {
        GuardedResolver { guard, inner }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.guard.clone();
        let resolving = self.inner.resolve(name);
        Box::pin(async move {
            let mut admitted = Vec::new();
            let mut refused = None;
            for address in resolving.await? {
                match guard.check_address(address.ip()) {
                    Ok(()) => admitted.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if admitted.is_empty() => Err(why.into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
            }
        })
    }
}

/// The operating system's resolver.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[derive(Debug, Clone)]
enum Exception {
    Net(IpNet),
    /// https to the host, on any port or on one.
    Host {
        host: Host<String>,
        port: Option<u16>,
    },
    Origin {
        secure: bool,
        host: Host<String>,
        port: u16,
    },
}

impl Exception {
    fn parse(entry: &str) -> Result<Self, BadAllowEntry> {
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

    fn lists(&self, secure: bool, host: &Host<String>, port: u16) -> bool {
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
}

/// A host in the one form that comparisons use: the url crate has lowered the
/// case, decoded and turned `0x7f.1` into `127.0.0.1`; the dots at the end go.
fn plain_host<S: AsRef<str>>(host: Host<S>) -> Host<String> {
    match host {
        Host::Domain(name) => Host::Domain(name.as_ref().trim_end_matches('.').to_owned()),
        Host::Ipv4(ip) => Host::Ipv4(ip),
        Host::Ipv6(ip) => Host::Ipv6(ip),
    }
}

/// Names that mean this machine or its network wherever they are resolved:
/// RFC 6761 `localhost`, RFC 6762 `local`, ICANN's `internal` (where cloud
/// metadata services live), RFC 8375 `home.arpa`.
fn is_local_name(name: &str) -> bool {
    const LOCAL: [&str; 5] = ["localhost", "localdomain", "local", "internal", "home.arpa"];
    name.is_empty()
        || LOCAL.iter().any(|local| {
            name.strip_suffix(local)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
}

/// What kind of address this is when it is not a public unicast one.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(ip) => NOT_PUBLIC_V4
            .iter()
            .find_map(|(network, kind)| network.contains(&ip).then_some(*kind)),
        IpAddr::V6(ip) => NOT_PUBLIC_V6
            .iter()
            .find_map(|(network, kind)| network.contains(&ip).then_some(*kind))
            .or_else(|| (!GLOBAL_UNICAST_V6.contains(&ip)).then_some("reserved")),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = first;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

/// IANA's IPv4 special-purpose registry, and Azure's metadata address.
const NOT_PUBLIC_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 169, 254, 32), "cloud metadata"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(168, 63, 129, 16, 32), "cloud metadata"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// Everything that IANA has given out as global unicast so far.
const GLOBAL_UNICAST_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// Exceptions within global unicast, and names for the ranges outside it. The
/// forms that carry an IPv4 address are refused whole: no public host needs
/// one, and which of them a machine translates is not ours to know.
const NOT_PUBLIC_V6: &[(Ipv6Net, &str)] = &[
    (
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128),
        "unspecified",
    ),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
        "IPv4-mapped",
    ),
    (v6([0, 0, 0, 0], 96), "IPv4-compatible"),
    (v6([0x64, 0xff9b, 0, 0], 96), "NAT64"),
    (v6([0x64, 0xff9b, 1, 0], 48), "NAT64"),
    (v6([0x2001, 0, 0, 0], 23), "reserved"),
    (v6([0x2001, 0xdb8, 0, 0], 32), "documentation"),
    (v6([0x2002, 0, 0, 0], 16), "6to4"),
    (v6([0x3fff, 0, 0, 0], 20), "documentation"),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
        "cloud metadata",
    ),
    (v6([0xfc00, 0, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0], 10), "private"),
    (v6([0xff00, 0, 0, 0], 8), "multicast"),
];

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
            ("127.0.0.1.", "loopback"),
            ("0", "unspecified"),
            ("%31%32%37.0.0.1", "loopback"),
            ("\u{ff11}27.0.0.1", "loopback"),
            ("127\u{3002}0\u{3002}0\u{3002}1", "loopback"),
            ("2852039166", "cloud metadata"),
            ("0xa9fea9fe", "cloud metadata"),
            ("[::]", "unspecified"),
            ("[::1]", "loopback"),
            ("[0:0:0:0:0:0:0:1]", "loopback"),
            ("[::ffff:127.0.0.1]", "IPv4-mapped"),
            ("[::ffff:8.8.8.8]", "IPv4-mapped"),
            ("[::ffff:a9fe:a9fe]", "IPv4-mapped"),
            ("[::127.0.0.1]", "IPv4-compatible"),
            ("[64:ff9b::7f00:1]", "NAT64"),
            ("[64:ff9b:1::a00:1]", "NAT64"),
            ("[2002:7f00:1::]", "6to4"),
            ("[2001:0:7f00:1::]", "reserved"),
            ("[2001:20::1]", "reserved"),
            ("[2001:db8::1]", "documentation"),
            ("[3fff::1]", "documentation"),
            ("[fd00:ec2::254]", "cloud metadata"),
            ("[fd12:3456::1]", "private"),
            ("[fc00::1]", "private"),
            ("[fe80::1]", "link-local"),
            ("[fec0::1]", "private"),
            ("[ff02::1]", "multicast"),
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
            ("https://user@example.com/", Refused::Credentials),
            ("https://user:pass@example.com/", Refused::Credentials),
            ("https://:pass@example.com/", Refused::Credentials),
            ("https://example.com@127.0.0.1/", Refused::Credentials),
            ("https://localhost/", Refused::LocalName),
            ("https://LOCALHOST:8443/", Refused::LocalName),
            ("https://localhost./", Refused::LocalName),
            ("https://localhost../", Refused::LocalName),
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

    struct Fixed(Vec<&'static str>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let found: Vec<SocketAddr> = self
                .0
                .iter()
                .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
                .collect();
            Box::pin(std::future::ready(Ok(Box::new(found.into_iter()) as Addrs)))
        }
    }

    #[tokio::test]
    async fn the_resolver_drops_what_is_not_public() {
        for (allow, found, expected) in [
            (vec![], vec!["8.8.8.8", "10.0.0.1"], Ok(vec!["8.8.8.8:0"])),
            (
                vec![],
                vec!["10.0.0.1", "127.0.0.1"],
                Err("the webhook URL leads to an address that is not public (loopback)"),
            ),
            (
                vec!["10.0.0.0/8"],
                vec!["10.0.0.1", "127.0.0.1"],
                Ok(vec!["10.0.0.1:0"]),
            ),
            (vec![], vec![], Ok(vec![])),
        ] {
            let guard = Guard::new(&allow).unwrap();
            let resolver = GuardedResolver::new(guard, Arc::new(Fixed(found)));
            let answer = resolver.resolve("hooks.example".parse().unwrap()).await;
            match expected {
                Ok(addresses) => {
                    let got: Vec<String> = answer.unwrap().map(|a| a.to_string()).collect();
                    assert_eq!(got, addresses);
                }
                Err(why) => {
                    let error = answer.err().unwrap();
                    assert!(error.is::<Refused>());
                    assert_eq!(error.to_string(), why);
                }
            }
        }
    }
}
