//! Datagrams of a capture of which not all fragments were seen yet, as the kernel programs keep them.

use hashbrown::HashMap;
use tcp_common::Ignored;
use tcp_common::record::{FRAGMENT_NS, MAX_WAITING, WholeDatagram};
use tcp_common::wire::{Captured, DatagramId, Packet, Position};

use super::decap::Inner;
use super::link::Bare;

/// Fragments that wait, and the datagrams that became whole.
#[derive(Default)]
pub(super) struct Datagrams {
    waiting: HashMap<DatagramId, HeldFragment>,
    /// Those that became whole.
    whole: HashMap<DatagramId, WholeDatagram>,
}

/// A fragment with what is needed of its frame.
pub(super) struct HeldFragment {
    at_ns: u64,
    pub(super) packet: Packet,
    bytes: Vec<u8>,
    origin: Inner<'static>,
}

impl Datagrams {
    /// Adds a fragment. Returns the first one, completed by the last one, once both were seen.
    ///
    /// # Errors
    ///
    /// Why the fragment, and the one that had waited for it, are ignored.
    pub(super) fn add(
        &mut self,
        now_ns: u64,
        inner: &Inner<'_>,
        packet: &Packet,
    ) -> Result<Option<HeldFragment>, Ignored> {
        let position = packet.datagram.fragment.position;
        if position == Position::Middle {
            return Err(Ignored::Fragment);
        }
        let id = packet.datagram.id();
        let is_of_whole = self.whole.get(&id).is_some_and(|whole| whole.includes(packet, now_ns));
        // The last fragment belongs to a first one that waits, if there is one.
        if is_of_whole && (position == Position::First || !self.waiting.contains_key(&id)) {
            return Err(Ignored::Duplicate);
        }
        let added = HeldFragment::new(now_ns, inner, packet);
        match self.waiting.remove(&id) {
            Some(other) if other.packet.datagram.fragment.position == position => {
                self.waiting.insert(id, other);
                Err(Ignored::Duplicate)
            }
            Some(other) => {
                let (first, last) = if position == Position::First { (added, other) } else { (other, added) };
                if self.whole.len() == MAX_WAITING as usize {
                    self.whole.retain(|_, whole| whole.is_recent(now_ns));
                }
                if self.whole.len() < MAX_WAITING as usize {
                    self.whole.insert(id, WholeDatagram::new(&first.packet, now_ns));
                }
                first.completed_by(&last.packet).map(Some)
            }
            None if self.waiting.len() >= MAX_WAITING as usize => Err(Ignored::Fragment),
            None => {
                self.waiting.insert(id, added);
                Ok(None)
            }
        }
    }

    /// Forgets the fragments that have waited too long at this time. Returns their number.
    pub(super) fn expire(&mut self, now_ns: u64) -> u64 {
        let waiting = self.waiting.len();
        self.waiting.retain(|_, fragment| now_ns - fragment.at_ns < FRAGMENT_NS);
        (waiting - self.waiting.len()) as u64
    }

    /// Forgets all that wait. Returns their number.
    pub(super) fn clear(&mut self) -> u64 {
        self.waiting.drain().count() as u64
    }

    /// Number of fragments that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl HeldFragment {
    fn new(at_ns: u64, inner: &Inner<'_>, packet: &Packet) -> HeldFragment {
        let Inner { bare: Bare { packet: captured, link, vlan, capture_point }, tunnel } = *inner;
        let len = captured.bytes.len().min(KEPT);
        let empty = Captured { bytes: &[], wire_len: captured.wire_len };
        HeldFragment {
            at_ns,
            packet: *packet,
            bytes: captured.bytes[..len].to_vec(),
            origin: Inner { bare: Bare { packet: empty, link, vlan, capture_point }, tunnel },
        }
    }

    /// Makes a first fragment the whole datagram, of which the rest was not captured.
    fn completed_by(mut self, last: &Packet) -> Result<HeldFragment, Ignored> {
        self.packet.complete(&last.datagram)?;
        let datagram = &self.packet.datagram;
        let (ip, tcp) = (datagram.ip_offset as usize, datagram.tcp_offset as usize);
        let end = tcp + datagram.tcp_len as usize;
        let mut write = |at: usize, value: usize| {
            if let Some(field) = self.bytes.get_mut(at..at + 2) {
                field.copy_from_slice(&(value as u16).to_be_bytes());
            }
        };
        if self.packet.key.family == 4 {
            write(ip + 2, end - ip);
            write(ip + 6, 0);
        } else {
            let header = tcp - datagram.fragment.offset as usize - 8;
            write(ip + 4, end - ip - 40);
            write(header + 2, 0);
        }
        self.origin.bare.packet.wire_len = self.origin.bare.packet.wire_len.max(end);
        Ok(self)
    }

    /// The frame that the fragment came in.
    pub(super) fn inner(&self) -> Inner<'_> {
        let Inner { bare, tunnel } = self.origin;
        let packet = Captured { bytes: &self.bytes, wire_len: bare.packet.wire_len };
        Inner { bare: Bare { packet, ..bare }, tunnel }
    }
}

/// Bytes of a fragment that are kept: all headers.
const KEPT: usize = 2_048;
