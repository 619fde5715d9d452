//! `ADDRESS[%INTERFACE][/LENGTH][:PORT]`, each part optional or `*`; only link-local addresses have an interface.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use winnow::ascii::dec_uint;
use winnow::combinator::{alt, delimited, eof, opt, preceded, terminated};
use winnow::prelude::*;
use winnow::token::take_till;

/// A condition on the address and port of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostFilter {
    network: Option<Network>,
    scope: Option<String>,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    length: u8,
}

impl HostFilter {
    /// Parses `10.0.0.0/8`, `10.0.0.1:80`, `[2001:db8::1]:443`, `2001:db8::/32`, `fe80::1%eth0`,
    /// `[fe80::1%eth0]:443`, `:443`, `*:443`, `*`.
    pub(super) fn parse(text: &str) -> Option<HostFilter> {
        let Some((before, after)) = text.split_once('%') else { return HostFilter::parse_unscoped(text) };
        let (scope, rest) = after.split_at(after.find([']', '/']).unwrap_or(after.len()));
        let host = HostFilter::parse_unscoped(&format!("{before}{rest}"))?;
        let is_link_local = host.network.is_some_and(Network::is_link_local);
        (is_link_local && !scope.is_empty()).then(|| HostFilter { scope: Some(scope.to_owned()), ..host })
    }

    fn parse_unscoped(text: &str) -> Option<HostFilter> {
        if let Ok(address) = text.parse() {
            // Bare IPv6 first: its last group is no port.
            return Some(HostFilter { network: Network::new(address, None), scope: None, port: None });
        }
        let (address, length, port) = parts.parse(text).ok()?;
        let network = match address {
            Some(address) => Some(Network::new(address, length)?),
            None if length.is_some() => return None,
            None => None,
        };
        Some(HostFilter { network, scope: None, port })
    }

    /// Whether it selects an address of a connection with this scope.
    pub(super) fn matches(&self, address: SocketAddr, scope: Option<&str>) -> bool {
        self.network.is_none_or(|network| network.contains(address.ip()))
            && (self.scope.is_none() || self.scope.as_deref() == scope)
            && self.port.is_none_or(|port| port == address.port())
    }
}

impl Network {
    fn new(address: IpAddr, length: Option<u8>) -> Option<Network> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(bits);
        (length <= bits).then_some(Network { address, length })
    }

    /// Whether it lies in fe80::/10.
    fn is_link_local(self) -> bool {
        self.length >= 10 && matches!(self.address, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differ = a.to_bits() ^ b.to_bits();
                differ.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differ = a.to_bits() ^ b.to_bits();
                differ.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Parses a port, with or without the colon of `ss`, or the name of a service.
pub(super) fn port(text: &str) -> Option<u16> {
    let mut parser = preceded(opt(alt(("*:", ":"))), dec_uint::<_, u16, winnow::error::EmptyError>);
    parser.parse(text).ok().or_else(|| {
        let services = fs::read_to_string("/etc/services").ok()?;
        service_port(&services, text.strip_prefix(':').unwrap_or(text))
    })
}

/// Parses ports and ranges of ports, separated by commas: `80,:https,8000-8099`.
pub(super) fn port_ranges(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |part: &str| {
        // The name of a service may have a hyphen.
        if let Some(port) = port(part) {
            return Some(port..=port);
        }
        let (first, last) = part.split_once('-')?;
        let (first, last) = (port(first)?, port(last)?);
        (first <= last).then_some(first..=last)
    };
    text.split(',').map(range).collect()
}

/// The TCP port of a service, by its name or another one of it, in the form of services(5).
fn service_port(services: &str, wanted: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (name, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (name == wanted || words.any(|other| other == wanted)).then(|| port.parse().ok()).flatten()
    })
}

type Parts = (Option<IpAddr>, Option<u8>, Option<u16>);

fn parts(input: &mut &str) -> winnow::Result<Parts> {
    let port = preceded(':', alt(("*".value(None), dec_uint.map(Some))));
    terminated((address, opt(preceded('/', dec_uint)), opt(port).map(Option::flatten)), eof).parse_next(input)
}

fn address(input: &mut &str) -> winnow::Result<Option<IpAddr>> {
    alt((
        "*".value(None),
        delimited('[', take_till(1.., ']').parse_to::<Ipv6Addr>(), ']').map(|v6| Some(IpAddr::V6(v6))),
        terminated(take_till(1.., '/').parse_to().map(Some), winnow::combinator::peek('/')),
        take_till(1.., ':').parse_to().map(Some),
        "".value(None),
    ))
    .parse_next(input)
}
