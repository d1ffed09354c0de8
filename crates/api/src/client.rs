//! The address of the client, where proxies stand before the server.
//!
//! Whoever connects is believed to be itself. Only a trusted proxy is believed when it names somebody else, and only the last
//! address in its list that is no trusted proxy: what stands further left, any client may have written.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The networks of proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text that is no list of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNetwork;

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("networks are like 10.0.0.0/8, fd00::/8 or 192.0.2.1, separated by commas")
    }
}

impl std::error::Error for InvalidNetwork {}

impl FromStr for TrustedProxies {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let network = |text: &str| {
            let address = |_| text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(address).map_err(|_| InvalidNetwork)
        };
        text.split(',').map(|entry| network(entry.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    /// The client of a request that `peer` has sent.
    ///
    /// Proxies write `X-Forwarded-For` or `Forwarded`, and pass the other one on as it came: where the two differ, one is the
    /// client's invention, and it is the proxy itself that is counted.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let by_list = self.last_stranger(peer, headers, &X_FORWARDED_FOR, address);
        let by_standard = self.last_stranger(peer, headers, &FORWARDED, forwarded_for);
        match (by_list, by_standard) {
            (Some(client), None) | (None, Some(client)) => client,
            (Some(one), Some(other)) if one == other => one,
            _ => peer,
        }
    }

    /// Whether an address, in canonical form, is that of a trusted proxy.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The last hop that is no trusted proxy, or the first there is. An entry that is no address ends the list: whoever wrote
    /// it is all that is known. `None` without the header.
    fn last_stranger(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        name: &HeaderName,
        parse: fn(&str) -> Option<IpAddr>,
    ) -> Option<IpAddr> {
        let mut hops = headers.get_all(name).peekable();
        hops.peek()?;
        // A text that is not ASCII is one bad entry.
        let lines: Vec<&str> = hops.map(|line| line.to_str().unwrap_or_default()).collect();
        let mut last = peer;
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(hop) = parse(entry.trim()) else { break };
            last = hop.to_canonical();
            if !self.trusts(last) {
                break;
            }
        }
        Some(last)
    }
}

/// An entry of `X-Forwarded-For`: an address, perhaps with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse().ok().map(|address: SocketAddr| address.ip()))
}

/// The `for` of an element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, node) = nodes.next()?;
    let node = node.trim();
    address(node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node))
}

/// The address that stands for one subscriber in limits: an IPv4 address itself, the /64 of an IPv6 address.
#[must_use]
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{header_bytes, headers};

    /// An address of a proxy, or of somebody else.
    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 3]>().prop_map(|[b, c, d]| IpAddr::from([10, b, c, d])),
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u16; 8]>().prop_map(IpAddr::from),
        ]
        .prop_map(|address| address.to_canonical())
    }

    /// What proxies write, or try to.
    fn entries() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            header_bytes(),
            "((for=)?\"?[0-9a-f.:\\[\\]]{0,20}\"?[,;] ?){0,3}".prop_map(String::into_bytes),
            addresses().prop_map(|address| format!("for=\"{address}\"").into_bytes()),
        ]
    }

    proptest! {
        #[test]
        fn whatever_stands_in_the_headers_a_stranger_is_itself(
            lines in prop::collection::vec((any::<bool>(), entries()), 0..4),
            peer in addresses(),
        ) {
            let proxies: TrustedProxies = "10.0.0.0/8".parse().unwrap();
            let mut headers = HeaderMap::new();
            for (is_list, line) in lines {
                let name = if is_list { X_FORWARDED_FOR } else { FORWARDED };
                headers.append(name, HeaderValue::from_bytes(&line).unwrap());
            }
            let client = proxies.client(peer, &headers);
            prop_assert_eq!(client, client.to_canonical(), "one address has one form");
            prop_assert!(proxies.trusts(peer) || client == peer);
        }

        #[test]
        fn the_client_is_the_last_stranger_of_any_list(hops in prop::collection::vec(addresses(), 1..6)) {
            let proxies: TrustedProxies = "10.0.0.0/8".parse().unwrap();
            let stranger = hops.iter().rev().find(|hop| !proxies.trusts(**hop));
            let list = |write: fn(&IpAddr) -> String| hops.iter().map(write).collect::<Vec<_>>().join(", ");
            for headers in [
                headers(X_FORWARDED_FOR, &[list(IpAddr::to_string)]),
                headers(FORWARDED, &[list(|hop| format!("proto=https;for=\"{hop}\""))]),
            ] {
                let client = proxies.client(IpAddr::from([10, 0, 0, 1]), &headers);
                prop_assert_eq!(client, *stranger.unwrap_or(&hops[0]));
            }
        }

        #[test]
        fn an_address_is_read_in_each_of_its_forms(address in addresses(), port in any::<u16>()) {
            let bare = address.to_string();
            for text in [&bare, &SocketAddr::new(address, port).to_string(), &format!("[{bare}]")] {
                prop_assert_eq!(super::address(text), Some(address), "{}", text);
                let element = format!("proto=http; For=\"{text}\"");
                prop_assert_eq!(forwarded_for(&element), Some(address), "{}", element);
            }
        }

        #[test]
        fn networks_are_read_as_they_are_written(
            networks in prop::collection::vec((addresses(), 0..=32_u8), 1..4),
        ) {
            let networks: Vec<IpNet> =
                networks.into_iter().map(|(address, bits)| IpNet::new(address, bits).unwrap()).collect();
            let text: Vec<String> = networks.iter().map(IpNet::to_string).collect();
            let read = text.join(", ").parse::<TrustedProxies>();
            prop_assert_eq!(read.map(|proxies| proxies.0), Ok(networks));
        }

        #[test]
        fn any_text_is_networks_or_none(text in prop_oneof!["[0-9a-f.:/, ]{0,30}", ".*"]) {
            match text.parse::<TrustedProxies>() {
                Err(error) => prop_assert_eq!(error, InvalidNetwork),
                Ok(TrustedProxies(networks)) => prop_assert_eq!(networks.len(), text.split(',').count()),
            }
        }
    }

    fn client(peer: &str, headers: &[(&str, &str)]) -> String {
        let proxies: TrustedProxies = "10.0.0.0/8, fd00::/8".parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &map).to_string()
    }

    const LIST: &str = "x-forwarded-for";

    #[test]
    fn a_stranger_is_itself_whatever_it_says() {
        assert_eq!(client("192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(
            client("192.0.2.1", &[(LIST, "198.51.100.7"), ("forwarded", "for=198.51.100.7")]),
            "192.0.2.1"
        );
        assert_eq!(client("::ffff:192.0.2.1", &[(LIST, "198.51.100.7")]), "192.0.2.1");
        let nobody = TrustedProxies::default();
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("198.51.100.7"));
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(nobody.client(loopback, &headers), loopback, "nobody is trusted unless it is said");
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_is_the_client() {
        for (list, expected) in [
            ("198.51.100.7", "198.51.100.7"),
            ("1.1.1.1, 198.51.100.7", "198.51.100.7"),
            ("1.1.1.1,198.51.100.7,10.9.9.9", "198.51.100.7"),
            ("10.1.1.1, 198.51.100.7, 10.2.2.2, 10.3.3.3", "198.51.100.7"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("1.1.1.1, unknown", "10.0.0.1"),
            ("1.1.1.1, unknown, 10.5.5.5", "10.5.5.5"),
            ("1.1.1.1,", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[(LIST, list)]), expected, "{list}");
        }
        assert_eq!(client("fd00::1", &[(LIST, "198.51.100.7")]), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &[(LIST, "1.1.1.1"), (LIST, "198.51.100.7")]),
            "198.51.100.7",
            "two lines"
        );
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_standard_header_is_read_too() {
        for (element, expected) in [
            ("for=198.51.100.7", "198.51.100.7"),
            ("For=\"198.51.100.7:4711\";proto=https;by=10.0.0.1", "198.51.100.7"),
            ("for=1.1.1.1, proto=http;for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("for=198.51.100.7, for=10.4.4.4", "198.51.100.7"),
            ("for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", element)]), expected, "{element}");
        }
    }

    #[test]
    fn networks_are_cidr_or_single_addresses() {
        let proxies: TrustedProxies = "192.0.2.1,2001:db8::/32".parse().unwrap();
        assert!(
            proxies.trusts("192.0.2.1".parse().unwrap()) && !proxies.trusts("192.0.2.2".parse().unwrap())
        );
        assert!(proxies.trusts("2001:db8::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "proxy", "10.0.0.0/8,", "10.0.0"] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
    }

    #[test]
    fn two_headers_that_differ_are_nobodys_word() {
        let honest = ("forwarded", "for=198.51.100.7");
        assert_eq!(client("10.0.0.1", &[(LIST, "198.51.100.7"), honest]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[(LIST, "1.2.3.4"), honest]), "10.0.0.1");
    }

    #[test]
    fn one_subscriber_has_a_64_of_ipv6() {
        let of = |address: &str| subscriber(address.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:aaaa:bbbb:cccc:dddd"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
