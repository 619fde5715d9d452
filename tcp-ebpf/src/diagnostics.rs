//! What the kernel programs say in the agent's log, at debug level, off the path of segments that are followed.
//!
//! `AYA_LOG_LEVEL` is a constant of the loaded object: where the agent's log has no such level the verifier takes all of
//! this out.

use aya_log_ebpf::debug;
use tcp_common::{End, Ignored};

use crate::scratch::Scratch;

/// A packet that moved no flow, if it is one that somebody could miss, or (without a reason) a segment whose flow is busy,
/// which the agent applies. One call for both, so that there is one frame between the machine's and what writes the line:
/// Linux 6.1 has no more stack for it.
#[inline(never)]
pub fn log_ignored(scratch: &Scratch, reason: Option<Ignored>) {
    let what = match reason {
        Some(Ignored::NotTcp | Ignored::FragmentLater | Ignored::Duplicate) => return,
        Some(
            reason
            @ (Ignored::FragmentFirst | Ignored::Truncated | Ignored::Malformed | Ignored::Unsupported),
        ) => {
            debug!((), "kernel: {} frame ignored", reason.name());
            return;
        }
        Some(
            reason @ (Ignored::BadFlags
            | Ignored::NoFlow
            | Ignored::SelfConnect
            | Ignored::TableFull
            | Ignored::Contended),
        ) => reason.name(),
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
