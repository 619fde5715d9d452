//! Packets that one capture point shows twice, as a mirror port does that copies a packet when it enters and
//! when it leaves a switch or router.
//!
//! The two have the same IPv4 identification and the same segment. A retransmission by Linux and most other
//! systems has an identification of its own (`ip_select_ident_segs`). Nothing is concluded from an
//! identification of 0, which many systems give to all packets that must not be fragmented (RFC 6864 4.1),
//! from one that an end uses for different segments, or for IPv6, which has none.

use tcp_common::wire::{FirstHeader, Packet};

use super::link::Bare;

/// The packets of the last [`WINDOW_NS`], as far as they were not replaced by others.
#[derive(Default)]
pub(super) struct RecentPackets {
    /// Digest of a packet and the time at which it was captured, ns. Empty until the first packet, then
    /// [`SLOTS`] long.
    slots: Vec<(u64, u64)>,
}

/// What is known about the identifications of one end of a flow.
#[derive(Clone, Copy, Default)]
pub(super) struct Identifications {
    /// Identification and digest of its last packet.
    last: (u16, u64),
    /// Two different segments had the same identification.
    are_reused: bool,
}

impl RecentPackets {
    /// Whether a packet is the copy of one that this capture point showed before, within [`WINDOW_NS`].
    /// `sum` is that of the bytes of its segment.
    pub(super) fn is_copy(
        &mut self,
        identifications: &mut Identifications,
        (bare, packet): (&Bare<'_>, &Packet),
        capture_point: (u32, u64),
        sum: u64,
        now_ns: u64,
    ) -> bool {
        let Some(identification) = identification(bare, packet) else { return false };
        let digest = digest(packet, identification, capture_point, sum);
        if identifications.are_reused(identification, digest) {
            return false;
        }
        if self.slots.is_empty() {
            self.slots = vec![(0, 0); SLOTS];
        }
        let Some(slot) = self.slots.get_mut(digest as usize % SLOTS) else { return false };
        // The clock never goes back, and begins at 1.
        if slot.0 == digest && now_ns - slot.1 <= WINDOW_NS {
            return true;
        }
        *slot = (digest, now_ns);
        false
    }
}

impl Identifications {
    /// Records a packet. Returns whether the end has used an identification for two different segments.
    fn are_reused(&mut self, identification: u16, digest: u64) -> bool {
        let (last, last_digest) = std::mem::replace(&mut self.last, (identification, digest));
        self.are_reused |= last == identification && last_digest != digest;
        self.are_reused
    }
}

/// The IPv4 identification, unless it is 0.
fn identification(bare: &Bare<'_>, packet: &Packet) -> Option<u16> {
    if packet.key.family != 4 {
        return None;
    }
    let ip_offset = match bare.link {
        FirstHeader::Ethernet => 14 + 4 * usize::from(packet.vlan_count),
        FirstHeader::Ip => 0,
    };
    let field = bare.packet.bytes.get(ip_offset + 4..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*field)).filter(|identification| *identification != 0)
}

/// A number that is the same for copies of a packet. Headers below IP, the TTL and the checksum of the IP
/// header may differ.
fn digest(packet: &Packet, identification: u16, capture_point: (u32, u64), sum: u64) -> u64 {
    let (key, segment) = (&packet.key, &packet.segment);
    let words = [
        key.address_a[1],
        key.address_b[1],
        u64::from(key.port_a) << 48 | u64::from(key.port_b) << 32 | u64::from(identification) << 16,
        u64::from(segment.seq) << 32 | u64::from(segment.ack),
        u64::from(segment.flags.0) << 56 | u64::from(packet.sender as u8) << 48 | u64::from(segment.window),
        u64::from(segment.payload_len) << 32 | u64::from(capture_point.0),
        capture_point.1,
        sum,
    ];
    words.iter().fold(0, |digest, word| {
        let product = u128::from(digest ^ word ^ MIX[0]) * u128::from(MIX[1]);
        (product >> 64) as u64 ^ product as u64
    })
}

/// How long a mirror may take to show the second one: less than the shortest retransmission timeout of Linux
/// (200 ms, TCP_RTO_MIN).
const WINDOW_NS: u64 = 100_000_000;
/// Number of packets that are remembered, in 1 MiB.
const SLOTS: usize = 1 << 16;
/// Odd numbers with about as many ones as zeros, the fractions of the golden ratio and of the square root of
/// 3.
const MIX: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbb67_ae85_84ca_a73b];
