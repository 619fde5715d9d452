//! Remembers why this host sends RSTs.

use core::ptr::read_volatile;

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tcp_common::Endpoint;
use tcp_common::record::{RESET_REASON_NS, ResetEnds, ResetReason, SocketOffsets};

use crate::maps::RESET_REASONS;

/// The agent sets it when it loads the program.
#[unsafe(no_mangle)]
static SOCKET_OFFSETS: SocketOffsets = SocketOffsets {
    head: 0,
    network_header: 0,
    transport_header: 0,
    skc_family: 0,
    inet_sport: 0,
    skc_dport: 0,
    skc_rcv_saddr: 0,
    skc_daddr: 0,
    skc_v6_rcv_saddr: 0,
    skc_v6_daddr: 0,
};

/// Runs at `tcp_send_reset(sk, skb, reason)` and changes nothing there. Loaded only on a kernel that has the reason.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub(crate) fn finwait_reset(ctx: RawTracePointContext) -> i32 {
    let (socket, packet, number): (u64, u64, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    // SAFETY: a constant of the object. Read as memory, because the agent replaces it.
    let offsets = unsafe { read_volatile(&SOCKET_OFFSETS) };
    // Without a packet the RST answers none: the socket gives up.
    let ends = if packet != 0 { of_packet(packet, &offsets) } else { of_socket(socket, &offsets) };
    if let Some(ends) = ends {
        remember(&ends, number);
    }
    0
}

fn remember(ends: &ResetEnds, number: u32) {
    // SAFETY: the helper has no arguments and only returns a number.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a copy of integers. Another CPU may replace them by others of the same ends.
    let is_known = unsafe { RESET_REASONS.get(ends) }
        .is_some_and(|known| at_ns.wrapping_sub(known.at_ns) < RESET_REASON_NS);
    if !is_known {
        // Nothing is lost but a reason if there is no memory.
        let _ = RESET_REASONS.insert(ends, ResetReason { at_ns, number, padding: 0 }, 0);
    }
}

/// The ends of the RST that answers a packet.
#[inline(always)]
fn of_packet(packet: u64, offsets: &SocketOffsets) -> Option<ResetEnds> {
    let head: u64 = read(packet, offsets.head)?;
    let network: u16 = read(packet, offsets.network_header)?;
    let transport: u16 = read(packet, offsets.transport_header)?;
    let version: u8 = read(head, network as u32)?;
    let [source, destination]: [[u8; 2]; 2] = read(head, transport as u32)?;
    let [source, destination] = [u16::from_be_bytes(source), u16::from_be_bytes(destination)];
    if version >> 4 == 4 {
        let [from, to]: [[u8; 4]; 2] = read(head, network as u32 + 12)?;
        Some(ResetEnds::new(&Endpoint::v4(to, destination), &Endpoint::v4(from, source)))
    } else {
        let [from, to]: [[u8; 16]; 2] = read(head, network as u32 + 8)?;
        Some(ResetEnds::new(&Endpoint::v6(to, destination), &Endpoint::v6(from, source)))
    }
}

/// The ends of the RST of a socket.
#[inline(always)]
fn of_socket(socket: u64, offsets: &SocketOffsets) -> Option<ResetEnds> {
    let family: u16 = read(socket, offsets.skc_family)?;
    // Its port of `struct sock_common` is given back before the RST is sent.
    let port = u16::from_be_bytes(read(socket, offsets.inet_sport)?);
    let peer_port = u16::from_be_bytes(read(socket, offsets.skc_dport)?);
    if family == AF_INET {
        let (own, peer) = (read(socket, offsets.skc_rcv_saddr)?, read(socket, offsets.skc_daddr)?);
        Some(ResetEnds::new(&Endpoint::v4(own, port), &Endpoint::v4(peer, peer_port)))
    } else {
        let (own, peer) = (read(socket, offsets.skc_v6_rcv_saddr)?, read(socket, offsets.skc_v6_daddr)?);
        Some(ResetEnds::new(&Endpoint::v6(own, port), &Endpoint::v6(peer, peer_port)))
    }
}

#[inline(always)]
fn read<T>(structure: u64, offset: u32) -> Option<T> {
    let address = structure.wrapping_add(offset as u64);
    // SAFETY: the helper checks the address, and any bytes are a value of the types that are read here.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

const AF_INET: u16 = 2;
