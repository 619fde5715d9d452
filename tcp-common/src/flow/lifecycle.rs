//! The life of a flow in its owner's table: when it is due, when it is forgotten, and how an incarnation
//! ends without a segment of its own. Agent, replay and tests share these functions, so they agree.

use super::facts::{
    end_fact::{GONE, REOPENING},
    flow_fact,
};
use super::{Cause, Flow, Outcome, Previous, Rules};
use crate::state::{End, State};

/// How long a flow that is over is kept, in ns, so that late segments begin no incarnation (R20).
pub const QUARANTINE_NS: u64 = 60_000_000_000;

/// Every timer has expired.
const EXPIRED: Rules =
    Rules { time_wait_local_ns: 0, time_wait_remote_ns: 0, silence_ns: [1; State::COUNT], ..Rules::RFC };

impl Flow {
    /// When the flow's owner has to act if no segment arrives, on the caller's clock in ns: a timer changes
    /// a state, or a flow that is over may be forgotten. `None` if that is never.
    pub fn due_ns(&self, rules: &Rules) -> Option<u64> {
        if self.is_over() { Some(self.forgotten_ns(rules)) } else { self.next_deadline_ns(rules) }
    }

    /// [`due_ns`](Self::due_ns) right after [`tick`](Self::tick) at `now_ns`. A limit of silence that has
    /// expired and left an end in TIME-WAIT does not expire again.
    pub fn due_after_tick_ns(&self, now_ns: u64, rules: &Rules) -> Option<u64> {
        match self.due_ns(rules) {
            Some(due_ns) if due_ns <= now_ns && !self.is_over() => {
                let deadlines = [End::A, End::B].map(|end| self.time_wait_deadline_ns(end, rules));
                deadlines.into_iter().flatten().filter(|&due_ns| due_ns > now_ns).min()
            }
            due_ns => due_ns,
        }
    }

    /// When a flow that is over may be forgotten, ns: [`QUARANTINE_NS`] after its last TIME-WAIT and its
    /// last segment. A flow that a limit of silence ended may be forgotten at once, since any segment
    /// begins its next incarnation.
    pub fn forgotten_ns(&self, rules: &Rules) -> u64 {
        let time_wait_ends = [End::A, End::B].into_iter().filter_map(|end| {
            let begun_ns = self.end(end).time_wait_at_ns;
            (begun_ns != 0).then(|| begun_ns.saturating_add(self.two_msl_ns(end, rules)))
        });
        time_wait_ends.fold(self.last_ns, u64::max).saturating_add(QUARANTINE_NS)
    }

    /// Whether the host of this end must have a socket for it. There is none for a SYN that was answered
    /// with a cookie, and SYN-RECEIVED ends soon anyway.
    pub fn needs_socket(&self, end: End) -> bool {
        let without = [State::Closed, State::Listen, State::Unknown, State::SynReceived];
        self.is_local(end) && !without.contains(&self.state(end))
    }

    /// Closes the ends whose host has no socket for them any more; the whole flow if no other local end has
    /// one, since no host is left that would receive the rest.
    pub fn close_without_socket(&mut self, now_ns: u64, gone: [bool; 2]) -> Outcome {
        let lives = |end: End| self.needs_socket(end) && !gone[end as usize];
        if !lives(End::A) && !lives(End::B) {
            return self.tick(now_ns, &EXPIRED);
        }
        let from = self.states();
        for (x, gone) in self.ends.iter_mut().zip(gone) {
            if gone {
                x.clear(REOPENING);
                x.set(GONE);
                x.state = State::Closed as u8;
            }
        }
        Outcome { cause: Cause::Silence, to: self.states(), ..Outcome::unchanged(from) }
    }

    /// Ends an incarnation that the next one replaced: brings a copy made before that segment to the end that
    /// `previous` describes.
    ///
    /// Returns the transitions to CLOSED, without a cause: it is that of the segment.
    pub fn end_previous(&mut self, now_ns: u64, previous: Previous, rules: &Rules) -> Outcome {
        let from = self.states();
        self.tick(now_ns, rules);
        match previous.aborter() {
            Some(aborter) => {
                self.abort(now_ns, aborter);
                self.facts |= flow_fact::FORGOTTEN;
            }
            None if previous == Previous::Superseded => self.facts |= flow_fact::SUPERSEDED,
            None => {}
        }
        for x in &mut self.ends {
            x.set(GONE);
            x.state = State::Closed as u8;
        }
        self.facts |= flow_fact::FINISHED;
        Outcome { to: self.states(), previous, ..Outcome::unchanged(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CloseKind, Flags, Segment};

    fn send(flow: &mut Flow, at_ns: u64, sender: End, flags: u8, seq: u32, ack: u32) -> Outcome {
        let segment = Segment { flags: Flags(flags), seq, ack, window: 1000, ..Segment::default() };
        flow.on_segment(at_ns, sender, &segment, &Rules::RFC)
    }

    /// Established, then closed by A; B has acknowledged and may go on.
    fn half_closed(local: [bool; 2]) -> Flow {
        let mut flow = Flow::EMPTY;
        send(&mut flow, 1_000, End::A, Flags::SYN, 100, 0);
        send(&mut flow, 1_000, End::B, Flags::SYN | Flags::ACK, 900, 101);
        send(&mut flow, 1_000, End::A, Flags::ACK, 101, 901);
        send(&mut flow, 1_000, End::A, Flags::FIN | Flags::ACK, 101, 901);
        send(&mut flow, 1_000, End::B, Flags::ACK, 901, 102);
        flow.set_local(End::A, local[0]);
        flow.set_local(End::B, local[1]);
        assert_eq!(flow.states(), [State::FinWait2, State::CloseWait]);
        flow
    }

    #[test]
    fn the_flow_is_over_when_the_only_end_of_this_host_is_gone() {
        let mut flow = half_closed([true, false]);
        let outcome = flow.close_without_socket(2_000, [true, false]);
        assert!(outcome.is_transition() && flow.is_over());
        assert_eq!(flow.close_kind(), CloseKind::Timeout);
    }

    #[test]
    fn an_end_of_this_host_that_still_has_its_socket_lives_on() {
        let mut flow = half_closed([true, true]);
        let outcome = flow.close_without_socket(2_000, [true, false]);
        assert_eq!(outcome.to, [State::Closed, State::CloseWait]);
        assert!(!flow.is_over() && outcome.is_transition());
        // Its FIN finds no socket, and the RST that answers ends it too.
        send(&mut flow, 3_000, End::B, Flags::FIN | Flags::ACK, 901, 102);
        assert_eq!(flow.state(End::A), State::Closed);
        send(&mut flow, 3_001, End::A, Flags::RST, 102, 0);
        assert!(flow.is_over());
    }

    #[test]
    fn an_incarnation_whose_syn_ack_was_missed_began_with_the_answer_to_it() {
        let mut flow = half_closed([false, false]);
        let at_ns = |ms: u64| 70_000_000_000 + ms * 1_000_000;
        send(&mut flow, at_ns(0), End::A, Flags::SYN, 700_000, 0);
        send(&mut flow, at_ns(3), End::A, Flags::ACK, 700_001, 900_001);
        send(&mut flow, at_ns(5), End::A, Flags::ACK, 700_001, 900_001);
        let outcome = send(&mut flow, at_ns(9), End::B, Flags::ACK, 900_001, 700_001);
        assert_eq!((outcome.previous, flow.opened_ns()), (Previous::Superseded, at_ns(3)));
        assert_eq!(flow.states(), [State::Established; 2]);
    }

    #[test]
    fn only_ends_of_this_host_that_are_not_closed_need_a_socket() {
        let flow = half_closed([true, false]);
        assert!(flow.needs_socket(End::A) && !flow.needs_socket(End::B));
        assert!(!Flow::EMPTY.needs_socket(End::A));
    }

    #[test]
    fn a_flow_is_forgotten_a_quarantine_after_time_wait_whatever_comes_late() {
        let mut flow = half_closed([true, false]);
        send(&mut flow, 5_000, End::B, Flags::FIN | Flags::ACK, 901, 102);
        send(&mut flow, 6_000, End::A, Flags::ACK, 102, 902);
        let expires_ns = 5_000 + Rules::RFC.time_wait_local_ns;
        assert_eq!(flow.due_ns(&Rules::RFC), Some(expires_ns));
        assert_eq!(flow.tick(expires_ns, &Rules::RFC).to, [State::Closed; 2]);
        assert_eq!(flow.due_ns(&Rules::RFC), Some(expires_ns + QUARANTINE_NS));
        assert_eq!(send(&mut flow, expires_ns + 1, End::A, Flags::ACK, 102, 902).cause, Cause::Late);
        assert_eq!(flow.due_ns(&Rules::RFC), Some(expires_ns + QUARANTINE_NS));
    }

    #[test]
    fn silence_that_left_a_time_wait_does_not_come_up_again() {
        let mut flow = half_closed([true, false]);
        send(&mut flow, 1_000, End::B, Flags::FIN | Flags::ACK, 901, 102);
        let mut rules = Rules::RFC;
        rules.silence_ns[State::LastAck as usize] = 10;
        rules.silence_ns[State::TimeWait as usize] = 10;
        assert_eq!(flow.due_ns(&rules), Some(1_010));
        assert_eq!(flow.tick(1_010, &rules).to, [State::TimeWait, State::Closed]);
        assert_eq!(flow.due_after_tick_ns(1_010, &rules), Some(1_000 + rules.time_wait_local_ns));
    }

    #[test]
    fn a_replaced_incarnation_is_brought_to_its_end() {
        let mut flow = half_closed([false, false]);
        let outcome = flow.end_previous(2_000, Previous::AbortedByB, &Rules::RFC);
        assert_eq!((outcome.from, outcome.to), ([State::FinWait2, State::CloseWait], [State::Closed; 2]));
        assert_eq!((flow.close_kind(), flow.aborter()), (CloseKind::RstAfterFin, Some(End::B)));
        assert!(flow.was_finished());
    }
}
