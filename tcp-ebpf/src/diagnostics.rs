//! Debug messages of the kernel programs for the agent's log.
//!
//! `AYA_LOG_LEVEL` is a constant of the loaded object. If the agent does not log at debug level, the verifier removes all
//! of this code. No message is on the path of segments that are applied to a flow.

use aya_log_ebpf::debug;
use tcp_common::{End, Ignored};

use crate::scratch::Scratch;

/// Logs a packet that was ignored for a reason worth a message, or (without a reason) a segment that was deferred.
///
/// One function for both, so that only one stack frame lies between the machine's and the one that writes the message.
/// Linux 6.1 has no more stack for it.
#[inline(never)]
pub(crate) fn log_ignored(scratch: &Scratch, reason: Option<Ignored>) {
    let what = match reason {
        Some(reason) if reason.is_not_tcp() => return,
        Some(Ignored::Fragment | Ignored::Icmp | Ignored::Duplicate) => return,
        Some(reason @ (Ignored::Truncated | Ignored::Malformed | Ignored::Unsupported)) => {
            debug!((), "kernel: {} frame ignored", reason.name());
            return;
        }
        Some(reason) => reason.name(),
        None => "deferred",
    };
    let key = &scratch.packet.key;
    debug!(
        (),
        "kernel: {} segment, [{:i}]:{} and [{:i}]:{}, sequence {}, flags 0x{:x}",
        what,
        key.endpoint(End::A).octets(),
        key.port_a,
        key.endpoint(End::B).octets(),
        key.port_b,
        scratch.packet.segment.seq,
        scratch.packet.segment.flags.0
    );
}
