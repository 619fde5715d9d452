//! The kernel programs: read the packet, find the flow, call tcp-common, publish. Nothing here knows a TCP state by name.
//!
//! A packet's way: one of the entry points below, `packet` (how its bytes are read), `observe` (the whole way as one
//! sentence), `table` (find, claim, take and release the flow's slot), `publish` (counters and events).
//!
//! The verdict is constant: XDP passes every packet, TC leaves it to the next program (`TC_ACT_UNSPEC`).

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "atomic read-modify-write is an intrinsic on this target")]

mod maps;
mod observe;
mod packet;
mod publish;
mod table;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use tcp_common::wire::Link;

use crate::packet::{Direction, SkbPacket, XdpPacket};

#[xdp(frags)]
pub fn finwait_xdp(ctx: XdpContext) -> u32 {
    observe::observe(&XdpPacket::new(&ctx), Link::Ethernet, Direction::Ingress);
    XDP_PASS
}

#[classifier]
pub fn finwait_in(ctx: TcContext) -> i32 {
    observe::observe(&SkbPacket::new(&ctx), Link::Ethernet, Direction::Ingress);
    TC_ACT_UNSPEC
}

#[classifier]
pub fn finwait_out(ctx: TcContext) -> i32 {
    observe::observe(&SkbPacket::new(&ctx), Link::Ethernet, Direction::Egress);
    TC_ACT_UNSPEC
}

/// For interfaces without a link-layer header (tun, WireGuard).
#[classifier]
pub fn finwait_in_ip(ctx: TcContext) -> i32 {
    observe::observe(&SkbPacket::new(&ctx), Link::Ip, Direction::Ingress);
    TC_ACT_UNSPEC
}

/// As above.
#[classifier]
pub fn finwait_out_ip(ctx: TcContext) -> i32 {
    observe::observe(&SkbPacket::new(&ctx), Link::Ip, Direction::Egress);
    TC_ACT_UNSPEC
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
