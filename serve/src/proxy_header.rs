//! The header of the PROXY protocol, versions 1 and 2, with which a load balancer says whose connection it passes on. It is
//! read strictly and bounded, and not a byte behind it is read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its line end, as its specification says.
const LONGEST_LINE: usize = 107;
/// The longest part of version 2 behind its first 16 bytes. It holds addresses, and details that are not needed here.
const LONGEST_REST: usize = 2_048;

/// Why a connection's begin is not a header of the PROXY protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    /// The connection broke off.
    #[error("the connection broke off: {0}")]
    Broken(#[from] io::Error),
    /// Something else stands there, or a header of another form.
    #[error("it does not begin with a header of the PROXY protocol")]
    Form,
    /// The header is longer than any that a load balancer writes.
    #[error("its header of the PROXY protocol is too long")]
    TooLong,
}

/// Reads the header: the address that the load balancer was called from, or `None` if the load balancer speaks for itself,
/// as it does for its own health checks.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    // No header is shorter.
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE { read_binary(stream).await } else { read_line(stream, &begin).await }
}

async fn read_line(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    begin: &[u8],
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    if !begin.starts_with(b"PROXY ") || begin.contains(&b'\n') {
        return Err(ProxyHeaderError::Form);
    }
    let mut line = begin.to_vec();
    // Byte by byte, because what stands behind the line belongs to somebody else.
    while !line.ends_with(b"\n") {
        if line.len() == LONGEST_LINE {
            return Err(ProxyHeaderError::TooLong);
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line)
}

fn parse_line(line: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let text = text.and_then(|text| text.strip_prefix("PROXY ")).ok_or(ProxyHeaderError::Form)?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [family, from, to, from_port, to_port] = words[..] else { return Err(ProxyHeaderError::Form) };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: &str| {
        let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
        text.parse::<u16>().ok().filter(|_| plain)
    };
    match (address(from), address(to), port(from_port), port(to_port)) {
        (Some(from), Some(_), Some(port), Some(_)) => Ok(Some(SocketAddr::new(from, port))),
        _ => Err(ProxyHeaderError::Form),
    }
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let [version_and_command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Err(ProxyHeaderError::TooLong);
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match version_and_command {
        // The load balancer speaks for itself.
        0x20 => Ok(None),
        0x21 => parse_addresses(family, &rest),
        _ => Err(ProxyHeaderError::Form),
    }
}

/// The source among the addresses of version 2: source, destination, then their ports.
fn parse_addresses(family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let port = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let found = match family {
        // Unspecified: the load balancer does not know.
        0x00 => return Ok(None),
        // TCP over IPv4.
        0x11 => {
            let from = rest.first_chunk::<4>().map(|bytes| IpAddr::V4(Ipv4Addr::from(*bytes)));
            from.zip(port(8)).filter(|_| rest.len() >= 12)
        }
        // TCP over IPv6.
        0x21 => {
            let from = rest.first_chunk::<16>().map(|bytes| IpAddr::V6(Ipv6Addr::from(*bytes)));
            from.zip(port(32)).filter(|_| rest.len() >= 36)
        }
        _ => None,
    };
    let (address, port) = found.ok_or(ProxyHeaderError::Form)?;
    Ok(Some(SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, and what is left behind it.
    async fn read_from(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyHeaderError>, usize) {
        let mut left = bytes;
        let read = read(&mut left).await;
        (read, left.len())
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn both_versions_are_read_and_not_a_byte_more() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let v6 = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16], &[0, 1, 0, 80]].concat();
        for (header, sender) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(), Some("192.0.2.1:4660")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 80\r\n".to_vec(), Some("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN a b c\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some("192.0.2.1:4660")),
            (binary(0x21, 0x11, &[&v4[..], &[3, 0, 1, 9]].concat()), Some("192.0.2.1:4660")),
            (binary(0x21, 0x21, &v6), Some("[2001:db8::1]:1")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x21, 0x00, &[]), None),
        ] {
            let (read, left) = read_from(&[&header[..], b"POST"].concat()).await;
            assert_eq!(read.unwrap().map(|sender| sender.to_string()).as_deref(), sender, "{header:?}");
            assert_eq!(left, 4, "{header:?}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let short = [192, 0, 2, 1, 10, 0, 0, 1, 0, 80, 0];
        for wrong in [
            b"POST / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80 9\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 04660 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +4660 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 80\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY UNKNOWNS\r\n".to_vec(),
            b"proxy TCP4 192.0.2.1 10.0.0.1 1 80\r\n".to_vec(),
            [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat(),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x21, 0x12, &[0; 12]),
            binary(0x21, 0x31, &[0; 216]),
            binary(0x21, 0x11, &short),
            binary(0x21, 0x21, &[0; 35]),
            binary(0x21, 0x11, &[0; LONGEST_REST + 1]),
            binary(0x21, 0x11, &[0; 12])[..20].to_vec(),
            b"PROXY".to_vec(),
        ] {
            let read = read_from(&wrong).await.0;
            assert!(read.is_err(), "{:?}: {read:?}", String::from_utf8_lossy(&wrong));
        }
    }
}
