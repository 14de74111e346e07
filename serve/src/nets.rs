//! Networks of IP addresses, and which part of an address tells one sender from another. Nothing here looks a name up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// How much of an address counts as one sender, in bits: a provider gives a customer one IPv4 address or 64 bits of IPv6.
const ADDRESS_BITS: (u8, u8) = (32, 64);
/// How much of an address counts as one site, in bits: whoever holds several addresses mostly holds them side by side.
const PREFIX_BITS: (u8, u8) = (24, 48);

/// A network of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

/// A text that is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// It is no address, or the number behind the slash is too large.
    #[error("{0:?} is not a network; write for example 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")]
    Form(String),
    /// Its address has bits behind the length.
    #[error("{given} is not the first address of its network; write {meant}")]
    HostBits {
        /// The text.
        given: String,
        /// The network that it may mean.
        meant: Net,
    },
}

/// Who sent something: one address, and the site that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The address, or the 64 bits of it that one customer of a provider holds.
    pub address: Net,
    /// The addresses around it.
    pub prefix: Net,
}

impl Sender {
    /// The sender that an address stands for.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let bits = |(v4, v6): (u8, u8)| if address.is_ipv4() { v4 } else { v6 };
        Self { address: Net::around(address, bits(ADDRESS_BITS)), prefix: Net::around(address, bits(PREFIX_BITS)) }
    }
}

impl Net {
    /// The network of `bits` bits that holds an address.
    fn around(address: IpAddr, bits: u8) -> Self {
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or_default();
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self { address, bits }
    }

    /// Whether the network holds an address. An IPv4 address that is written as IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::around(address, self.bits) == *self
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let wrong = || NetError::Form(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        let net = Self::around(address, bits);
        if net.address == address { Ok(net) } else { Err(NetError::HostBits { given: text.to_owned(), meant: net }) }
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_and_others_refused() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(net(text).to_string(), shown);
        }
        for wrong in ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "10/8", "a", "10.0.0.0/8/8"] {
            assert_eq!(wrong.parse::<Net>(), Err(NetError::Form(wrong.to_owned())), "{wrong}");
        }
        let told = "10.1.0.0/8".parse::<Net>().unwrap_err().to_string();
        assert!(told.ends_with("write 10.0.0.0/8"), "{told}");
    }

    #[test]
    fn a_network_holds_its_addresses_in_every_spelling() {
        let holds = |network: &str, address: &str| net(network).contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && holds("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1") && !holds("::/0", "10.0.0.1") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::1"));
    }

    #[test]
    fn one_sender_is_an_ipv4_address_or_64_bits_of_ipv6() {
        let of = |address: &str| Sender::of(address.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1").address, of("192.0.2.2").address);
        assert_eq!(of("192.0.2.1").prefix, of("192.0.2.2").prefix);
        assert_ne!(of("192.0.2.1").prefix, of("192.0.3.1").prefix);
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::"));
        assert_ne!(of("2001:db8:0:1::1").address, of("2001:db8:0:2::1").address);
        assert_eq!(of("2001:db8:0:1::1").prefix, of("2001:db8:0:2::1").prefix);
        assert_ne!(of("2001:db8:0:1::1").prefix, of("2001:db8:1:1::1").prefix);
    }
}
