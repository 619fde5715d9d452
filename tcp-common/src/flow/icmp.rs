//! ICMP errors: they end a connection attempt, and nothing else (RFC 1122 4.2.3.9, RFC 5927 4.1, R29).

use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::{Cause, Flow, Outcome, Previous, Rules};
use crate::seq::Seq;
use crate::state::{End, State};
use crate::wire::IcmpError;

impl Flow {
    /// Applies an ICMP error that quotes a segment of `sender` with this sequence number, after the timers that
    /// expired before it. `family` is that of the flow. The cause is [`Cause::Nothing`] if the segment was not the
    /// SYN of an attempt under way.
    #[inline(always)]
    pub fn on_icmp_error(
        &mut self,
        now_ns: u64,
        sender: End,
        seq: Seq,
        error: IcmpError,
        family: u16,
        rules: &Rules,
    ) -> Outcome {
        let mut outcome = self.tick(now_ns, rules);
        outcome.cause = Cause::Nothing;
        let x = &self.ends[sender as usize & 1];
        let reopens = x.has(REOPENING);
        let isn = if reopens { self.pending_isn } else { x.isn };
        if !x.is_in(State::SynSent) || seq != isn {
            return outcome;
        }
        if reopens {
            let previous = if self.complete() { Previous::Over } else { Previous::Superseded };
            self.begin_pending(now_ns, sender, previous, &mut outcome);
        }
        self.end_both(now_ns);
        outcome.cause = if error.refuses(family) {
            self.facts |= flow_fact::REFUSED;
            Cause::Refused
        } else {
            Cause::Unreachable
        };
        self.facts |= (error.number() as u32) << flow_fact::ICMP_SHIFT;
        self.last_ns = now_ns;
        self.derive_states_out_of_line(now_ns, &mut outcome);
        outcome
    }

    /// The ICMP error that ended the attempt.
    #[inline(always)]
    pub const fn icmp_error(&self) -> Option<IcmpError> {
        IcmpError::from_number(((self.facts & flow_fact::ICMP) >> flow_fact::ICMP_SHIFT) as u8)
    }

    /// Whether the attempt was answered by a RST or an ICMP error. The next one may have the same ISN (R16).
    #[inline(always)]
    pub(super) const fn has_failed(&self) -> bool {
        self.facts & (flow_fact::REFUSED | flow_fact::ICMP) != 0
    }
}
