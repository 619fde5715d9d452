//! The key of a flow: one for both directions.

use crate::state::End;

/// Addresses, ports and VLAN of a flow, the lower (address, port) first, so that both directions make the same key.
///
/// Fixed layout without padding: it crosses the kernel boundary and is compared as five 64-bit words.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct FlowKey {
    /// Address of end A in network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).
    pub address_a: [u8; 16],
    /// Address of end B, as above.
    pub address_b: [u8; 16],
    /// Port of end A, host byte order.
    pub port_a: u16,
    /// Port of end B, host byte order.
    pub port_b: u16,
    /// Outer VLAN id, 0 without a tag: two VLANs may carry the same tuple.
    pub vlan: u16,
    /// 4 or 6.
    pub family: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The key, and which end the sender is.
    pub fn new(source: Endpoint, destination: Endpoint, vlan: u16, family: u16) -> (FlowKey, End) {
        let mut key = FlowKey { vlan, ..FlowKey::default() };
        let sender = key.set(&source, &destination, family);
        (key, sender)
    }

    /// Sets both ends in their order. Returns which one the sender is.
    #[inline(always)]
    pub fn set(&mut self, source: &Endpoint, destination: &Endpoint, family: u16) -> End {
        self.family = family;
        let sender = if source.is_before(destination) { End::A } else { End::B };
        let (a, b) = match sender {
            End::A => (source, destination),
            End::B => (destination, source),
        };
        self.address_a = a.address;
        self.port_a = a.port;
        self.address_b = b.address;
        self.port_b = b.port;
        sender
    }

    /// Address and port of one end.
    #[inline(always)]
    pub const fn endpoint(&self, end: End) -> Endpoint {
        match end {
            End::A => Endpoint { address: self.address_a, port: self.port_a },
            End::B => Endpoint { address: self.address_b, port: self.port_b },
        }
    }

    /// Whether both ends are the same endpoint (a socket connected to itself): direction cannot be told.
    #[inline(always)]
    pub fn is_self_connect(&self) -> bool {
        self.port_a == self.port_b && self.address_a == self.address_b
    }

    /// The key as five words, for hashing and comparing without a loop over bytes.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 5] {
        let (a, b) = (halves(&self.address_a), halves(&self.address_b));
        let last = (self.port_a as u64)
            | (self.port_b as u64) << 16
            | (self.vlan as u64) << 32
            | (self.family as u64) << 48;
        [a.0, a.1, b.0, b.1, last]
    }
}

/// Address (IPv4 mapped into IPv6) and port of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Endpoint {
    /// Network byte order.
    pub address: [u8; 16],
    /// Host byte order.
    pub port: u16,
}

impl Endpoint {
    /// An IPv4 endpoint, mapped.
    #[inline(always)]
    pub const fn v4(a: [u8; 4], port: u16) -> Endpoint {
        Endpoint { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]], port }
    }

    /// An IPv6 endpoint.
    #[inline(always)]
    pub const fn v6(address: [u8; 16], port: u16) -> Endpoint {
        Endpoint { address, port }
    }

    #[inline(always)]
    fn is_before(&self, other: &Endpoint) -> bool {
        let (s, o) = (halves(&self.address), halves(&other.address));
        if s.0 != o.0 {
            return s.0 < o.0;
        }
        if s.1 != o.1 {
            return s.1 < o.1;
        }
        self.port < other.port
    }
}

#[inline(always)]
const fn halves(a: &[u8; 16]) -> (u64, u64) {
    (
        u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_make_the_same_key() {
        let client = Endpoint::v4([192, 0, 2, 1], 40000);
        let server = Endpoint::v4([198, 51, 100, 7], 443);
        let (there, from_client) = FlowKey::new(client, server, 0, 4);
        let (back, from_server) = FlowKey::new(server, client, 0, 4);
        assert_eq!(there, back);
        assert_eq!(from_client, from_server.peer());
        assert_eq!(there.endpoint(from_client), client);
    }

    #[test]
    fn equal_addresses_are_ordered_by_port() {
        let low = Endpoint::v4([127, 0, 0, 1], 80);
        let high = Endpoint::v4([127, 0, 0, 1], 40000);
        assert_eq!(FlowKey::new(high, low, 0, 4), (FlowKey::new(low, high, 0, 4).0, End::B));
    }
}
