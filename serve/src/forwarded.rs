//! The sender of a request that came through proxies, as the header says that the proxies add to. Only the part that trusted
//! proxies wrote is believed: the header is read from its end, up to the first address that is no trusted proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::nets::Net;

/// Proxies in a row that are looked at, from the last one. A longer row is a loop or an attack.
const MOST_HOPS: usize = 32;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header to which the proxies add the address that they were called from. A proxy mostly passes the other one on as the
/// client wrote it, so only one of them is ever read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: ADDRESS, ADDRESS`, as most proxies write it.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=ADDRESS, for=ADDRESS` (RFC 7239).
    Forwarded,
}

/// The address that a request came from: that of the peer, or, if the peer is a trusted proxy, the last one in the header
/// that is no trusted proxy. Where the header holds something else than an address, it is the proxy that wrote it.
#[must_use]
pub fn sender(headers: &HeaderMap, which: ForwardedHeader, peer: IpAddr, trusted: &[Net]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut last = peer;
    if !is_trusted(peer) {
        return peer;
    }
    let name = match which {
        ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
        ForwardedHeader::Forwarded => header::FORWARDED,
    };
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    // A comma inside quotation marks is no end of a hop, but no address holds one, and a client could open a quotation that
    // hides what the proxy adds.
    let hops = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops.take(MOST_HOPS) {
        let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim(), which)) else { break };
        last = address;
        if !is_trusted(address) {
            break;
        }
    }
    last
}

/// The address of one hop.
fn address(hop: &str, which: ForwardedHeader) -> Option<IpAddr> {
    match which {
        ForwardedHeader::XForwardedFor => with_or_without_port(hop),
        ForwardedHeader::Forwarded => {
            let mut named = hop.split(';').filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
            });
            let value = named.next().filter(|_| named.next().is_none())?;
            let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            with_or_without_port(bare)
        }
    }
}

fn with_or_without_port(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let plain = || text.parse::<IpAddr>().ok().or_else(bracketed);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    // RFC 7239 allows a port that is not a number.
    let with_hidden_port = || text.split_once(":_")?.0.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    plain().or_else(with_port).or_else(with_hidden_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(which: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let trusted: Vec<Net> = ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        let name = if which == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        sender(&headers, which, peer.parse().unwrap(), &trusted).to_string()
    }

    #[test]
    fn the_last_hop_that_is_no_trusted_proxy_is_the_sender() {
        let x = |peer, lines: &[&str]| asked(ForwardedHeader::XForwardedFor, peer, lines);
        for (lines, sender) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            // What the client claims itself stands before what the proxies add.
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.9", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1:5678"], "192.0.2.1"),
            (&["[2001:db8::1]:5678, fd00::1"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            // No other hop than trusted proxies: the first of them sent it.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // What is no address ends the row: the proxy that wrote it is the sender.
            (&["192.0.2.1, unknown"], "10.0.0.1"),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.1,"], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(x("10.0.0.1", lines), sender, "{lines:?}");
            assert_eq!(x("::ffff:10.0.0.1", lines).trim_start_matches("::ffff:"), sender, "{lines:?}");
        }
        assert_eq!(x("192.0.2.7", &["192.0.2.1"]), "192.0.2.7", "nobody else is believed");
        let loops = vec!["10.0.0.9"; 5_000].join(",");
        assert_eq!(x("10.0.0.1", &["192.0.2.1", &loops]), "10.0.0.9", "a row without end is not read");
    }

    #[test]
    fn the_standard_header_is_read_as_well() {
        let forwarded = |lines: &[&str]| asked(ForwardedHeader::Forwarded, "10.0.0.1", lines);
        for (line, sender) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1:80\";proto=https;by=10.0.0.1", "192.0.2.1"),
            ("proto=https; for=\"[2001:db8::1]:_x\"", "10.0.0.1"),
            ("for=198.51.100.9, for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=192.0.2.1:_hidden", "192.0.2.1"),
            ("for=198.51.100.9, for=unknown", "10.0.0.1"),
            ("for=198.51.100.9, for=_secret", "10.0.0.1"),
            ("for=198.51.100.9;for=192.0.2.1", "10.0.0.1"),
            // A quotation that a client leaves open hides nothing.
            ("for=\"198.51.100.9, for=192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(forwarded(&[line]), sender, "{line}");
        }
        let mut other = HeaderMap::new();
        other.append("x-forwarded-for", "192.0.2.1".parse().unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(sender(&other, ForwardedHeader::Forwarded, peer, &trusted), peer, "only one header is read");
    }
}
