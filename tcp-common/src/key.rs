//! The key of a flow, the same for both directions.

use core::num::Wrapping;

use crate::state::End;

/// An address as a number, high half first; IPv4 as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).
pub type AddressNumber = [u64; 2];

/// The address of an IPv4 host from its number.
#[inline(always)]
pub(crate) const fn v4_mapped(address: u32) -> AddressNumber {
    [0, 0xffff_0000_0000 | address as u64]
}

/// Whether an IPv6 address is link-local, fe80::/10 (RFC 4291 2.5.6): it has a meaning on one link only.
#[inline(always)]
pub(crate) const fn is_link_local([high, _]: AddressNumber) -> bool {
    high >> 54 == 0xfe80 >> 6
}

/// Addresses, ports and domain of a flow, the lower (address, port) first, so that both directions have the
/// same key.
///
/// Fixed layout without padding: it crosses the kernel boundary and is the key of the IPv6 table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct FlowKey {
    /// Address of end A.
    pub address_a: AddressNumber,
    /// Address of end B.
    pub address_b: AddressNumber,
    /// Port of end A, host byte order.
    pub port_a: u16,
    /// Port of end B, host byte order.
    pub port_b: u16,
    /// What distinguishes two connections with equal addresses and ports: the index of the layer-3 interface
    /// of link-local addresses, or the number of a stack of VLAN tags with `--key vlan`; otherwise 0.
    pub domain: u16,
    /// 4 or 6.
    pub family: u16,
}

/// [`FlowKey`] of an IPv4 flow in less space: the key of the IPv4 table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowKey4 {
    /// Address of end A in the high half, of end B in the low one.
    pub addresses: u64,
    /// Port of end B in bits 0..16, of end A in bits 16..32, both in host byte order; domain in bits
    /// 32..48.
    pub ports: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<FlowKey4>() == 16);

/// The key of one table.
pub trait TableKey: Copy + PartialEq {
    /// The table's form of a key; meaningless for a flow of the other family.
    fn of(key: &FlowKey) -> Self;
    /// The family-independent form of the key.
    fn flow_key(&self) -> FlowKey;
    /// The hash of the key. It depends on the secret, so no remote host can choose keys of one slot.
    fn hash(&self, secret: &Secret) -> u32;
    /// Whether both ends are the same endpoint: a socket connected to itself, whose direction is unknown.
    fn is_self_connect(&self) -> bool;
}

impl FlowKey {
    /// The key of no flow.
    pub const EMPTY: FlowKey =
        FlowKey { address_a: [0; 2], address_b: [0; 2], port_a: 0, port_b: 0, domain: 0, family: 0 };

    /// The key of a packet's flow, and the end that sent the packet.
    pub fn new(source: Endpoint, destination: Endpoint, domain: u16, family: u16) -> (FlowKey, End) {
        let mut key = FlowKey { domain, ..FlowKey::EMPTY };
        let sender = key.set(&source, &destination, family);
        (key, sender)
    }

    /// Whether the addresses are link-local, so that the flow needs a [`domain`](FlowKey::domain).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        is_link_local(self.address_a) || is_link_local(self.address_b)
    }

    /// Sets both ends in their order. Returns the end that is the source.
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
}

impl TableKey for FlowKey {
    #[inline(always)]
    fn of(key: &FlowKey) -> FlowKey {
        *key
    }

    fn flow_key(&self) -> FlowKey {
        *self
    }

    #[inline(always)]
    fn hash(&self, Secret(secret): &Secret) -> u32 {
        let [a, b] = self.address_a;
        let [c, d] = self.address_b;
        let rest = ports(self.port_a, self.port_b, self.domain);
        let [k0, k1, k2, k3, k4] = secret;
        finish(times(a, k0) + times(b, k1) + times(c, k2) + times(d, k3) + times(rest, k4))
    }

    #[inline(always)]
    fn is_self_connect(&self) -> bool {
        self.port_a == self.port_b && self.address_a == self.address_b
    }
}

impl TableKey for FlowKey4 {
    #[inline(always)]
    fn of(key: &FlowKey) -> FlowKey4 {
        let FlowKey { address_a: [_, a], address_b: [_, b], port_a, port_b, domain, .. } = *key;
        FlowKey4 { addresses: a << 32 | b & 0xffff_ffff, ports: ports(port_a, port_b, domain) }
    }

    fn flow_key(&self) -> FlowKey {
        let FlowKey4 { addresses, ports } = *self;
        FlowKey {
            address_a: v4_mapped((addresses >> 32) as u32),
            address_b: v4_mapped(addresses as u32),
            port_a: (ports >> 16) as u16,
            port_b: ports as u16,
            domain: (ports >> 32) as u16,
            family: 4,
        }
    }

    #[inline(always)]
    fn hash(&self, Secret([k0, k1, ..]): &Secret) -> u32 {
        finish(times(self.addresses, k0) + times(self.ports, k1))
    }

    #[inline(always)]
    fn is_self_connect(&self) -> bool {
        (self.ports >> 16) as u16 == self.ports as u16
            && (self.addresses >> 32) as u32 == self.addresses as u32
    }
}

/// Ports and domain in the form of [`FlowKey4::ports`].
#[inline(always)]
const fn ports(a: u16, b: u16, domain: u16) -> u64 {
    (b as u64) | (a as u64) << 16 | (domain as u64) << 32
}

/// The key of the hash function: random numbers, two for each 64 bits of a flow's key.
///
/// The hash is NH (RFC 4418 5.2.2). Two keys that are chosen without knowledge of the secret have equal
/// hashes with a probability of 2^-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret(pub [[u32; 2]; 5]);

/// One term of NH: the product of two 32-bit words, after a word of the secret is added to each.
#[inline(always)]
const fn times(words: u64, secret: &[u32; 2]) -> Wrapping<u64> {
    let high = ((words >> 32) as u32).wrapping_add(secret[0]);
    let low = (words as u32).wrapping_add(secret[1]);
    Wrapping(high as u64 * low as u64)
}

/// The last step of the hash. The sums of neighbouring keys are an arithmetic progression; this lets all of
/// their bits change those that select the slot.
#[inline(always)]
const fn finish(Wrapping(sum): Wrapping<u64>) -> u32 {
    ((sum ^ sum >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as u32
}

/// Address and port of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: AddressNumber,
    /// The port, in host byte order.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint of an IPv4 address in network byte order.
    pub const fn v4(octets: [u8; 4], port: u16) -> Endpoint {
        Endpoint { address: v4_mapped(u32::from_be_bytes(octets)), port }
    }

    /// The endpoint of an IPv6 address in network byte order.
    pub const fn v6(octets: [u8; 16], port: u16) -> Endpoint {
        let number = u128::from_be_bytes(octets);
        Endpoint { address: [(number >> 64) as u64, number as u64], port }
    }

    /// The address in network byte order.
    pub const fn octets(&self) -> [u8; 16] {
        ((self.address[0] as u128) << 64 | self.address[1] as u128).to_be_bytes()
    }

    #[inline(always)]
    fn is_before(&self, other: &Endpoint) -> bool {
        let ([high, low], [other_high, other_low]) = (self.address, other.address);
        if high != other_high {
            return high < other_high;
        }
        if low != other_low {
            return low < other_low;
        }
        self.port < other.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_make_the_same_key() {
        let client = Endpoint::v4([192, 0, 2, 1], 40000);
        let server = Endpoint::v4([198, 51, 100, 7], 443);
        let (there, from_client) = FlowKey::new(client, server, 7, 4);
        let (back, from_server) = FlowKey::new(server, client, 7, 4);
        assert_eq!(there, back);
        assert_eq!(from_client, from_server.peer());
        assert_eq!(there.endpoint(from_client), client);
        assert_eq!(FlowKey4::of(&there).flow_key(), there);
    }

    #[test]
    fn equal_addresses_are_ordered_by_port() {
        let low = Endpoint::v4([127, 0, 0, 1], 80);
        let high = Endpoint::v4([127, 0, 0, 1], 40000);
        assert_eq!(FlowKey::new(high, low, 0, 4), (FlowKey::new(low, high, 0, 4).0, End::B));
    }

    #[test]
    fn an_address_keeps_its_octets() {
        let octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 9, 8, 7, 6, 5, 4, 3, 2];
        assert_eq!(Endpoint::v6(octets, 1).octets(), octets);
    }

    #[test]
    fn every_part_of_a_key_and_the_seed_change_the_hash() {
        const SEED: u32 = 0x0123_4567;
        let of = |a: [u8; 4], b: [u8; 4], ports: (u16, u16), domain: u16, seed: u32| {
            let secret = Secret([
                [seed, seed ^ 1],
                [seed * 3, seed * 5],
                [seed * 7, 1],
                [seed * 9, 2],
                [seed * 11, 3],
            ]);
            let (key, _) = FlowKey::new(Endpoint::v4(a, ports.0), Endpoint::v4(b, ports.1), domain, 4);
            (FlowKey4::of(&key).hash(&secret), key.hash(&secret))
        };
        let base = of([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), 0, SEED);
        for other in [
            of([10, 0, 0, 0], [10, 0, 0, 2], (1, 2), 0, SEED),
            of([10, 0, 0, 1], [10, 0, 0, 3], (1, 2), 0, SEED),
            of([10, 0, 0, 1], [10, 0, 0, 2], (3, 2), 0, SEED),
            of([10, 0, 0, 1], [10, 0, 0, 2], (1, 3), 0, SEED),
            of([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), 1, SEED),
            of([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), 0, SEED + 1),
        ] {
            assert!(base.0 != other.0 && base.1 != other.1);
        }
    }
}
