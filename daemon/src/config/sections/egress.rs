//! The section `egress`.

use super::super::raw::{Allow, Raw};
use super::super::{ConfigError, Egress, Wrong};
use crate::model::team::HttpPolicy;
use crate::net::egress::{AllowRule, Allowed, Net};
use crate::net::target::{Target, TargetHost};

pub(super) fn egress(raw: &Raw, wrong: &Wrong<'_>) -> Result<Egress, ConfigError> {
    let raw = &raw.egress;
    let http = HttpPolicy::parse(&raw.http)
        .ok_or_else(|| wrong("egress.http", "say \"allow\", \"hmac-only\" or \"refuse\""))?;
    let allow = raw.allow.iter().map(allow_rule).collect::<Result<Vec<_>, _>>();
    let nat64 = raw.nat64.iter().map(|text| Net::parse(text).filter(Net::is_nat64)).collect::<Option<Vec<_>>>();
    Ok(Egress {
        http,
        allow: allow.map_err(|why| wrong("egress.allow", &why))?,
        nat64: nat64.ok_or_else(|| wrong("egress.nat64", "write prefixes of 96 bits, such as \"64:ff9b::/96\""))?,
    })
}

fn allow_rule(rule: &Allow) -> Result<AllowRule, String> {
    let what = match (&rule.net, &rule.host) {
        (Some(net), None) => Allowed::Net(Net::parse(net).ok_or_else(|| not_a_net(net))?),
        // The host is read as the host of a URL is.
        (None, Some(host)) => match Target::parse(&format!("https://{host}/")).map(|target| target.host) {
            Ok(TargetHost::Name(name)) => Allowed::Host(name.to_string()),
            Ok(TargetHost::Address(_)) => return Err(format!("{host:?} is an address; name it as net")),
            Err(_) => return Err(format!("{host:?} is not a host name")),
        },
        _ => return Err("each rule has either net (\"10.0.0.0/8\") or host (a name)".to_owned()),
    };
    Ok(AllowRule { what, ports: rule.ports.clone(), teams: rule.teams.clone() })
}

/// A sentence about a text that is no network.
fn not_a_net(text: &str) -> String {
    match (Net::around(text), text.split_once('/')) {
        (Some(net), Some((address, _))) => {
            format!("{text:?} is not the first address of its network; write \"{net}\", or \"{address}\" for it alone")
        }
        _ => format!("{text:?} is not a network; write for example \"10.0.0.0/8\""),
    }
}
