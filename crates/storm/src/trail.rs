//! What the network knows of a flow: how far each host has sent, and how far of that has come to the other one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use finwait::lab::Side;
use tcp_common::seq::{Seq, at_or_before, before, later};
use tcp_common::wire::Packet;
use tcp_common::{Endpoint, Flags, FlowKey, Kind};

/// Both ways of every flow.
#[derive(Debug, Default)]
pub(crate) struct Trails(HashMap<FlowKey, [Way; 2]>);

/// What one host has sent in a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    /// Frames sent so far.
    pub(crate) frames: u64,
    /// Of these, how many were lost; and of these, how many RSTs.
    pub(crate) lost: u64,
    pub(crate) lost_resets: u64,
    /// Copies made, and frames that others may have overtaken.
    pub(crate) doubled: u64,
    pub(crate) delayed: u64,
    /// SYNs with an ISN of their own.
    pub(crate) opens: u32,
    /// Whether it has sent its SYN or its FIN more than once.
    pub(crate) again: bool,
    /// Whether a SYN, SYN-ACK or FIN of it was doubled or delayed.
    pub(crate) copied: bool,
    /// Whether the latest that it has sent is a SYN.
    pub(crate) opens_now: bool,
    /// Whether it has sent a keepalive probe before its first octet.
    pub(crate) probed_at_start: bool,
    /// Whether it has sent FINs at two places of its stream; and whether in any life of the flow.
    pub(crate) two_fins: bool,
    pub(crate) two_fins_once: bool,
    /// Whether a FIN acknowledged less than the host had before: no socket does, so another one sent it.
    pub(crate) second_socket: bool,
    /// The longest that a frame, or its copy, was under way.
    pub(crate) longest: Duration,
    /// When its FIN was first sent.
    pub(crate) fin_at: Option<Instant>,
    /// Whether that first FIN acknowledged the other host's; and whether it was lost.
    pub(crate) fin_knows: bool,
    pub(crate) fin_lost: bool,
    fin_end: Option<Seq>,
    isn: Option<Seq>,
    sent: Extent,
    arrived: Extent,
    /// Frames that are neither lost nor delivered yet.
    under_way: u64,
    /// A RST of this incarnation that never came.
    lacks_reset: bool,
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

/// A frame on its way: whose it is, and what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
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

impl Trails {
    /// Notes a frame that `sender` has sent.
    pub(crate) fn sent(&mut self, sender: Side, packet: &Packet) -> Step {
        let segment = &packet.segment;
        let ways = self.0.entry(packet.key).or_default();
        let other_fin = ways[sender.peer() as usize].fin_end;
        let way = &mut ways[sender as usize];
        let opens = matches!(segment.kind(), Kind::Syn | Kind::SynAck);
        way.opens_now = segment.kind() == Kind::Syn;
        way.again |= opens && way.isn == Some(segment.seq);
        if opens && way.isn != Some(segment.seq) {
            way.isn = Some(segment.seq);
            way.opens += 1;
            (way.sent, way.arrived, way.lost_end, way.fin_end) =
                (Extent::default(), Extent::default(), None, None);
            (way.lacks_reset, way.again, way.second_socket, way.fin_at) = (false, false, false, None);
            (way.fin_knows, way.fin_lost, way.two_fins, way.probed_at_start) = (false, false, false, false);
        }
        // It lies below what its receiver has, which drops it, with its ACK.
        let probes = segment.kind() == Kind::Ack && way.isn == Some(segment.seq);
        way.probed_at_start |= probes;
        let is_first_fin = segment.kind() == Kind::Fin && way.fin_end.is_none();
        if segment.kind() == Kind::Fin {
            if is_first_fin {
                way.fin_knows = other_fin.is_some_and(|end| at_or_before(end, segment.ack));
            }
            way.again |= way.fin_end == Some(segment.end());
            way.second_socket |= way.sent.ack.is_some_and(|ack| before(segment.ack, ack));
            way.two_fins |= way.fin_end.is_some_and(|end| end != segment.end());
            way.two_fins_once |= way.two_fins;
            way.fin_end = Some(segment.end());
            way.fin_at.get_or_insert_with(Instant::now);
        }
        let is_reset = segment.kind() == Kind::Rst;
        let said = Extent {
            end: (!is_reset).then(|| segment.end()),
            ack: (!is_reset && !probes && segment.flags.has(Flags::ACK)).then_some(segment.ack),
            reset: if is_reset { way.sent.reset + 1 } else { 0 },
        };
        way.sent.extend(said);
        let number = way.frames;
        way.frames += 1;
        way.under_way += 1;
        Step {
            key: packet.key,
            sender,
            number,
            opens: way.opens,
            said,
            sent_at: Instant::now(),
            is_reset,
            kind: segment.kind(),
            is_first_fin,
            occupies: !is_reset && segment.end() != segment.seq,
        }
    }

    /// Notes that the frame is with the other host for the first time.
    pub(crate) fn arrived(&mut self, step: &Step) {
        let way = self.way_mut(step);
        way.under_way = way.under_way.saturating_sub(1);
        way.longest = way.longest.max(step.sent_at.elapsed());
        if way.opens == step.opens {
            way.arrived.extend(step.said);
        }
    }

    /// Notes that a copy of it is there.
    pub(crate) fn copy_arrived(&mut self, step: &Step) {
        let way = self.way_mut(step);
        way.longest = way.longest.max(step.sent_at.elapsed());
    }

    /// Notes that the frame will never be there.
    pub(crate) fn lost(&mut self, step: &Step) {
        let way = self.way_mut(step);
        way.under_way = way.under_way.saturating_sub(1);
        way.lost += 1;
        way.lost_resets += u64::from(step.is_reset);
        way.lacks_reset |= step.is_reset && way.opens == step.opens;
        way.fin_lost |= step.is_first_fin && way.opens == step.opens;
        if way.opens == step.opens && step.occupies {
            way.lost_end = Extent::furthest(way.lost_end, step.said.end);
        }
    }

    /// Notes that the frame is delivered twice, or late.
    pub(crate) fn strays(&mut self, step: &Step, doubled: bool, delayed: bool) {
        let way = self.way_mut(step);
        way.doubled += u64::from(doubled);
        way.delayed += u64::from(delayed);
        way.copied |= (doubled || delayed) && matches!(step.kind, Kind::Syn | Kind::SynAck | Kind::Fin);
    }

    fn way_mut(&mut self, step: &Step) -> &mut Way {
        &mut self.0.entry(step.key).or_default()[step.sender as usize]
    }

    /// Frames sent, lost, doubled, delayed, of all flows.
    pub(crate) fn totals(&self) -> [u64; 4] {
        self.0.values().flatten().fold([0; 4], |[sent, lost, doubled, delayed], way| {
            [sent + way.frames, lost + way.lost, doubled + way.doubled, delayed + way.delayed]
        })
    }

    /// Both ways of a flow: the client host's, the server host's.
    pub(crate) fn ways(&self, one: SocketAddr, other: SocketAddr) -> [Way; 2] {
        self.0.get(&key(one, other)).copied().unwrap_or_default()
    }
}

impl Way {
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
/// lost or are still under way.
pub(crate) fn is_behind(ways: &[Way; 2], side: Side) -> bool {
    let (way, back) = (&ways[side as usize], &ways[side.peer() as usize]);
    let hole = way.lost_end.is_some_and(|end| back.sent.ack.is_none_or(|ack| before(ack, end)));
    way.under_way > 0 || way.sent != way.arrived || hole || way.lacks_reset
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
