//! The segments and other changes of all connections, in rings of a fixed size: the oldest are forgotten first.

use tcp_common::{Cause, End, Flags, Flow, State};

use crate::why::{Moment, Sent, SentSegment};

/// Two rings of moments, those of one flow chained from the latest to the first.
///
/// What happens before a connection is established has a ring of its own, so that a flood of SYNs does not crowd out
/// what is known of connections.
pub(super) struct Moments {
    rings: [MomentRing; 2],
}

/// The place of a moment; [`MomentPlace::NONE`] for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MomentPlace(u32);

struct MomentRing {
    moments: Vec<StoredMoment>,
    /// Size of the ring, in moments.
    capacity: u32,
    /// Number of moments ever written, the first of which is number 1.
    written: u64,
}

/// A moment and its place in the chain of its flow, in a cache line.
#[derive(Clone, Copy)]
#[repr(C)]
struct StoredMoment {
    at_ns: u64,
    bytes: [u64; 2],
    segments: [u32; 2],
    /// Which incarnation the moment is of: the lower half of the time at which that began.
    life: u32,
    /// The moment before.
    previous: MomentPlace,
    /// Number of moments of the incarnation before this one.
    number: u32,
    seq: u32,
    ack: u32,
    payload_len: u32,
    flags: u8,
    /// Number of the end that sent the segment; [`NO_SEGMENT`] if there is none.
    sender: u8,
    cause: u8,
    from: [u8; 2],
    to: [u8; 2],
}

const _: () = assert!(size_of::<StoredMoment>() == Moments::BYTES);

impl MomentPlace {
    /// No moment.
    pub(super) const NONE: MomentPlace = MomentPlace(0);
    /// Bit of a place in the second ring. The others are the lower bits of the moment's number.
    const ESTABLISHED: u32 = 1 << 31;

    fn ring(self) -> usize {
        (self.0 >> 31) as usize
    }
}

impl Moments {
    /// Memory of a moment, in bytes.
    pub(super) const BYTES: usize = 64;

    /// Rings for this many moments in all.
    pub(super) fn new(capacity: u32) -> Moments {
        let unestablished = capacity / UNESTABLISHED_PART;
        Moments { rings: [MomentRing::new(unestablished), MomentRing::new(capacity - unestablished)] }
    }

    /// Adds a moment of a flow behind the one at `previous`, if that is of the same incarnation. Returns its place.
    pub(super) fn push(&mut self, flow: &Flow, moment: &Moment, previous: MomentPlace) -> MomentPlace {
        let before = self.get(previous).filter(|before| before.life == life(flow));
        let number = before.map_or(0, |before| before.number.saturating_add(1));
        let previous = if before.is_some() { previous } else { MomentPlace::NONE };
        let stored = StoredMoment::new(flow, moment, previous, number);
        let is_established = flow.was_established();
        let number = self.rings[usize::from(is_established)].push(stored);
        match number {
            0 => MomentPlace::NONE,
            number if is_established => MomentPlace(number | MomentPlace::ESTABLISHED),
            number => MomentPlace(number),
        }
    }

    /// The moments of a flow's incarnation, the latest first, from the one at `latest` on, and the number of earlier
    /// ones that are forgotten.
    pub(super) fn chain(&self, flow: &Flow, latest: MomentPlace, limit: usize) -> (Vec<Moment>, u64) {
        let (mut chain, mut place, mut next) = (Vec::new(), latest, None);
        while let Some(stored) = self.get(place).filter(|_| chain.len() < limit) {
            if stored.life != life(flow) || next.is_some_and(|next| stored.number != next) {
                break;
            }
            chain.push(stored.moment());
            next = stored.number.checked_sub(1);
            place = stored.previous;
        }
        (chain, next.map_or(0, |next| u64::from(next) + 1))
    }

    /// Numbers of moments that are kept, and that there is room for.
    pub(super) fn fill(&self) -> (u64, u64) {
        let sum = |of: fn(&MomentRing) -> u64| self.rings.iter().map(of).sum();
        (sum(|ring| ring.moments.len() as u64), sum(|ring| u64::from(ring.capacity)))
    }

    /// Time of the oldest moment of an established connection that is kept, ns.
    pub(super) fn since_ns(&self) -> Option<u64> {
        let ring = &self.rings[1];
        let is_full = ring.moments.len() == ring.capacity as usize;
        let oldest = if is_full && ring.capacity > 0 { ring.index(ring.written + 1) } else { 0 };
        ring.moments.get(oldest).map(|stored| stored.at_ns)
    }

    fn get(&self, place: MomentPlace) -> Option<&StoredMoment> {
        self.rings[place.ring()].get(place.0 & !MomentPlace::ESTABLISHED)
    }
}

impl MomentRing {
    fn new(capacity: u32) -> MomentRing {
        MomentRing { moments: Vec::new(), capacity, written: 0 }
    }

    /// Returns the lower bits of the moment's number, 0 if there is no room for any.
    fn push(&mut self, stored: StoredMoment) -> u32 {
        if self.capacity == 0 {
            return 0;
        }
        if self.moments.is_empty() {
            // Of memory that is not written nothing is used.
            self.moments.reserve_exact(self.capacity as usize);
        }
        self.written += 1;
        match self.index(self.written) {
            index if index == self.moments.len() => self.moments.push(stored),
            index => self.moments[index] = stored,
        }
        self.written as u32 & !MomentPlace::ESTABLISHED
    }

    /// The moment of which these are the lower bits of the number, unless it is forgotten.
    fn get(&self, number: u32) -> Option<&StoredMoment> {
        let age = (self.written as u32).wrapping_sub(number) & !MomentPlace::ESTABLISHED;
        let number = self.written.checked_sub(u64::from(age)).filter(|&number| number > 0)?;
        if age >= self.capacity { None } else { self.moments.get(self.index(number)) }
    }

    fn index(&self, number: u64) -> usize {
        ((number - 1) % u64::from(self.capacity)) as usize
    }
}

impl StoredMoment {
    fn new(flow: &Flow, moment: &Moment, previous: MomentPlace, number: u32) -> StoredMoment {
        let Moment { at_ns, segment, cause, from, to, sent } = *moment;
        let SentSegment { sender, flags, seq, ack, bytes } =
            segment.unwrap_or(SentSegment { sender: End::A, flags: Flags(0), seq: 0, ack: 0, bytes: 0 });
        StoredMoment {
            at_ns,
            bytes: sent.map(|sent| sent.bytes),
            segments: sent.map(|sent| sent.segments as u32),
            life: life(flow),
            previous,
            number,
            seq,
            ack,
            payload_len: bytes,
            flags: flags.0,
            sender: if segment.is_some() { sender as u8 } else { NO_SEGMENT },
            cause: cause as u8,
            from: from.map(|state| state as u8),
            to: to.map(|state| state as u8),
        }
    }

    fn moment(&self) -> Moment {
        let StoredMoment {
            at_ns,
            bytes,
            segments,
            seq,
            ack,
            payload_len,
            flags,
            sender,
            cause,
            from,
            to,
            ..
        } = *self;
        let sender = match sender {
            0 => Some(End::A),
            1 => Some(End::B),
            _ => None,
        };
        let state = |number| State::from_repr(number).unwrap_or(State::Unknown);
        Moment {
            at_ns,
            segment: sender.map(|sender| SentSegment {
                sender,
                flags: Flags(flags),
                seq,
                ack,
                bytes: payload_len,
            }),
            cause: Cause::from_repr(cause).unwrap_or(Cause::Nothing),
            from: from.map(state),
            to: to.map(state),
            sent: [0, 1].map(|end: usize| Sent { segments: segments[end].into(), bytes: bytes[end] }),
        }
    }
}

/// What distinguishes the incarnations of the flows that a slot of the table has had.
fn life(flow: &Flow) -> u32 {
    flow.opened_ns() as u32
}

/// The part of the memory for what happens before connections are established.
const UNESTABLISHED_PART: u32 = 8;
const NO_SEGMENT: u8 = u8::MAX;
