//! Decides which addresses may be called. The pure function `judge` decides for literal and for resolved addresses, and
//! the connector asks it for each new connection.
//!
//! The list is written here (the IANA special-purpose registries without their globally reachable blocks, multicast,
//! cloud metadata) and does not depend on a library's idea of "global".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::target::TargetHost;
use crate::model::team::HttpPolicy;

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    base: u128,
    bits: u32,
    v4: bool,
}

impl Net {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        // An address with bits below its prefix is probably a typing mistake.
        let (net, base) = Self::read(text)?;
        (net.base == base).then_some(net)
    }

    /// The network that the address of `10.0.0.1/8` belongs to.
    pub fn around(text: &str) -> Option<Self> {
        Self::read(text).map(|(net, _)| net)
    }

    /// The network, and the address as it was written.
    fn read(text: &str) -> Option<(Self, u128)> {
        let (address, bits) = match text.split_once('/') {
            // The number's own reader would take a sign as well.
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse::<u32>().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let (base, v4, width) = widen(address.parse().ok()?);
        let bits = bits.unwrap_or(width);
        if bits > width {
            return None;
        }
        let net = Self { base, bits, v4 };
        Some((Self { base: net.masked(base), ..net }, base))
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        let (value, v4, _) = widen(ip);
        v4 == self.v4 && self.masked(value) == self.base
    }

    /// Whether it can be a NAT64 prefix: IPv6 and 96 bits long, so that only an IPv4 address follows.
    pub fn is_nat64(&self) -> bool {
        !self.v4 && self.bits == 96
    }

    /// Whether it holds more addresses than `other`, of the same family or not.
    pub fn is_wider_than(&self, other: &Self) -> bool {
        let free = |net: &Self| if net.v4 { 32 - net.bits } else { (128 - net.bits) / 4 };
        free(self) > free(other)
    }

    /// Its size, to be shown to people: "/8 of IPv4".
    pub fn size(&self) -> String {
        format!("/{} of {}", self.bits, if self.v4 { "IPv4" } else { "IPv6" })
    }

    /// Whether it is one single address.
    pub fn is_single(&self) -> bool {
        self.bits == if self.v4 { 32 } else { 128 }
    }

    fn masked(&self, value: u128) -> u128 {
        let width = if self.v4 { 32 } else { 128 };
        let shift = width - self.bits;
        if shift >= 128 { 0 } else { value >> shift << shift }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.base) {
            Ok(base) if self.v4 => write!(f, "{}/{}", Ipv4Addr::from_bits(base), self.bits),
            _ => write!(f, "{}/{}", Ipv6Addr::from_bits(self.base), self.bits),
        }
    }
}

fn widen(ip: IpAddr) -> (u128, bool, u32) {
    match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), true, 32),
        IpAddr::V6(ip) => (ip.to_bits(), false, 128),
    }
}

/// An exception that the operator makes.
#[derive(Debug, Clone)]
pub struct AllowRule {
    pub what: Allowed,
    /// If empty, every port.
    pub ports: Vec<u16>,
    /// If empty, every team.
    pub teams: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Allowed {
    Net(Net),
    /// This name, with every address that it resolves to.
    Host(String),
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub allow: Vec<AllowRule>,
    /// Our own listeners, Kafka and database, by address and port. They are always denied; no rule can allow them.
    pub never: Vec<SocketAddr>,
    /// Addresses of this machine's interfaces.
    pub own: Vec<IpAddr>,
    /// NAT64 prefixes (/96) in use here. Such an address is judged by the IPv4 address inside.
    pub nat64: Vec<Net>,
    pub http: HttpPolicy,
    /// Rises with every change of the policy, so that no connection of an older policy is used.
    pub generation: u64,
}

/// Why an address is refused, exactly, for the operator. Customers get [`CUSTOMERS_REASON`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("it is one of this daemon's own listeners, its Kafka or its database")]
    OwnService,
    #[error("it is an address of this machine")]
    OwnAddress,
    #[error("it is a cloud's metadata service")]
    Metadata,
    #[error("it lies in {0}; an [[egress.allow]] rule would allow it")]
    Special(&'static str),
    #[error("write 127.0.0.1 instead of localhost; an [[egress.allow]] rule must allow this address")]
    Localhost,
    #[error(
        "a host with a single word is not looked up; write its full name, such as hooks.example.com, or allow it with an [[egress.allow]] rule"
    )]
    SingleLabel,
    #[error("the name is of special use ({0}); an [[egress.allow]] rule would allow it")]
    SpecialName(&'static str),
}

/// What a customer reads about any refusal, and about a name that does not exist. All cases look the same, so that
/// nobody can find out which internal names exist.
pub const CUSTOMERS_REASON: &str = "the host can't be called back";

/// Decides whether `ip`:`port`, an address of `host`, may be called for `team`.
///
/// # Errors
/// [`Denied`], the reason for the operator.
pub fn judge(host: &TargetHost, ip: IpAddr, port: u16, team: &str, policy: &Policy) -> Result<(), Denied> {
    let ip = ip.to_canonical();
    let rules = || policy.allow.iter().filter(|rule| rule.applies(port, team));
    // No rule can allow our own services. The address and an IPv4 address inside it are both checked.
    for ip in [Some(ip), embedded(ip, policy)].into_iter().flatten() {
        if policy.never.iter().any(|own| own.port() == port && is_ours(own.ip(), ip, policy)) {
            return Err(Denied::OwnService);
        }
        if METADATA.contains(&ip) {
            let alone = |net: &Net| net.is_single() && net.contains(ip);
            let named = rules().any(|rule| matches!(&rule.what, Allowed::Net(net) if alone(net)));
            return if named { Ok(()) } else { Err(Denied::Metadata) };
        }
    }
    if rules().any(|rule| rule.covers(host, ip)) {
        return Ok(());
    }
    if policy.own.contains(&ip) {
        return Err(Denied::OwnAddress);
    }
    match ip {
        IpAddr::V4(ip) => judge_v4(ip),
        IpAddr::V6(ip) => judge_v6(host, ip, port, team, policy),
    }
}

/// Decides whether a name may be looked up.
///
/// # Errors
/// [`Denied::Localhost`], [`Denied::SingleLabel`] or [`Denied::SpecialName`].
pub fn judge_name(name: &str, port: u16, team: &str, policy: &Policy) -> Result<(), Denied> {
    let named = policy
        .allow
        .iter()
        .filter(|rule| rule.applies(port, team))
        .any(|rule| matches!(&rule.what, Allowed::Host(host) if host.eq_ignore_ascii_case(name)));
    if named {
        return Ok(());
    }
    if name == "localhost" {
        return Err(Denied::Localhost);
    }
    if !name.contains('.') {
        return Err(Denied::SingleLabel);
    }
    let special = SPECIAL_NAMES
        .iter()
        .find(|suffix| name.strip_suffix(**suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    special.map_or(Ok(()), |suffix| Err(Denied::SpecialName(suffix)))
}

impl AllowRule {
    fn applies(&self, port: u16, team: &str) -> bool {
        (self.ports.is_empty() || self.ports.contains(&port))
            && (self.teams.is_empty() || self.teams.iter().any(|own| own == team))
    }

    fn covers(&self, host: &TargetHost, ip: IpAddr) -> bool {
        match (&self.what, host) {
            (Allowed::Net(net), _) => net.contains(ip),
            (Allowed::Host(own), TargetHost::Name(name)) => own.eq_ignore_ascii_case(name),
            (Allowed::Host(_), TargetHost::Address(_)) => false,
        }
    }
}

fn is_ours(listener: IpAddr, ip: IpAddr, policy: &Policy) -> bool {
    listener == ip || (listener.is_unspecified() && (ip.is_loopback() || policy.own.contains(&ip)))
}

fn judge_v4(ip: Ipv4Addr) -> Result<(), Denied> {
    if GLOBAL_V4.contains(&ip) {
        return Ok(());
    }
    in_blocks(IpAddr::V4(ip), &SPECIAL_V4)
}

fn judge_v6(host: &TargetHost, ip: Ipv6Addr, port: u16, team: &str, policy: &Policy) -> Result<(), Denied> {
    let bits = ip.to_bits();
    let inner = Ipv4Addr::from_bits((bits & 0xffff_ffff) as u32);
    if policy.nat64.iter().any(|net| net.contains(IpAddr::V6(ip))) {
        return judge(host, IpAddr::V4(inner), port, team, policy);
    }
    if is_isatap(bits) {
        judge(host, IpAddr::V4(inner), port, team, policy)?;
    }
    if bits >> 125 != 1 {
        return Err(Denied::Special("the addresses outside 2000::/3"));
    }
    if blocks(&GLOBAL_V6).any(|(net, _)| net.contains(IpAddr::V6(ip))) {
        return Ok(());
    }
    in_blocks(IpAddr::V6(ip), &SPECIAL_V6)
}

/// The IPv4 address inside an IPv6 address of NAT64, ISATAP or 6to4.
fn embedded(ip: IpAddr, policy: &Policy) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else { return None };
    let bits = v6.to_bits();
    let low = || IpAddr::V4(Ipv4Addr::from_bits((bits & 0xffff_ffff) as u32));
    let nat64 = policy.nat64.iter().any(|net| net.contains(ip)) || bits >> 32 == 0x0064_ff9b_u128 << 64;
    if nat64 || is_isatap(bits) {
        return Some(low());
    }
    (bits >> 112 == 0x2002).then(|| IpAddr::V4(Ipv4Addr::from_bits(((bits >> 80) & 0xffff_ffff) as u32)))
}

/// The interface part of an ISATAP address is `[0200:]5efe` and an IPv4 address.
fn is_isatap(bits: u128) -> bool {
    matches!((bits >> 32) & 0xffff_ffff, 0x0000_5efe | 0x0200_5efe)
}

fn in_blocks(ip: IpAddr, list: &[&'static str]) -> Result<(), Denied> {
    blocks(list).find(|(net, _)| net.contains(ip)).map_or(Ok(()), |(_, name)| Err(Denied::Special(name)))
}

fn blocks<'l>(list: &'l [&'static str]) -> impl Iterator<Item = (Net, &'static str)> + 'l {
    list.iter().map(|text| (Net::parse(text).expect("the list below is well formed"), *text))
}

/// Cloud metadata services. They are denied even inside an allowed block, unless a rule names the single address.
pub(super) const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)),
];

/// IANA IPv4 special-purpose blocks that are not globally reachable, and multicast.
const SPECIAL_V4: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
];

/// Globally reachable addresses inside 192.0.0.0/24.
const GLOBAL_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 9), Ipv4Addr::new(192, 0, 0, 10)];

/// The blocks of 2000::/3 that are denied: Teredo and other protocol assignments, documentation, 6to4.
const SPECIAL_V6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

/// Globally reachable blocks inside 2001::/23.
const GLOBAL_V6: [&str; 7] = [
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:20::/28",
    "2001:30::/28",
];

const SPECIAL_NAMES: [&str; 9] =
    ["localhost", "local", "localdomain", "internal", "intranet", "lan", "home.arpa", "onion", "invalid"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::target::Target;

    fn policy() -> Policy {
        Policy {
            allow: Vec::new(),
            never: vec!["127.0.0.1:9092".parse().expect("an address")],
            own: vec!["203.0.112.7".parse().expect("an address")],
            nat64: Vec::new(),
            http: HttpPolicy::Allow,
            generation: 0,
        }
    }

    fn of(text: &str, policy: &Policy) -> Result<(), Denied> {
        let ip = text.parse().expect(text);
        judge(&TargetHost::Address(ip), ip, 443, "team_a", policy)
    }

    #[test]
    fn every_special_block_is_refused_at_both_ends() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.1",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.8",
            "192.0.0.255",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2600::5efe:10.0.0.1",
            "2600::200:5efe:127.0.0.1",
        ] {
            assert!(of(text, &policy()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_public_internet_is_allowed() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.0.9",
            "192.0.1.0",
            "192.31.196.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2600::1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2001:3::1",
            "2001:200::1",
            "2600::5efe:8.8.8.8",
        ] {
            assert_eq!(of(text, &policy()), Ok(()), "{text}");
        }
    }

    #[test]
    fn metadata_is_refused_even_inside_an_allowed_net() {
        let rule = |net: &str| AllowRule {
            what: Allowed::Net(Net::parse(net).expect("a net")),
            ports: Vec::new(),
            teams: Vec::new(),
        };
        let wide = Policy { allow: vec![rule("0.0.0.0/0"), rule("::/0")], ..policy() };
        for ip in METADATA {
            assert_eq!(of(&ip.to_string(), &wide), Err(Denied::Metadata), "{ip}");
        }
        for text in ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2600::5efe:169.254.169.254"]
        {
            assert_eq!(of(text, &wide), Err(Denied::Metadata), "{text}");
        }
        let named = Policy { allow: vec![rule("169.254.169.254")], ..policy() };
        assert_eq!(of("169.254.169.254", &named), Ok(()));
        assert_eq!(of("10.0.0.1", &wide), Ok(()));
    }

    #[test]
    fn no_rule_allows_our_own_services() {
        let rule = AllowRule {
            what: Allowed::Net(Net::parse("127.0.0.0/8").expect("a net")),
            ports: Vec::new(),
            teams: Vec::new(),
        };
        let policy = Policy {
            allow: vec![rule],
            never: vec!["127.0.0.1:9092".parse().expect("an address"), "0.0.0.0:8080".parse().expect("an address")],
            ..policy()
        };
        let call = |ip: &str, port| {
            let ip = ip.parse().expect("an address");
            judge(&TargetHost::Address(ip), ip, port, "t", &policy)
        };
        assert_eq!(call("127.0.0.1", 9092), Err(Denied::OwnService));
        assert_eq!(call("::ffff:127.0.0.1", 9092), Err(Denied::OwnService));
        assert_eq!(call("127.0.0.9", 8080), Err(Denied::OwnService), "a listener on every address");
        assert_eq!(call("203.0.112.7", 8080), Err(Denied::OwnService));
        assert_eq!(call("203.0.112.7", 443), Err(Denied::OwnAddress));
        assert_eq!(call("127.0.0.1", 9093), Ok(()));
    }

    #[test]
    fn rules_hold_for_their_ports_and_teams() {
        let rule = AllowRule {
            what: Allowed::Net(Net::parse("10.0.0.0/8").expect("a net")),
            ports: vec![443],
            teams: vec!["team_a".to_owned()],
        };
        let policy = Policy { allow: vec![rule], ..policy() };
        let ip: IpAddr = "10.1.2.3".parse().expect("an address");
        let host = TargetHost::Address(ip);
        assert_eq!(judge(&host, ip, 443, "team_a", &policy), Ok(()));
        assert!(judge(&host, ip, 80, "team_a", &policy).is_err());
        assert!(judge(&host, ip, 443, "team_b", &policy).is_err());
    }

    #[test]
    fn a_host_rule_opens_one_name_alone() {
        let rule = AllowRule { what: Allowed::Host("hooks.corp.internal".to_owned()), ports: vec![], teams: vec![] };
        let policy = Policy { allow: vec![rule], ..policy() };
        let ip: IpAddr = "10.1.2.3".parse().expect("an address");
        let named = |name: &str| judge(&TargetHost::Name(name.into()), ip, 443, "t", &policy);
        assert_eq!(named("hooks.corp.internal"), Ok(()));
        assert!(named("evil.example").is_err());
        assert_eq!(judge_name("hooks.corp.internal", 443, "t", &policy), Ok(()));
        assert!(judge_name("other.corp.internal", 443, "t", &policy).is_err());
    }

    #[test]
    fn nat64_is_judged_by_the_address_inside_where_it_is_configured() {
        let policy = Policy { nat64: vec![Net::parse("64:ff9b::/96").expect("a net")], ..policy() };
        assert_eq!(of("64:ff9b::8.8.8.8", &policy), Ok(()));
        assert!(of("64:ff9b::10.0.0.1", &policy).is_err());
        assert!(of("64:ff9b::169.254.169.254", &policy).is_err());
    }

    #[test]
    fn special_names_are_not_looked_up() {
        for name in ["localhost", "a.localhost", "printer.local", "db.internal", "router", "x.home.arpa", "a.b.onion"] {
            assert!(judge_name(name, 443, "t", &policy()).is_err(), "{name}");
        }
        let told = |name| judge_name(name, 443, "t", &policy()).map_err(|denied| denied.to_string());
        assert!(told("localhost").is_err_and(|why| why.contains("write 127.0.0.1 instead of localhost")));
        assert!(told("router").is_err_and(|why| why.contains("write its full name")));
        for name in ["a.example", "notlocalhost.example", "mylocal.example", "internal.example", "xlocal.org"] {
            assert_eq!(judge_name(name, 443, "t", &policy()), Ok(()), "{name}");
        }
    }

    #[test]
    fn every_spelling_of_a_denied_address_is_denied() {
        for url in [
            "http://127.0.0.1/",
            "http://0177.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://１２７.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://169.254.169.254/latest",
            "http://0/",
            "http://[fd00:ec2::254]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
        ] {
            let target = Target::parse(url).expect(url);
            let TargetHost::Address(ip) = target.host else { panic!("{url} is an address") };
            assert!(judge(&target.host, ip, target.origin.port, "t", &policy()).is_err(), "{url}");
        }
    }

    #[test]
    fn nets_are_read_strictly() {
        assert!(Net::parse("10.0.0.1/8").is_none(), "bits below the prefix");
        assert!(Net::parse("10.0.0.0/33").is_none());
        assert!(Net::parse("x/8").is_none());
        assert!(Net::parse("10.0.0.0/+8").is_none());
        assert!(Net::parse("10.0.0.0/").is_none());
        assert!(Net::parse("0.0.0.0/0").is_some_and(|net| net.contains("1.2.3.4".parse().expect("an address"))));
        assert!(Net::parse("::/0").is_some_and(|net| !net.contains("1.2.3.4".parse().expect("an address"))));
    }
}
