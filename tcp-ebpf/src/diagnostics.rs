//! What the kernel programs say in the agent's log, at debug level, off the path of segments that are followed.
//!
//! `AYA_LOG_LEVEL` is a constant of the loaded object: where the agent's log has no such level the verifier takes all of
//! this out.

use aya_log_ebpf::debug;
use tcp_common::{End, Ignored};

use crate::work::Work;

/// A packet that moved no flow, if it is one that somebody could miss.
#[inline(never)]
pub fn ignored(work: &Work, reason: Ignored) {
    match reason {
        Ignored::NotTcp | Ignored::FragmentLater | Ignored::Duplicate => {}
        Ignored::FragmentFirst | Ignored::Truncated | Ignored::Malformed | Ignored::Unsupported => {
            debug!((), "kernel: {} frame ignored", reason.name());
        }
        Ignored::BadFlags
        | Ignored::NoFlow
        | Ignored::SelfConnect
        | Ignored::TableFull
        | Ignored::Contended => segment(work, reason.name()),
    }
}

/// A segment whose flow is busy: the agent applies it.
#[inline(never)]
pub fn deferred(work: &Work) {
    segment(work, "deferred");
}

#[inline(always)]
fn segment(work: &Work, what: &'static str) {
    let key = &work.packet.key;
    debug!(
        (),
        "kernel: {} segment, [{:i}]:{} and [{:i}]:{}, sequence {}, flags 0x{:x}",
        what,
        key.endpoint(End::A).octets(),
        key.port_a,
        key.endpoint(End::B).octets(),
        key.port_b,
        work.packet.segment.seq,
        work.packet.segment.flags.0
    );
}
