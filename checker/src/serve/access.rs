//! Who may ask: networks, the client's address behind proxies, the token, the secret path.
//!
//! Pure decisions over what a request brings; nothing is looked up. What cannot be understood is not trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use ipnet::IpNet;
use shared::config::Access;
use shared::settings::Network;
use subtle::ConstantTimeEq as _;

/// The header that the token comes in.
pub const TOKEN_HEADER: &str = "x-probe-token";

/// The token that a header `Authorization` holds, whose scheme must be `Bearer` (RFC 6750).
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(token)
}

const BEARER: &[u8] = b"Bearer ";

/// The headers in which proxies tell whom they ask for.
pub const FORWARDING: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// What a request brings that decides who it is from.
#[derive(Clone, Copy, Debug)]
pub struct From<'r> {
    /// The other end of the connection; nothing where that is not known.
    pub peer: Option<IpAddr>,
    /// The lines of the header that [`Access::client_ip_header`] names, in their order.
    pub forwarded: &'r [&'r [u8]],
    /// Whether another header of [`FORWARDING`] tells who it is asked for.
    pub told_elsewhere: bool,
    /// What came as token.
    pub token: Option<&'r [u8]>,
}

/// Whether who asks may.
pub fn allows(access: &Access, from: From<'_>) -> bool {
    let token = access.token.expose().as_bytes();
    // Both are looked at, so that nobody can tell by the time which one it was.
    let known = token.is_empty() | bool::from(from.token.unwrap_or_default().ct_eq(token));
    let near = access.networks.is_empty()
        || client(access, from).is_some_and(|client| is_in(&access.networks, client));
    known && near
}

/// The rest of a path behind the secret, beginning with its slash; the path itself where there is none.
pub fn behind_secret<'p>(access: &Access, path: &'p str) -> Option<&'p str> {
    let secret = access.path_secret.expose();
    if secret.is_empty() {
        return Some(path);
    }
    let inner = path.strip_prefix('/')?;
    let (first, _) = inner.split_once('/').unwrap_or((inner, ""));
    let rest = &inner[first.len()..];
    bool::from(first.as_bytes().ct_eq(secret.as_bytes())).then_some(if rest.is_empty() { "/" } else { rest })
}

/// The client's address: the peer's own, or, as long as that is a trusted proxy's, the one that it was asked from. Nothing
/// where a trusted proxy gives what is no address, or says it in a header that is not the one agreed upon: it asks for somebody, and
/// not for itself.
pub fn client(access: &Access, from: From<'_>) -> Option<IpAddr> {
    let mut client = from.peer?.to_canonical();
    if from.forwarded.is_empty() && from.told_elsewhere && is_in(&access.trusted_proxies, client) {
        return None;
    }
    let elements = if access.client_ip_header.eq_ignore_ascii_case("forwarded") {
        from.forwarded.iter().flat_map(|line| forwarded(line)).collect()
    } else {
        from.forwarded
            .iter()
            .flat_map(|line| line.split(|byte| *byte == b',').map(address))
            .collect::<Vec<_>>()
    };
    for element in elements.into_iter().rev() {
        if !is_in(&access.trusted_proxies, client) {
            break;
        }
        client = element?;
    }
    Some(client)
}

fn is_in(networks: &[Network], address: IpAddr) -> bool {
    let within = |network: &IpNet| match address {
        IpAddr::V4(four) => {
            network.contains(&address) || network.contains(&IpAddr::V6(four.to_ipv6_mapped()))
        }
        IpAddr::V6(_) => network.contains(&address),
    };
    networks.iter().any(|Network(network)| within(network))
}

/// The elements of a line of `Forwarded` (RFC 7239), each by its `for`. A line whose quotes do not match may hide who wrote which
/// part of it, so none of it is understood.
fn forwarded(line: &[u8]) -> Vec<Option<IpAddr>> {
    let (mut elements, mut begin, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b'\\' => return vec![None],
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                elements.push(&line[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return vec![None];
    }
    elements.push(&line[begin..]);
    elements.into_iter().map(forwarded_for).collect()
}

fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let mut found = None;
    for (key, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
        if key.trim().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    let value = found?;
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    address(bare.as_bytes())
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets, which it must have before a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address = text.parse::<Ipv4Addr>().map(IpAddr::V4).ok();
    let address =
        address.or_else(|| text.parse::<SocketAddrV4>().ok().map(|socket| IpAddr::V4(*socket.ip())));
    let address = address.or_else(|| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)).or_else(bracketed);
    let address = address.or_else(|| {
        text.parse::<SocketAddrV6>()
            .ok()
            .filter(|socket| socket.scope_id() == 0)
            .map(|socket| IpAddr::V6(*socket.ip()))
    });
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        let network =
            |text: &&str| Network(text.parse().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into()));
        texts.iter().map(network).collect()
    }

    fn found(header: &str, peer: &str, lines: &[&[u8]]) -> Option<String> {
        let access = Access {
            trusted_proxies: networks(&["10.0.0.0/8", "fd00::/8"]),
            client_ip_header: header.to_owned(),
            ..Access::default()
        };
        let from =
            From { peer: Some(peer.parse().unwrap()), forwarded: lines, told_elsewhere: false, token: None };
        client(&access, from).map(|client| client.to_string())
    }

    fn behind(lines: &[&[u8]]) -> Option<String> {
        found("X-Forwarded-For", "10.0.0.1", lines)
    }

    #[test]
    fn the_client_is_the_last_address_from_the_right_that_is_no_trusted_proxy() {
        for (line, client) in [
            (&b"1.2.3.4"[..], "1.2.3.4"),
            (b"8.8.8.8, 1.2.3.4", "1.2.3.4"),
            (b"8.8.8.8, 1.2.3.4, 10.0.0.2,10.9.9.9", "1.2.3.4"),
            (b"garbage, 8.8.8.8", "8.8.8.8"),
            (b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
            (b"2001:db8::1, fd00::2", "2001:db8::1"),
            (b"::ffff:1.2.3.4", "1.2.3.4"),
            (b"1.2.3.4, ::ffff:10.0.0.9", "1.2.3.4"),
            (b"\t1.2.3.4:5678 ", "1.2.3.4"),
            (b"[2001:db8::1]:443", "2001:db8::1"),
            (b"[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(behind(&[line]).as_deref(), Some(client), "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(behind(&[b"8.8.8.8", b"1.2.3.4, 10.0.0.2"]).as_deref(), Some("1.2.3.4"));
    }

    #[test]
    fn a_proxy_that_forwards_nothing_asks_for_itself() {
        assert_eq!(behind(&[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(found("X-Forwarded-For", "::ffff:10.0.0.1", &[b"1.2.3.4"]).as_deref(), Some("1.2.3.4"));
    }

    #[test]
    fn a_trusted_proxy_that_tells_whom_it_asks_for_in_another_header_asks_for_nobody_known() {
        let access = Access { trusted_proxies: networks(&["10.0.0.0/8"]), ..Access::default() };
        for (peer, forwarded, told_elsewhere, expected) in [
            ("10.0.0.1", &[][..], true, None),
            ("10.0.0.1", &[], false, Some("10.0.0.1")),
            ("10.0.0.1", &[&b"1.2.3.4"[..]], true, Some("1.2.3.4")),
            ("192.0.2.1", &[], true, Some("192.0.2.1")),
        ] {
            let from = From { peer: peer.parse().ok(), forwarded, told_elsewhere, token: None };
            let client = client(&access, from).map(|client| client.to_string());
            assert_eq!(client.as_deref(), expected, "{from:?}");
        }
    }

    #[test]
    fn who_is_no_trusted_proxy_is_the_client_whatever_it_says() {
        for line in [&b"10.0.0.1"[..], b"127.0.0.1", b"", b"garbage"] {
            assert_eq!(found("X-Forwarded-For", "192.0.2.1", &[line]).as_deref(), Some("192.0.2.1"));
        }
    }

    #[test]
    fn what_is_no_address_is_nobody_and_never_the_proxy() {
        for line in [
            &b""[..],
            b" ",
            b"garbage",
            b"unknown",
            b"8.8.8.8, garbage",
            b"8.8.8.8,",
            b"8.8.8.8, 10.0.0.2:x",
            b"1.2.3",
            b"01.2.3.4",
            b"1.2.3.4:",
            b"1.2.3.4:99999",
            b"2001:db8::1]:1",
            b"[2001:db8::1",
            b"[1.2.3.4]",
            b"fe80::1%eth0",
            b"[fe80::1%1]:1",
            b"1.2.3.4 5.6.7.8",
            b"\xff",
        ] {
            assert_eq!(behind(&[line]).as_deref(), None, "{}", String::from_utf8_lossy(line));
        }
        // What nobody trusted has said is not looked at.
        assert_eq!(behind(&[b"garbage, \xff, 8.8.8.8"]).as_deref(), Some("8.8.8.8"));
    }

    #[test]
    fn forwarded_is_understood_too() {
        let behind = |lines: &[&[u8]]| found("forwarded", "10.0.0.1", lines);
        for (line, client) in [
            (&b"for=1.2.3.4"[..], Some("1.2.3.4")),
            (b"For=\"[2001:db8:cafe::17]:4711\"", Some("2001:db8:cafe::17")),
            (b"for=8.8.8.8, for=1.2.3.4;proto=http;by=203.0.113.43", Some("1.2.3.4")),
            (b"for=1.2.3.4, proto=https;for=10.0.0.2", Some("1.2.3.4")),
            (b"for=\"1.2.3.4:80\"", Some("1.2.3.4")),
            (b"for=unknown", None),
            (b"for=_hidden", None),
            (b"proto=https", None),
            (b"", None),
            (b"for=1.2.3.4;for=10.0.0.9", None),
            (b"for=\"1.2.3.4, for=10.0.0.9", None),
            (b"for=\"8.8.8.8, 10.0.0.9\"", None),
            (b"for=\"x, for=1.2.3.4;y\"", None),
            (b"for=\"a\\\"b\", for=10.0.0.9", None),
            (b"for=1.2.3.4;by=\"_\\x\"", None),
        ] {
            assert_eq!(behind(&[line]).as_deref(), client, "{}", String::from_utf8_lossy(line));
        }
        // A client that opens a quote swallows what the proxy writes behind it.
        assert_eq!(behind(&[b"for=\"10.0.0.9;x=, for=8.8.8.8"]).as_deref(), None);
        assert_eq!(behind(&[b"for=\"x", b"for=1.2.3.4"]).as_deref(), Some("1.2.3.4"));
    }

    fn asks(access: &Access, peer: Option<&str>, token: Option<&[u8]>) -> bool {
        let peer = peer.map(|peer| peer.parse().unwrap());
        allows(access, From { peer, forwarded: &[], told_elsewhere: false, token })
    }

    #[test]
    fn without_rules_everyone_may_ask() {
        assert!(asks(&Access::default(), None, None));
    }

    #[test]
    fn networks_hold_for_either_form_of_an_address_and_nobody_known_is_in_one() {
        let access = Access {
            networks: networks(&["10.0.0.0/8", "::1", "::ffff:192.0.2.0/120"]),
            ..Access::default()
        };
        for (peer, may) in [
            (Some("10.1.2.3"), true),
            (Some("::ffff:10.1.2.3"), true),
            (Some("192.0.2.9"), true),
            (Some("::1"), true),
            (Some("127.0.0.1"), false),
            (Some("::2"), false),
            (None, false),
        ] {
            assert_eq!(asks(&access, peer, None), may, "{peer:?}");
        }
    }

    #[test]
    fn a_token_may_be_any_bytes_and_must_be_the_very_same() {
        let access = Access { token: "Gehéim".to_owned().into(), ..Access::default() };
        for (token, may) in [
            (Some("Gehéim".as_bytes()), true),
            (Some(b"Geh\xe9im"), false),
            (Some(b"Geh"), false),
            (Some(b""), false),
            (Some(b"\xff\xfe\x00"), false),
            (None, false),
        ] {
            assert_eq!(asks(&access, None, token), may, "{token:?}");
        }
        let both = Access { networks: networks(&["10.0.0.0/8"]), ..access };
        assert!(asks(&both, Some("10.0.0.1"), Some("Gehéim".as_bytes())));
        assert!(!asks(&both, Some("192.0.2.1"), Some("Gehéim".as_bytes())));
        assert!(!asks(&both, Some("10.0.0.1"), None));
    }

    #[test]
    fn a_bearer_is_all_behind_its_scheme() {
        for (header, token) in [
            (&b"Bearer S3cret"[..], Some(&b"S3cret"[..])),
            (b"bearer \xff S3cret", Some(b"\xff S3cret")),
            (b"Bearer ", Some(b"")),
            (b"Bearer", None),
            (b"Basic S3cret", None),
            (b"S3cret", None),
            (b"", None),
        ] {
            assert_eq!(bearer(header), token, "{header:?}");
        }
    }

    #[test]
    fn a_secret_path_is_the_first_part_and_nothing_less() {
        let open = Access::default();
        assert_eq!(behind_secret(&open, "/readyz"), Some("/readyz"));
        let secret = Access { path_secret: "s-3.cret".to_owned().into(), ..open };
        for (path, rest) in [
            ("/s-3.cret/readyz", Some("/readyz")),
            ("/s-3.cret/", Some("/")),
            ("/s-3.cret", Some("/")),
            ("/readyz", None),
            ("/s-3.cre/readyz", None),
            ("/s-3.cretx/readyz", None),
            ("//s-3.cret/readyz", None),
            ("/", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(behind_secret(&secret, path), rest, "{path}");
        }
    }
}
