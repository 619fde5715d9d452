//! The true form of a close: from what the endpoints did, and for the remote end from what reached the tap.

use tcp_common::flow::Closer;
use tcp_common::{CloseKind, End, Flags, SegmentKind};

use super::{Seen, World};

/// A witness of one incarnation.
#[derive(Default)]
pub struct Witness {
    /// A RST was on the wire, or the tap missed the first copy of B's FIN: the close has no exact form.
    spoiled: bool,
    fin_end: [Option<u32>; 2],
    seen: Vec<Seen>,
}

impl Witness {
    /// Records one segment that the tap saw.
    pub fn watch(&mut self, world: &World, seen: &Seen) {
        let sender = seen.sender;
        match seen.segment.kind() {
            SegmentKind::Syn => *self = Witness::default(),
            SegmentKind::Rst => self.spoiled = true,
            SegmentKind::Fin if self.fin_end[sender as usize].is_none() => {
                self.fin_end[sender as usize] = Some(seen.segment.end());
                // The first copy was lost on the way to the tap, and this copy acknowledges more than
                // that one did.
                self.spoiled |= world.ends[sender as usize].first_fin_ack != Some(seen.segment.ack);
            }
            _ => {}
        }
        self.seen.push(*seen);
    }

    /// Whether the tap saw B's FIN as B first sent it, and no RST was on the wire.
    pub fn is_exact(&self) -> bool {
        !self.spoiled
    }

    /// Who closed first, if both did.
    pub fn closer(&self, world: &World) -> Option<Closer> {
        let [Some(_), Some(_)] = self.fin_end else { return None };
        Some(match (world.ends[0].closed_knowing, world.ends[1].closed_knowing) {
            (false, true) => Closer::One(End::A),
            (true, false) => Closer::One(End::B),
            _ => Closer::Both,
        })
    }

    /// The close kinds that are correct, if both ends closed. There are two if the only payload that
    /// acknowledges the FIN was retransmitted: the tap may have missed its first copy, so it cannot
    /// know whether that was written before the FIN.
    pub fn kinds(&self, world: &World) -> Option<Vec<CloseKind>> {
        let Closer::One(closer) = self.closer(world)? else { return Some(vec![CloseKind::Simultaneous]) };
        let passive = closer.peer();
        let (first_fin, own_fin) = (self.fin_end[closer as usize]?, self.fin_end[passive as usize]?);
        let covering = self
            .seen
            .iter()
            .filter(|s| s.sender == passive && s.segment.flags.has(Flags::ACK) && s.segment.ack == first_fin);
        let (mut empty, mut payload) = (false, false);
        for Seen { segment, .. } in covering {
            let before_own_fin = (segment.seq.wrapping_sub(own_fin) as i32) < 0;
            empty |= segment.payload_len == 0 && !segment.flags.has(Flags::FIN) && before_own_fin;
            payload |= segment.payload_len > 0;
        }
        let without_payload = if empty { CloseKind::Fin4Seg } else { CloseKind::Fin3Seg };
        Some(match (payload, world.ends[passive as usize].wrote_knowing) {
            (false, _) => vec![without_payload],
            (true, true) => vec![CloseKind::HalfClose],
            (true, false) => vec![CloseKind::HalfClose, without_payload],
        })
    }
}
