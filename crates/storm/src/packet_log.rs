//! What the link knows of each flow: how far each host has sent, and how far of that has arrived at the other
//! host.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use finwait::lab::Role;
use tcp_common::seq::{Seq, at_or_before, before, later};
use tcp_common::wire::Packet;
use tcp_common::{Endpoint, Flags, FlowKey, SegmentKind};

use crate::world::canonical_key;

/// Both directions of every flow.
#[derive(Debug, Default)]
pub(crate) struct PacketLog(HashMap<FlowKey, [Direction; 2]>);

/// What one host has sent in a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Direction {
    /// Frames sent.
    pub(crate) frames: u64,
    /// Frames lost, and RSTs among them.
    pub(crate) lost: u64,
    pub(crate) lost_resets: u64,
    /// Frames duplicated, and frames delayed.
    pub(crate) doubled: u64,
    pub(crate) delayed: u64,
    /// SYNs with different initial sequence numbers.
    pub(crate) opens: u32,
    /// Whether the host has sent its SYN or its FIN more than once.
    pub(crate) retransmitted: bool,
    /// Whether the host's SYN or FIN was on its way again when its acknowledgment or a RST arrived.
    pub(crate) crossed: bool,
    /// Whether a SYN, SYN-ACK or FIN was duplicated or delayed.
    pub(crate) copied: bool,
    /// Whether the latest segment is a SYN.
    pub(crate) latest_is_syn: bool,
    /// Whether the host has sent a keepalive probe before its first byte.
    pub(crate) probed_at_start: bool,
    /// Whether the host has sent FINs with different sequence numbers, in this incarnation and in any.
    pub(crate) two_fins: bool,
    pub(crate) two_fins_ever: bool,
    /// Whether a FIN acknowledged less than the host had acknowledged before: then another socket sent it.
    pub(crate) second_socket: bool,
    /// The longest time between the sending of a frame and its arrival, or that of its copy.
    pub(crate) longest: Duration,
    /// When the FIN was first sent.
    pub(crate) fin_at: Option<Instant>,
    /// Whether the first FIN acknowledged the peer's, whether it was lost, and whether a copy overtook it.
    pub(crate) fin_acknowledges_peer: bool,
    pub(crate) fin_lost: bool,
    pub(crate) fin_overtaken: bool,
    /// Whether the network tap has missed the first FIN.
    pub(crate) fin_missed: bool,
    fin_end: Option<Seq>,
    isn: Option<Seq>,
    sent: Extent,
    arrived: Extent,
    /// How far the stream has passed the network tap, and how far of that the tap has shown.
    passed_tap: Extent,
    shown: Extent,
    /// When the tap last showed a copy of all that it had missed before.
    made_up_at: Option<Instant>,
    /// Frames that the tap has missed.
    pub(crate) missed: u64,
    /// Frames neither lost nor delivered yet.
    in_flight: u64,
    /// Whether a RST of this incarnation was lost.
    pub(crate) reset_lost: bool,
    /// The highest sequence number in a lost frame.
    lost_end: Option<Seq>,
}

/// How far a stream has advanced.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Extent {
    end: Option<Seq>,
    ack: Option<Seq>,
    /// Whether a FIN is among its segments.
    fin: bool,
    /// Number of the latest RST, from 1.
    reset: u32,
}

/// A frame that the link has logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedFrame {
    pub(crate) key: FlowKey,
    pub(crate) sender: Role,
    /// Index of the frame among those of its sender in this flow.
    pub(crate) number: u64,
    opens: u32,
    extent: Extent,
    sent_at: Instant,
    is_reset: bool,
    kind: SegmentKind,
    is_first_fin: bool,
    /// Whether the segment occupies sequence numbers: payload, SYN or FIN.
    occupies: bool,
}

impl PacketLog {
    /// Logs a frame that `sender` has sent.
    pub(crate) fn sent(&mut self, sender: Role, packet: &Packet) -> LoggedFrame {
        let segment = &packet.segment;
        let key = canonical_key(packet.key);
        let directions = self.0.entry(key).or_default();
        let Direction { fin_end: other_fin, arrived: answered, .. } = directions[sender.peer() as usize];
        let direction = &mut directions[sender as usize];
        let opens = matches!(segment.kind(), SegmentKind::Syn | SegmentKind::SynAck);
        direction.latest_is_syn = segment.kind() == SegmentKind::Syn;
        let is_fin = segment.kind() == SegmentKind::Fin;
        let again = (opens && direction.isn == Some(segment.seq))
            || (is_fin && direction.fin_end == Some(segment.end()));
        direction.retransmitted |= again;
        // The host does not send again what it knows to be answered.
        direction.crossed |=
            again && (answered.reset > 0 || answered.ack.is_some_and(|ack| at_or_before(segment.end(), ack)));
        if opens && direction.isn != Some(segment.seq) {
            direction.isn = Some(segment.seq);
            direction.opens += 1;
            (direction.sent, direction.arrived, direction.lost_end, direction.fin_end) =
                (Extent::default(), Extent::default(), None, None);
            direction.crossed = false;
            (direction.passed_tap, direction.shown) = (Extent::default(), Extent::default());
            (direction.reset_lost, direction.retransmitted, direction.second_socket, direction.fin_at) =
                (false, false, false, None);
            (
                direction.fin_acknowledges_peer,
                direction.fin_lost,
                direction.fin_overtaken,
                direction.fin_missed,
                direction.two_fins,
                direction.probed_at_start,
            ) = (false, false, false, false, false, false);
        }
        // A keepalive probe lies below the window of its receiver, which drops it with its ACK.
        let probes = segment.kind() == SegmentKind::Ack && direction.isn == Some(segment.seq);
        direction.probed_at_start |= probes;
        let is_first_fin = is_fin && direction.fin_end.is_none();
        if is_fin {
            if is_first_fin {
                direction.fin_acknowledges_peer = other_fin.is_some_and(|end| at_or_before(end, segment.ack));
            }
            direction.second_socket |= direction.sent.ack.is_some_and(|ack| before(segment.ack, ack));
            direction.two_fins |= direction.fin_end.is_some_and(|end| end != segment.end());
            direction.two_fins_ever |= direction.two_fins;
            direction.fin_end = Some(segment.end());
            direction.fin_at.get_or_insert_with(Instant::now);
        }
        let is_reset = segment.kind() == SegmentKind::Rst;
        let extent = Extent {
            end: (!is_reset).then(|| segment.end()),
            ack: (!is_reset && !probes && segment.flags.has(Flags::ACK)).then_some(segment.ack),
            fin: is_fin,
            reset: if is_reset { direction.sent.reset + 1 } else { 0 },
        };
        direction.sent.extend(extent);
        let number = direction.frames;
        direction.frames += 1;
        direction.in_flight += 1;
        LoggedFrame {
            key,
            sender,
            number,
            opens: direction.opens,
            extent,
            sent_at: Instant::now(),
            is_reset,
            kind: segment.kind(),
            is_first_fin,
            occupies: !is_reset && segment.end() != segment.seq,
        }
    }

    /// Logs the first arrival of the frame.
    pub(crate) fn arrived(&mut self, frame: &LoggedFrame) {
        let direction = self.direction_mut(frame);
        direction.in_flight = direction.in_flight.saturating_sub(1);
        direction.longest = direction.longest.max(frame.sent_at.elapsed());
        if direction.opens == frame.opens {
            direction.fin_overtaken |= frame.is_first_fin && direction.arrived.fin;
            direction.arrived.extend(frame.extent);
        }
    }

    /// Logs the arrival of a copy.
    pub(crate) fn copy_arrived(&mut self, frame: &LoggedFrame) {
        let direction = self.direction_mut(frame);
        direction.longest = direction.longest.max(frame.sent_at.elapsed());
    }

    /// Logs that the frame has passed the network tap, and whether the tap has shown it.
    pub(crate) fn tapped(&mut self, frame: &LoggedFrame, shown: bool) {
        let direction = self.direction_mut(frame);
        direction.missed += u64::from(!shown);
        if direction.opens == frame.opens {
            direction.fin_missed |= frame.is_first_fin && !shown;
            let was_behind = direction.passed_tap != direction.shown;
            direction.passed_tap.extend(frame.extent);
            if shown {
                direction.shown.extend(frame.extent);
            }
            if was_behind && direction.passed_tap == direction.shown {
                direction.made_up_at = Some(Instant::now());
            }
        }
    }

    /// Logs the loss of the frame.
    pub(crate) fn lost(&mut self, frame: &LoggedFrame) {
        let direction = self.direction_mut(frame);
        direction.in_flight = direction.in_flight.saturating_sub(1);
        direction.lost += 1;
        direction.lost_resets += u64::from(frame.is_reset);
        direction.reset_lost |= frame.is_reset && direction.opens == frame.opens;
        direction.fin_lost |= frame.is_first_fin && direction.opens == frame.opens;
        if direction.opens == frame.opens && frame.occupies {
            direction.lost_end = Extent::furthest(direction.lost_end, frame.extent.end);
        }
    }

    /// Logs that the frame is delivered twice or late.
    pub(crate) fn impaired(&mut self, frame: &LoggedFrame, doubled: bool, delayed: bool) {
        let direction = self.direction_mut(frame);
        direction.doubled += u64::from(doubled);
        direction.delayed += u64::from(delayed);
        direction.copied |= (doubled || delayed)
            && matches!(frame.kind, SegmentKind::Syn | SegmentKind::SynAck | SegmentKind::Fin);
    }

    fn direction_mut(&mut self, frame: &LoggedFrame) -> &mut Direction {
        &mut self.0.entry(frame.key).or_default()[frame.sender as usize]
    }

    /// Frames of all flows: sent, lost, duplicated, delayed.
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

    /// Both directions of a flow: from the client host, from the server host.
    pub(crate) fn directions(&self, one: SocketAddr, other: SocketAddr) -> [Direction; 2] {
        self.0.get(&key(one, other)).copied().unwrap_or_default()
    }
}

impl Direction {
    /// Whether the link delivered nothing of what was sent.
    pub(crate) fn nothing_arrived(&self) -> bool {
        self.frames > 0 && self.frames == self.lost
    }

    /// Whether the link delivered none of the RSTs, of which there were some.
    pub(crate) fn no_reset_arrived(&self) -> bool {
        self.reset_lost && self.arrived.reset == 0
    }

    /// Whether two sockets have sent in this incarnation: different FINs, or a FIN that acknowledges less
    /// than before.
    pub(crate) fn has_two_sockets(&self) -> bool {
        self.two_fins || self.second_socket
    }

    /// Whether the host has sent a RST in this incarnation.
    pub(crate) fn has_reset(&self) -> bool {
        self.sent.reset > 0
    }

    /// Whether only RSTs of this incarnation have arrived at the other host.
    pub(crate) fn only_resets_arrived(&self) -> bool {
        self.arrived.reset > 0 && self.arrived.end.is_none()
    }
}

/// Whether the other host lacks something that the host on `side` has sent: bytes, an acknowledgment or a RST
/// that were lost or are in flight.
pub(crate) fn is_behind(directions: &[Direction; 2], side: Role) -> bool {
    let (direction, back) = (&directions[side as usize], &directions[side.peer() as usize]);
    let hole = direction.lost_end.is_some_and(|end| back.sent.ack.is_none_or(|ack| before(ack, end)));
    direction.in_flight > 0 || direction.sent != direction.arrived || hole || direction.reset_lost
}

impl Extent {
    fn extend(&mut self, extent: Extent) {
        self.end = Extent::furthest(self.end, extent.end);
        self.ack = Extent::furthest(self.ack, extent.ack);
        self.fin |= extent.fin;
        self.reset = self.reset.max(extent.reset);
    }

    fn furthest(known: Option<Seq>, new: Option<Seq>) -> Option<Seq> {
        match (known, new) {
            (Some(known), Some(new)) => Some(later(known, new)),
            (known, new) => known.or(new),
        }
    }
}

/// Whether the network tap had missed, when finwait was asked, the latest that an end has sent (bytes, an
/// acknowledgment or a RST) or every copy of its FIN: an acknowledgment does not show whether a byte or a FIN
/// has that number.
pub(crate) fn tap_was_behind(directions: &[Direction; 2], asked_at: Instant) -> bool {
    directions.iter().any(|direction| {
        direction.passed_tap != direction.shown || direction.made_up_at.is_some_and(|at| at >= asked_at)
    })
}

/// Finwait's key of the flow, between the canonical addresses.
pub(crate) fn key(one: SocketAddr, other: SocketAddr) -> FlowKey {
    let endpoint = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => Endpoint::v4(ip.octets(), address.port()),
        IpAddr::V6(ip) => Endpoint::v6(ip.octets(), address.port()),
    };
    canonical_key(FlowKey::new(endpoint(one), endpoint(other), 0, if one.is_ipv4() { 4 } else { 6 }).0)
}
