//! Timers: TIME-WAIT ends after 2MSL, every other state after its limit of silence.

use super::facts::{
    end_fact::{GONE, REOPENING},
    flow_fact,
};
use super::{Cause, EndState, Flow, Outcome, Rules, Step, local_bit};
use crate::state::{End, State};

impl Flow {
    /// Expires the timers that are due. Cheap if none is.
    #[inline(always)]
    pub fn tick(&mut self, now_ns: u64, rules: &Rules) -> Outcome {
        let mut outcome = Outcome::unchanged(self.states());
        if self.is_over() || self.incarnation == 0 {
            return outcome;
        }
        let (a, b) = (self.end_by_clock(End::A, now_ns, rules), self.end_by_clock(End::B, now_ns, rules));
        if a || b {
            outcome.cause = Cause::TimeWaitExpired;
        }
        if self.silent_too_long(now_ns, rules) {
            self.facts |= flow_fact::SILENCE;
            give_up(&mut self.ends[0]);
            give_up(&mut self.ends[1]);
            outcome.cause = Cause::Silence;
        }
        if outcome.cause != Cause::Nothing {
            self.derive_states_out_of_line(now_ns, &mut outcome);
        }
        outcome
    }

    /// When TIME-WAIT of this end expires, ns on the caller's clock; `None` in any other state.
    pub fn time_wait_deadline_ns(&self, end: End, rules: &Rules) -> Option<u64> {
        let x = self.end(end);
        (x.is_in(State::TimeWait)).then(|| x.time_wait_at_ns.saturating_add(self.two_msl_ns(end, rules)))
    }

    /// When a timer next changes a state if no segment arrives, ns; `None` if none is running.
    pub fn next_deadline_ns(&self, rules: &Rules) -> Option<u64> {
        let mut earliest = None;
        for end in [End::A, End::B] {
            let silence = match self.silence_limit_ns(end, rules) {
                0 => None,
                limit => Some(self.silent_since_ns().saturating_add(limit)),
            };
            for deadline in [self.time_wait_deadline_ns(end, rules), silence].into_iter().flatten() {
                earliest = Some(earliest.map_or(deadline, |earliest: u64| earliest.min(deadline)));
            }
        }
        earliest
    }

    /// Restarts 2MSL when the peer's FIN is retransmitted (RFC 9293 3.10.7.4). Linux also restarts it for
    /// any segment that has an ACK or that PAWS rejects (`tcp_timewait_state_process`).
    #[inline(always)]
    pub(super) fn restart_time_wait(&mut self, step: &Step, cause: Cause, outcome: &mut Outcome) {
        let Step { now_ns, rules, .. } = *step;
        let sender = step.sender();
        let holder = sender.peer();
        let any_ack =
            if self.is_local(holder) { rules.linux_restart_local } else { rules.linux_restart_remote } != 0;
        let fin_again = cause == Cause::FinAgain;
        let y = &mut self.ends[holder as usize & 1];
        if y.is_in(State::TimeWait) && (fin_again || any_ack) && !y.has(GONE) {
            y.time_wait_at_ns = now_ns;
            y.restarts = y.restarts.saturating_add(fin_again as u8);
            outcome.restarted = fin_again;
        }
    }

    #[inline(always)]
    pub(super) fn two_msl_ns(&self, end: End, rules: &Rules) -> u64 {
        if self.facts & local_bit(end) != 0 { rules.time_wait_local_ns } else { rules.time_wait_remote_ns }
    }

    #[inline(always)]
    fn end_by_clock(&mut self, end: End, now_ns: u64, rules: &Rules) -> bool {
        let limit = self.two_msl_ns(end, rules);
        let x = &mut self.ends[end as usize & 1];
        let due = x.is_in(State::TimeWait) && now_ns >= x.time_wait_at_ns.saturating_add(limit);
        if due {
            x.set(GONE);
        }
        due
    }

    #[inline(always)]
    fn silent_too_long(&self, now_ns: u64, rules: &Rules) -> bool {
        let silence = now_ns.saturating_sub(self.silent_since_ns());
        let (limit_a, limit_b) = (self.silence_limit_ns(End::A, rules), self.silence_limit_ns(End::B, rules));
        (limit_a != 0 && silence >= limit_a) || (limit_b != 0 && silence >= limit_b)
    }

    /// When the limits of silence began to run, ns. The last segment of an adopted flow may have passed long
    /// before the adoption, which the socket has survived.
    #[inline(always)]
    fn silent_since_ns(&self) -> u64 {
        if self.opened_ns > self.last_ns { self.opened_ns } else { self.last_ns }
    }

    /// The limit of silence of this end's state, ns; 0 for none. A remote end is in SYN-RECEIVED again only
    /// by a SYN-ACK that may be a late copy. If its peer has answered one, the limit is that of an open
    /// connection.
    #[inline(always)]
    fn silence_limit_ns(&self, end: End, rules: &Rules) -> u64 {
        let state = self.end(end).state;
        let answered = self.end(end.peer()).proved > State::SynReceived as u8;
        let open = state == State::SynReceived as u8 && answered && !self.is_local(end);
        match rules.silence_ns.get(if open { State::Established as usize } else { state as usize }) {
            Some(&limit) => limit,
            None => 0,
        }
    }
}

#[inline(always)]
fn give_up(x: &mut EndState) {
    if !x.is_in(State::TimeWait) {
        x.clear(REOPENING);
        x.set(GONE);
    }
}
