//! The kernel programs: read the packet, find the flow, call tcp-common, publish. Nothing here knows a TCP state by name.
//!
//! A packet's way: one of the entry points below; `predicted` (the next segment of an established connection ends there);
//! for all others a tail call to the machine's program: `observe` (the whole way as one sentence), `packet` (how bytes are
//! read), `table` (find, claim, take and release the flow's slot), `publish` (counters and events), `ring` (where events go).
//! What they hand on is in `scratch`.
//!
//! The verdict is constant: XDP passes every packet, TC leaves it to the next program (`TC_ACT_UNSPEC`).

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "atomic read-modify-write is an intrinsic on this target")]

mod clock;
mod diagnostics;
mod maps;
mod observe;
mod packet;
mod predicted;
mod publish;
mod ring;
mod scratch;
mod table;
mod verifier;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use tcp_common::wire::Link;

use crate::{
    packet::{SkbPacket, XdpPacket},
    scratch::Direction,
};

#[xdp(frags)]
pub fn finwait_xdp(ctx: XdpContext) -> u32 {
    if !predicted::handle(&XdpPacket::new(&ctx), Link::Ethernet, Direction::Ingress) {
        // SAFETY: the context is this program's own. Comes back only if there is no such program.
        unsafe { maps::MACHINE_XDP.tail_call(&ctx, 0) };
        observe::count_missing_program();
    }
    XDP_PASS
}

/// Behind `finwait_xdp`.
#[xdp(frags)]
pub fn finwait_machine_xdp(ctx: XdpContext) -> u32 {
    observe::observe(&XdpPacket::new(&ctx), Link::Ethernet, Direction::Ingress);
    XDP_PASS
}

#[classifier]
pub fn finwait_in(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ethernet, Direction::Ingress)
}

#[classifier]
pub fn finwait_out(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ethernet, Direction::Egress)
}

/// For interfaces without a link-layer header (tun, WireGuard).
#[classifier]
pub fn finwait_in_ip(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ip, Direction::Ingress)
}

/// As above.
#[classifier]
pub fn finwait_out_ip(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ip, Direction::Egress)
}

#[inline(always)]
fn classify(ctx: &TcContext, link: Link, direction: Direction) -> i32 {
    if !predicted::handle(&SkbPacket::new(ctx), link, direction) {
        observe::remember_hook(link, direction);
        // SAFETY: as in `finwait_xdp`.
        unsafe { maps::MACHINE_TC.tail_call(ctx, 0) };
        observe::count_missing_program();
    }
    TC_ACT_UNSPEC
}

/// Behind the four above, which have said in this CPU's `Scratch` who they were.
#[classifier]
pub fn finwait_machine_tc(ctx: TcContext) -> i32 {
    if !observe::observe_linear(&SkbPacket::new(&ctx)) {
        // SAFETY: as in `finwait_xdp`.
        unsafe { maps::MACHINE_TC.tail_call(&ctx, 1) };
        observe::count_missing_program();
    }
    TC_ACT_UNSPEC
}

/// Behind `finwait_machine_tc`, for a packet whose headers are not all in its linear part. To read a copy has the verifier walk
/// so much that the rest is a program of its own.
#[classifier]
pub fn finwait_copied_tc(ctx: TcContext) -> i32 {
    if observe::read_copied(&SkbPacket::new(&ctx)) {
        // SAFETY: as in `finwait_xdp`.
        unsafe { maps::MACHINE_TC.tail_call(&ctx, 2) };
        observe::count_missing_program();
    }
    TC_ACT_UNSPEC
}

/// Behind `finwait_copied_tc`, which has put what it has read in this CPU's `Scratch`.
#[classifier]
pub fn finwait_follow_tc(_ctx: TcContext) -> i32 {
    observe::observe_read();
    TC_ACT_UNSPEC
}

/// Reads both clocks for the agent. Never attached.
#[xdp]
pub fn finwait_clocks(_ctx: XdpContext) -> u32 {
    clock::read_both();
    XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
