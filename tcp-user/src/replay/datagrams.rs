//! Datagrams of a capture of which not all fragments were seen yet, as the kernel programs keep them.

use hashbrown::HashMap;
use tcp_common::Ignored;
use tcp_common::record::{MAX_WAITING, WaitingDatagram, WholeDatagram};
use tcp_common::wire::{Captured, DatagramId, Packet, Position};

use super::decap::Inner;
use super::link::Bare;

/// Fragments that wait, and the datagrams that became whole.
#[derive(Default)]
pub(super) struct Datagrams {
    waiting: HashMap<DatagramId, Incomplete>,
    /// Number of fragments that wait.
    fragments: u64,
    /// Those that became whole.
    whole: HashMap<DatagramId, WholeDatagram>,
}

/// A datagram of which fragments are missing.
struct Incomplete {
    seen: WaitingDatagram,
    first: Option<HeldFragment>,
}

/// The first fragment, with what is needed of its frame.
pub(super) struct HeldFragment {
    pub(super) packet: Packet,
    bytes: Vec<u8>,
    origin: Inner<'static>,
}

impl Datagrams {
    /// Adds a fragment. Returns its datagram once all of that was seen.
    ///
    /// # Errors
    ///
    /// Why the fragment is ignored.
    pub(super) fn add(
        &mut self,
        now_ns: u64,
        inner: &Inner<'_>,
        packet: &Packet,
    ) -> Result<Option<JoinedDatagram>, Ignored> {
        let position = packet.datagram.fragment.position;
        let is_middle = position == Position::Middle;
        let id = packet.datagram.id();
        let is_of_whole = self.whole.get(&id).is_some_and(|whole| whole.includes(packet, now_ns));
        // Other fragments than the first belong to a datagram that waits, if there is one.
        if is_of_whole && (position == Position::First || !self.waiting.contains_key(&id)) {
            return Err(if is_middle { Ignored::Fragment } else { Ignored::Duplicate });
        }
        if self.waiting.len() >= MAX_WAITING as usize && !self.waiting.contains_key(&id) {
            return Err(Ignored::Fragment);
        }
        let mut seen = WaitingDatagram::EMPTY;
        seen.begin(now_ns);
        let datagram = self.waiting.entry(id).or_insert(Incomplete { seen, first: None });
        let waits = datagram.seen.add(packet)?;
        self.fragments += u64::from(waits);
        if position == Position::First {
            datagram.first = Some(HeldFragment::new(inner, packet));
        }
        if !datagram.seen.is_whole() {
            return if waits { Ok(None) } else { Err(Ignored::Fragment) };
        }
        self.fragments -= u64::from(datagram.seen.waiting);
        let whole = self.waiting.remove(&id).and_then(|Incomplete { seen, first }| Some((seen, first?)));
        if self.whole.len() == MAX_WAITING as usize {
            self.whole.retain(|_, whole| whole.is_recent(now_ns));
        }
        if let Some((seen, _)) = &whole
            && self.whole.len() < MAX_WAITING as usize
        {
            self.whole.insert(id, WholeDatagram::new(&seen.packet, now_ns));
        }
        Ok(whole.map(|(seen, first)| JoinedDatagram { seen, first, is_by_middle: is_middle }))
    }

    /// Forgets the datagrams that have waited too long at this time. Returns the number of their fragments.
    pub(super) fn expire(&mut self, now_ns: u64) -> u64 {
        let expired = self.waiting.extract_if(|_, datagram| datagram.seen.has_expired(now_ns));
        let expired = expired.map(|(_, datagram)| u64::from(datagram.seen.waiting)).sum();
        self.fragments -= expired;
        expired
    }

    /// Forgets all that wait. Returns the number of their fragments.
    pub(super) fn clear(&mut self) -> u64 {
        self.waiting.clear();
        std::mem::take(&mut self.fragments)
    }

    /// Number of fragments that wait.
    pub(super) fn len(&self) -> u64 {
        self.fragments
    }
}

/// A datagram all of whose fragments were seen.
pub(super) struct JoinedDatagram {
    seen: WaitingDatagram,
    first: HeldFragment,
    /// Whether a fragment between the first and the last one was seen last.
    pub(super) is_by_middle: bool,
}

impl JoinedDatagram {
    /// The first fragment, as if it were the whole datagram, of which the rest was not captured.
    ///
    /// # Errors
    ///
    /// Why the datagram is ignored.
    pub(super) fn complete(mut self) -> Result<HeldFragment, Ignored> {
        self.seen.complete()?;
        Ok(self.first.completed(&self.seen.packet))
    }
}

impl HeldFragment {
    fn new(inner: &Inner<'_>, packet: &Packet) -> HeldFragment {
        let Inner { bare, tunnel } = *inner;
        let captured = bare.packet;
        let len = captured.bytes.len().min(KEPT);
        let empty = Captured { bytes: &[], wire_len: captured.wire_len };
        HeldFragment {
            packet: *packet,
            bytes: captured.bytes[..len].to_vec(),
            origin: Inner { bare: Bare { packet: empty, ..bare }, tunnel },
        }
    }

    /// The fragment as if it were the whole datagram, whose packet is given.
    fn completed(mut self, whole: &Packet) -> HeldFragment {
        self.packet = *whole;
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
        self
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
