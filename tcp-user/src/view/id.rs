//! The id by which the records of one connection are joined.

use std::fmt;
use std::str::FromStr;

use tcp_common::{End, Flow, FlowKey};

use crate::clock::BootId;

/// Id of one connection, the same in every record and at every query: 16 hexadecimal digits in text and JSON.
///
/// It is the 64-bit FNV-1a hash of the time at which the incarnation began (8 bytes, ns on the records' clock),
/// the boot id (16 bytes), address and port of the end with the lower address, then of the other one (16 and 2
/// bytes each, IPv4 mapped to IPv6), and the domain of the key (2 bytes), all in network byte order. An imported
/// connection began with its import.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ConnectionId(u64);

/// Text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 16 hexadecimal digits")]
pub struct InvalidId;

impl ConnectionId {
    /// The id of no connection.
    pub const NONE: ConnectionId = ConnectionId(0);

    /// The id of a flow's current incarnation. `boot` identifies the origin of the flow's clock.
    pub fn new(key: &FlowKey, flow: &Flow, boot: BootId) -> ConnectionId {
        let mut hash = Fnv::BASIS;
        hash.add(&flow.opened_ns().to_be_bytes());
        hash.add(&boot.0);
        for end in [End::A, End::B] {
            let endpoint = key.endpoint(end);
            hash.add(&endpoint.octets());
            hash.add(&endpoint.port.to_be_bytes());
        }
        hash.add(&key.domain.to_be_bytes());
        ConnectionId(hash.0)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ConnectionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<ConnectionId, InvalidId> {
        let is_hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hexadecimal.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(ConnectionId).ok_or(InvalidId)
    }
}

/// The hash function FNV-1a.
struct Fnv(u64);

impl Fnv {
    const BASIS: Fnv = Fnv(0xcbf2_9ce4_8422_2325);
    const PRIME: u64 = 0x0100_0000_01b3;

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(Fnv::PRIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use tcp_common::{Endpoint, Flags, Rules, Segment};

    use super::*;

    #[test]
    fn fnv_hashes_as_its_specification_says() {
        let mut hash = Fnv::BASIS;
        hash.add(b"foobar");
        assert_eq!(hash.0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn another_tuple_link_time_or_boot_is_another_connection() {
        let flow = |at_ns| {
            let mut flow = Flow::EMPTY;
            let syn = Segment { flags: Flags(Flags::SYN), seq: 7, ..Segment::default() };
            flow.on_segment(at_ns, End::A, &syn, &Rules::RFC);
            flow
        };
        let key = |port, domain| {
            FlowKey::new(Endpoint::v4([10, 9, 0, 1], port), Endpoint::v4([10, 9, 0, 2], 80), domain, 4).0
        };
        let boot = BootId([7; 16]);
        let id = ConnectionId::new(&key(40_000, 0), &flow(1_000), boot);
        assert_eq!(id, ConnectionId::new(&key(40_000, 0), &flow(1_000), boot));
        for other in [
            ConnectionId::new(&key(40_001, 0), &flow(1_000), boot),
            ConnectionId::new(&key(40_000, 2), &flow(1_000), boot),
            ConnectionId::new(&key(40_000, 0), &flow(1_001), boot),
            ConnectionId::new(&key(40_000, 0), &flow(1_000), BootId::NONE),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn an_id_has_16_digits_and_comes_back() {
        let id = ConnectionId(0xbeef);
        assert_eq!(id.to_string(), "000000000000beef");
        assert_eq!("000000000000BEEF".parse(), Ok(id));
        for text in ["", "beef", "000000000000bee", "+00000000000beef", "000000000000000beef"] {
            assert_eq!(text.parse::<ConnectionId>(), Err(InvalidId), "{text}");
        }
    }
}
