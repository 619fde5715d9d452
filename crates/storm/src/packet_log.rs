//! What the network knows of a flow: how far each host has sent, and how far of that has come to the other one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use finwait::lab::Side;
use tcp_common::seq::{Seq, at_or_before, before, later};
use tcp_common::wire::Packet;
use tcp_common::{Endpoint, Flags, FlowKey, Kind};

/// Both directions of every flow.
#[derive(Debug, Default)]
pub(crate) struct PacketLog(HashMap<FlowKey, [Direction; 2]>);

/// What one host has sent in a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Direction {
    /// Frames sent so far.
    pub(crate) frames: u64,
    /// Of these, how many were lost; and of these, how many RSTs.
    pub(crate) lost: u64,
    pub(crate) lost_resets: u64,
    /// Copies made, and frames that others may have explain_kind.
    pub(crate) doubled: u64,
    pub(crate) delayed: u64,
    /// SYNs with an ISN of their own.
    pub(crate) opens: u32,
    /// Whether it has sent its SYN or its FIN more than once.
    pub(crate) again: bool,
    /// Whether a SYN, SYN-ACK or FIN of it was doubled or delayed.
    pub(crate) copied: bool,
    /// Whether the latest that it has sent is a SYN.
    pub(crate) latest_is_syn: bool,
    /// Whether it has sent a keepalive probe before its first octet.
    pub(crate) probed_at_start: bool,
    /// Whether it has sent FINs at two places of its stream; and whether in any life of the flow.
    pub(crate) two_fins: bool,
    pub(crate) two_fins_ever: bool,
    /// Whether a FIN acknowledged less than the host had before: no socket does, so another one sent it.
    pub(crate) second_socket: bool,
    /// The longest that a frame, or its copy, was under direction.
    pub(crate) longest: Duration,
    /// When its FIN was first sent.
    pub(crate) fin_at: Option<Instant>,
    /// Whether that first FIN acknowledged the other host's; and whether it was lost.
    pub(crate) fin_acknowledges_peer: bool,
    pub(crate) fin_lost: bool,
    fin_end: Option<Seq>,
    isn: Option<Seq>,
    sent: Extent,
    arrived: Extent,
    /// Frames that are neither lost nor delivered yet.
    in_flight: u64,
    /// A RST of this incarnation that never came.
    reset_lost: bool,
    /// The furthest octet of this stream that was in a lost frame.
    lost_end: Option<Seq>,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Extent {
    end: Option<Seq>,
    ack: Option<Seq>,
    /// Number of the latest RST, from 1.
    reset: u32,
}

/// A frame on its direction: whose it is, and what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedFrame {
    pub(crate) key: FlowKey,
    pub(crate) sender: Side,
    /// Which frame of its sender in this flow it is, from 0.
    pub(crate) number: u64,
    opens: u32,
    said: Extent,
    sent_at: Instant,
    is_reset: bool,
    kind: Kind,
    is_first_fin: bool,
    /// Whether it takes room in the sequence of octets: payload, SYN or FIN.
    occupies: bool,
}

impl PacketLog {
    /// Notes a frame that `sender` has sent.
    pub(crate) fn sent(&mut self, sender: Side, packet: &Packet) -> LoggedFrame {
        let segment = &packet.segment;
        let directions = self.0.entry(packet.key).or_default();
        let other_fin = directions[sender.peer() as usize].fin_end;
        let direction = &mut directions[sender as usize];
        let opens = matches!(segment.kind(), Kind::Syn | Kind::SynAck);
        direction.latest_is_syn = segment.kind() == Kind::Syn;
        direction.again |= opens && direction.isn == Some(segment.seq);
        if opens && direction.isn != Some(segment.seq) {
            direction.isn = Some(segment.seq);
            direction.opens += 1;
            (direction.sent, direction.arrived, direction.lost_end, direction.fin_end) =
                (Extent::default(), Extent::default(), None, None);
            (direction.reset_lost, direction.again, direction.second_socket, direction.fin_at) =
                (false, false, false, None);
            (
                direction.fin_acknowledges_peer,
                direction.fin_lost,
                direction.two_fins,
                direction.probed_at_start,
            ) = (false, false, false, false);
        }
        // It lies below what its receiver has, which drops it, with its ACK.
        let probes = segment.kind() == Kind::Ack && direction.isn == Some(segment.seq);
        direction.probed_at_start |= probes;
        let is_first_fin = segment.kind() == Kind::Fin && direction.fin_end.is_none();
        if segment.kind() == Kind::Fin {
            if is_first_fin {
                direction.fin_acknowledges_peer = other_fin.is_some_and(|end| at_or_before(end, segment.ack));
            }
            direction.again |= direction.fin_end == Some(segment.end());
            direction.second_socket |= direction.sent.ack.is_some_and(|ack| before(segment.ack, ack));
            direction.two_fins |= direction.fin_end.is_some_and(|end| end != segment.end());
            direction.two_fins_ever |= direction.two_fins;
            direction.fin_end = Some(segment.end());
            direction.fin_at.get_or_insert_with(Instant::now);
        }
        let is_reset = segment.kind() == Kind::Rst;
        let said = Extent {
            end: (!is_reset).then(|| segment.end()),
            ack: (!is_reset && !probes && segment.flags.has(Flags::ACK)).then_some(segment.ack),
            reset: if is_reset { direction.sent.reset + 1 } else { 0 },
        };
        direction.sent.extend(said);
        let number = direction.frames;
        direction.frames += 1;
        direction.in_flight += 1;
        LoggedFrame {
            key: packet.key,
            sender,
            number,
            opens: direction.opens,
            said,
            sent_at: Instant::now(),
            is_reset,
            kind: segment.kind(),
            is_first_fin,
            occupies: !is_reset && segment.end() != segment.seq,
        }
    }

    /// Notes that the frame is with the other host for the first time.
    pub(crate) fn arrived(&mut self, frame_entry: &LoggedFrame) {
        let direction = self.direction_mut(frame_entry);
        direction.in_flight = direction.in_flight.saturating_sub(1);
        direction.longest = direction.longest.max(frame_entry.sent_at.elapsed());
        if direction.opens == frame_entry.opens {
            direction.arrived.extend(frame_entry.said);
        }
    }

    /// Notes that a copy of it is there.
    pub(crate) fn copy_arrived(&mut self, frame_entry: &LoggedFrame) {
        let direction = self.direction_mut(frame_entry);
        direction.longest = direction.longest.max(frame_entry.sent_at.elapsed());
    }

    /// Notes that the frame will never be there.
    pub(crate) fn lost(&mut self, frame_entry: &LoggedFrame) {
        let direction = self.direction_mut(frame_entry);
        direction.in_flight = direction.in_flight.saturating_sub(1);
        direction.lost += 1;
        direction.lost_resets += u64::from(frame_entry.is_reset);
        direction.reset_lost |= frame_entry.is_reset && direction.opens == frame_entry.opens;
        direction.fin_lost |= frame_entry.is_first_fin && direction.opens == frame_entry.opens;
        if direction.opens == frame_entry.opens && frame_entry.occupies {
            direction.lost_end = Extent::furthest(direction.lost_end, frame_entry.said.end);
        }
    }

    /// Notes that the frame is delivered twice, or late.
    pub(crate) fn impaired(&mut self, frame_entry: &LoggedFrame, doubled: bool, delayed: bool) {
        let direction = self.direction_mut(frame_entry);
        direction.doubled += u64::from(doubled);
        direction.delayed += u64::from(delayed);
        direction.copied |=
            (doubled || delayed) && matches!(frame_entry.kind, Kind::Syn | Kind::SynAck | Kind::Fin);
    }

    fn direction_mut(&mut self, frame_entry: &LoggedFrame) -> &mut Direction {
        &mut self.0.entry(frame_entry.key).or_default()[frame_entry.sender as usize]
    }

    /// Frames sent, lost, doubled, delayed, of all flows.
    pub(crate) fn totals(&self) -> [u64; 4] {
        self.0.values().flatten().fold([0; 4], |[sent, lost, doubled, delayed], direction| {
            [
                sent + direction.frames,
                lost + direction.lost,
                doubled + direction.doubled,
                delayed + direction.delayed,
            ]
        })
    }

    /// Both directions of a flow: the client host's, the server host's.
    pub(crate) fn directions(&self, one: SocketAddr, other: SocketAddr) -> [Direction; 2] {
        self.0.get(&key(one, other)).copied().unwrap_or_default()
    }
}

impl Direction {
    /// Whether two sockets have sent in this life: FINs at two places, or one that acknowledges less than was had before.
    pub(crate) fn has_two_sockets(&self) -> bool {
        self.two_fins || self.second_socket
    }

    /// Whether it has sent a RST in this life.
    pub(crate) fn has_reset(&self) -> bool {
        self.sent.reset > 0
    }

    /// Whether of all that it has sent in this life RSTs alone have come to the other host.
    pub(crate) fn only_resets_arrived(&self) -> bool {
        self.arrived.reset > 0 && self.arrived.end.is_none()
    }
}

/// Whether the host on `side` has sent something that the other one lacks: octets, an acknowledgment or a RST that were
/// lost or are still under direction.
pub(crate) fn is_behind(directions: &[Direction; 2], side: Side) -> bool {
    let (direction, back) = (&directions[side as usize], &directions[side.peer() as usize]);
    let hole = direction.lost_end.is_some_and(|end| back.sent.ack.is_none_or(|ack| before(ack, end)));
    direction.in_flight > 0 || direction.sent != direction.arrived || hole || direction.reset_lost
}

impl Extent {
    fn extend(&mut self, said: Extent) {
        self.end = Extent::furthest(self.end, said.end);
        self.ack = Extent::furthest(self.ack, said.ack);
        self.reset = self.reset.max(said.reset);
    }

    fn furthest(known: Option<Seq>, new: Option<Seq>) -> Option<Seq> {
        match (known, new) {
            (Some(known), Some(new)) => Some(later(known, new)),
            (known, new) => known.or(new),
        }
    }
}

/// The key under which finwait has the flow.
pub(crate) fn key(one: SocketAddr, other: SocketAddr) -> FlowKey {
    let endpoint = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => Endpoint::v4(ip.octets(), address.port()),
        IpAddr::V6(ip) => Endpoint::v6(ip.octets(), address.port()),
    };
    FlowKey::new(endpoint(one), endpoint(other), 0, if one.is_ipv4() { 4 } else { 6 }).0
}
