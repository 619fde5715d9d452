//! Which packets count: each packet at the first hook that sees it.

use crate::flow::{DirectionPrediction, Flow, Outcome, Prediction, Rules, WithoutEffect};
use crate::ignored::Ignored;
use crate::segment::Segment;
use crate::state::End;

use super::slot::{Record, short_hook};

/// A segment at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The hook: interface index shifted left by one, bit 0 set on egress.
    pub hook: u32,
    /// The VLAN tags of the frame, as in [`Packet::tags`](crate::wire::Packet::tags).
    pub tags: u32,
    /// When the flow was locked for it, ns.
    pub at_ns: u64,
    /// The end that sent the segment.
    pub sender: End,
    /// The segment.
    pub segment: &'a Segment,
}

/// Whether a segment counts.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts, and may move its direction to this hook: it is news, and acknowledges nothing that was not
    /// sent.
    MayMove,
    /// It counts.
    Counts,
    /// A copy: another hook saw the direction less than 100 ms ago, and the segment brings nothing new.
    Duplicate,
    /// A segment of another VLAN, or at another hook than the one in use, whose numbers do not belong to this
    /// flow: two networks use the same addresses and ports, or a box between the hooks changes the numbers.
    OtherNetwork,
}

impl Verdict {
    /// Why the segment does not count; `None` if it does.
    pub const fn ignored(self) -> Option<Ignored> {
        match self {
            Verdict::MayMove | Verdict::Counts => None,
            Verdict::Duplicate => Some(Ignored::Duplicate),
            Verdict::OtherNetwork => Some(Ignored::OtherNetwork),
        }
    }
}

/// What is remembered of the hooks that have seen a flow. The rest is in each [`DirectionPrediction`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// Where each direction was first seen, that of end A first: interface index shifted left by one, bit 0
    /// set on egress; 0 = not seen yet.
    pub hooks: [u32; 2],
    /// The VLAN tags of each direction's last segment that had an effect, as in
    /// [`Packet::tags`](crate::wire::Packet::tags).
    pub tags: [u32; 2],
    /// The latest segments that had no effect.
    pub without_effect: WithoutEffect,
}

impl Sightings {
    /// Nothing was seen.
    pub const NONE: Sightings =
        Sightings { hooks: [0; 2], tags: [0; 2], without_effect: WithoutEffect::NONE };

    /// Decides whether the segment counts, before it is applied to its flow.
    #[inline(always)]
    pub fn judge(&self, flow: &Flow, direction: &DirectionPrediction, seen: &Sighting<'_>) -> Verdict {
        let Sighting { sender, segment, .. } = *seen;
        let index = sender as usize & 1;
        let is_news = flow.is_news(sender, segment);
        let hook = short_hook(seen.hook);
        if direction.may_be_copy(hook, seen.at_ns)
            && (!is_news || self.without_effect.contains(sender, segment))
        {
            return Verdict::Duplicate;
        }
        let is_tagged_otherwise = self.hooks[index] != 0 && self.tags[index] != seen.tags;
        let is_elsewhere = is_tagged_otherwise || direction.is_alive_elsewhere(hook, seen.at_ns);
        if is_elsewhere && flow.is_outside_window(sender, segment) {
            return Verdict::OtherNetwork;
        }
        // A forged acknowledgment must not move a direction.
        if is_news && flow.acks_what_was_sent(sender, segment) { Verdict::MayMove } else { Verdict::Counts }
    }

    /// Notes a segment that counted and was applied. `verdict` is the answer of [`judge`](Self::judge),
    /// `has_effect` that of the machine.
    #[inline(always)]
    pub fn note(
        &mut self,
        direction: &mut DirectionPrediction,
        seen: &Sighting<'_>,
        verdict: Verdict,
        has_effect: bool,
    ) {
        let index = seen.sender as usize & 1;
        let moves = has_effect && matches!(verdict, Verdict::MayMove);
        direction.count_at(short_hook(seen.hook), moves, seen.at_ns);
        if self.hooks[index] == 0 {
            self.hooks[index] = seen.hook;
        }
        if has_effect {
            self.tags[index] = seen.tags;
        } else {
            self.without_effect.add(seen.sender, seen.segment);
        }
    }
}

impl Record {
    /// Applies the segment if it counts.
    ///
    /// # Errors
    ///
    /// The reason for which it does not.
    pub fn observe(
        &mut self,
        prediction: &mut Prediction,
        seen: &Sighting<'_>,
        rules: &Rules,
    ) -> Result<Outcome, Ignored> {
        let direction = &mut prediction.directions[seen.sender as usize & 1];
        let verdict = self.sightings.judge(&self.flow, direction, seen);
        if let Some(reason) = verdict.ignored() {
            return Err(reason);
        }
        let outcome = self.flow.on_segment(seen.at_ns, seen.sender, seen.segment, rules);
        self.sightings.note(direction, seen, verdict, outcome.cause.has_effect());
        Ok(outcome)
    }
}
