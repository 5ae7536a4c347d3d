//! Hosts: the one way they are spelled, and which names and addresses are public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use url::Host;

/// A host in the one form that comparisons use: the url crate has lowered the
/// case, decoded and turned `0x7f.1` into `127.0.0.1`; the dots at the end go.
pub fn plain_host<S: AsRef<str>>(host: Host<S>) -> Host<String> {
    match host {
        Host::Domain(name) => Host::Domain(name.as_ref().trim_end_matches('.').to_owned()),
        Host::Ipv4(ip) => Host::Ipv4(ip),
        Host::Ipv6(ip) => Host::Ipv6(ip),
    }
}

/// What kind of address this is when it is not a public unicast one.
pub fn not_public(address: IpAddr) -> Option<&'static str> {
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

/// Names that mean this machine or its network wherever they are resolved:
/// RFC 6761 `localhost`, RFC 6762 `local`, ICANN's `internal` (where cloud
/// metadata services live), RFC 8375 `home.arpa`.
pub fn is_local_name(name: &str) -> bool {
    const LOCAL: [&str; 5] = ["localhost", "localdomain", "local", "internal", "home.arpa"];
    name.is_empty()
        || LOCAL.iter().any(|local| {
            name.strip_suffix(local)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
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
    (v6([0x2001, 0, 0, 0], 32), "Teredo"),
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
