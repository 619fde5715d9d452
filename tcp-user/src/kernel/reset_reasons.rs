//! Why this host's kernel has sent RSTs. Only there if the kernel says so, which Linux 6.10 and newer do.

use std::collections::HashMap;

use aya::maps::{HashMap as BpfHashMap, MapData};
use aya::programs::RawTracePoint;
use aya::{Ebpf, Pod};
use tcp_common::record::{ResetEnds, ResetReason, SocketOffsets};

use super::btf::Btf;
use super::error::chain;
use super::{Kernel, open};

/// The kernel's reasons for RSTs that it has sent lately, in every network namespace.
pub struct ResetReasons {
    map: BpfHashMap<MapData, PodEnds, PodReason>,
    names: HashMap<u32, String>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodEnds(ResetEnds);
// SAFETY: `#[repr(C)]` integers without padding, as its asserted size in tcp-common shows.
unsafe impl Pod for PodEnds {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodReason(ResetReason);
// SAFETY: `#[repr(C)]` integers without padding, as its asserted size in tcp-common shows.
unsafe impl Pod for PodReason {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodOffsets(SocketOffsets);
// SAFETY: `#[repr(C)]`, and all fields are `u32`.
unsafe impl Pod for PodOffsets {}

/// What the program needs to know of this kernel.
pub(super) struct ResetTracepoint {
    pub(super) offsets: PodOffsets,
    names: HashMap<u32, String>,
}

impl ResetTracepoint {
    /// Without a tracepoint that has the reason, the text says why.
    pub(super) fn of_kernel() -> Result<ResetTracepoint, String> {
        let btf = Btf::of_kernel().map_err(|error| chain(&error))?;
        let names = btf.names(REASONS).filter(|_| btf.tracepoint_arguments(TRACEPOINT) == Some(ARGUMENTS));
        let names = names
            .ok_or("the kernel's tracepoint tcp_send_reset has no reason; Linux 6.10 and newer have it")?;
        let offset = |structure, member: &str| {
            btf.offset(structure, member).ok_or_else(|| format!("the kernel's {structure} has no {member}"))
        };
        let (packet, socket) = ("sk_buff", "sock_common");
        let offsets = SocketOffsets {
            head: offset(packet, "head")?,
            network_header: offset(packet, "network_header")?,
            transport_header: offset(packet, "transport_header")?,
            skc_family: offset(socket, "skc_family")?,
            inet_sport: offset("inet_sock", "inet_sport")?,
            skc_dport: offset(socket, "skc_dport")?,
            skc_rcv_saddr: offset(socket, "skc_rcv_saddr")?,
            skc_daddr: offset(socket, "skc_daddr")?,
            skc_v6_rcv_saddr: offset(socket, "skc_v6_rcv_saddr")?,
            skc_v6_daddr: offset(socket, "skc_v6_daddr")?,
        };
        let names = names.into_iter().map(|(number, name)| {
            let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_ascii_lowercase();
            (number, name)
        });
        Ok(ResetTracepoint { offsets: PodOffsets(offsets), names: names.collect() })
    }

    /// Loads and attaches the program. It is detached when the object is dropped.
    pub(super) fn attach(self, ebpf: &mut Ebpf) -> Result<ResetReasons, String> {
        let program = ebpf.program_mut(PROGRAM).ok_or("the object has no such program")?;
        let program: &mut RawTracePoint = program.try_into().map_err(|error| chain(&error))?;
        program.load().map_err(|error| format!("loading the program: {}", chain(&error)))?;
        program.attach(TRACEPOINT).map_err(|error| format!("attaching the program: {}", chain(&error)))?;
        let map = open(ebpf, MAP).map_err(|error| chain(&error))?;
        Ok(ResetReasons { map, names: self.names })
    }
}

impl Kernel {
    /// Takes what the kernel says about its RSTs, or why it says nothing. The second time there is nothing left.
    pub fn take_reset_reasons(&mut self) -> Result<ResetReasons, String> {
        std::mem::replace(&mut self.reset_reasons, Err("taken before".into()))
    }
}

impl ResetReasons {
    /// The kernel's word for why it has sent a RST with these ends at about this time, as in its
    /// `enum sk_rst_reason`: `tcp_abort_on_close`.
    pub fn reason(&self, ends: &ResetEnds, at_ns: u64) -> Option<&str> {
        let reason = self.map.get(&PodEnds(*ends), 0).ok()?.0;
        if reason.at_ns.abs_diff(at_ns) > SAME_NS {
            return None;
        }
        self.names.get(&reason.number).map(String::as_str)
    }
}

const PROGRAM: &str = "finwait_reset";
const TRACEPOINT: &str = "tcp_send_reset";
/// Socket, packet, reason.
const ARGUMENTS: usize = 3;
const REASONS: &str = "sk_rst_reason";
const PREFIX: &str = "SK_RST_REASON_";
pub(super) const MAP: &str = "RESET_REASONS";
/// Name of the object's constant that says where the kernel has what the program reads.
pub(super) const OFFSETS: &str = "SOCKET_OFFSETS";
/// The tracepoint and the sight of the RST are at most so far apart, in ns.
const SAME_NS: u64 = 100_000_000;
