//! The kernel programs: read the packet, find the flow, call tcp-common, publish. No code here knows a TCP state by name.
//!
//! A packet enters at one of the entry programs below. [`predicted`] handles the next segment of an established
//! connection. For all other packets, tail calls lead through the programs of the machine:
//!
//! - [`observe`] is the whole path of such a packet.
//! - [`rare`] is the path of what few packets have: fragments, options of IPv4, ICMP.
//! - [`packet`] reads bytes at each kind of hook.
//! - [`table`] finds, locks, inserts, evicts and stores flows.
//! - [`reset`] is apart from packets: it remembers why this host sends RSTs.
//! - [`publish`] counts, and writes events into the [`ring`] of this CPU.
//! - [`scratch`] holds what the steps share, and [`per_cpu`] says who may borrow it.
//!
//! The return value is constant: XDP passes every packet, and TC leaves it to the next program (`TC_ACT_UNSPEC`).

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "atomic read-modify-write operations are intrinsics on this target")]
#![allow(missing_docs, reason = "the macros of aya generate functions without documentation")]

mod clock;
mod diagnostics;
mod maps;
mod observe;
mod packet;
mod per_cpu;
mod predicted;
mod publish;
mod rare;
mod reset;
mod ring;
mod scratch;
mod table;
mod verifier;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use tcp_common::{record::tail_call, wire::FirstHeader};

use crate::{
    packet::{PacketAccess as _, SkbPacket, XdpPacket},
    per_cpu::PerCpu,
    scratch::Direction,
};

/// Entry program of XDP, ingress.
#[xdp(frags)]
pub(crate) fn finwait_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    if !predicted::handle(&XdpPacket::new(&ctx), FirstHeader::Ethernet, Direction::Ingress, &mut cpu) {
        next_xdp(&ctx, Some(tail_call::READ), &mut cpu);
    }
    XDP_PASS
}

/// Reads a packet and locks its flow. Behind `finwait_xdp`.
#[xdp(frags)]
pub(crate) fn finwait_read_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = observe::observe(&XdpPacket::new(&ctx), FirstHeader::Ethernet, Direction::Ingress, &mut cpu);
    next_xdp(&ctx, next, &mut cpu)
}

/// Locks the flow of a packet that another program has read.
#[xdp(frags)]
pub(crate) fn finwait_lock_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = observe::lock_read(&mut cpu);
    next_xdp(&ctx, next, &mut cpu)
}

/// Applies the segment to the locked flow.
#[xdp(frags)]
pub(crate) fn finwait_apply_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    observe::apply(&mut cpu);
    next_xdp(&ctx, Some(tail_call::FINISH), &mut cpu)
}

/// Publishes what the segment did, and unlocks the flow.
#[xdp(frags)]
pub(crate) fn finwait_finish_xdp(_ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    observe::finish(&mut cpu);
    XDP_PASS
}

/// Keeps a fragment until its datagram is whole. Behind `finwait_read_xdp`.
#[xdp(frags)]
pub(crate) fn finwait_fragment_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = rare::fragment(&mut cpu);
    next_xdp(&ctx, next, &mut cpu)
}

/// Checks the options of IPv4. Behind `finwait_read_xdp`.
#[xdp(frags)]
pub(crate) fn finwait_options_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = rare::options(Some(&XdpPacket::new(&ctx)), &mut cpu);
    next_xdp(&ctx, next, &mut cpu)
}

/// Reads and applies an ICMP message. Behind `finwait_read_xdp`.
#[xdp(frags)]
pub(crate) fn finwait_icmp_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the only call in this program, which runs at an XDP hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let packet = XdpPacket::new(&ctx);
    rare::icmp(Some(&packet), &packet, &mut cpu);
    XDP_PASS
}

/// Goes on with the next program of the chain, if there is one.
#[inline(always)]
fn next_xdp(ctx: &XdpContext, next: Option<u32>, cpu: &mut PerCpu) -> u32 {
    if let Some(index) = next {
        // SAFETY: `ctx` is the context that the kernel passed to this program.
        unsafe { maps::CHAIN_XDP.tail_call(ctx, index) };
        observe::count_missing_program(index, cpu);
    }
    XDP_PASS
}

/// Entry program of TC, ingress.
#[classifier]
pub(crate) fn finwait_in(ctx: TcContext) -> i32 {
    classify(&ctx, FirstHeader::Ethernet, Direction::Ingress)
}

/// Entry program of TC, egress.
#[classifier]
pub(crate) fn finwait_out(ctx: TcContext) -> i32 {
    classify(&ctx, FirstHeader::Ethernet, Direction::Egress)
}

/// Entry program of TC, ingress, for interfaces without a link-layer header (tun, WireGuard).
#[classifier]
pub(crate) fn finwait_in_ip(ctx: TcContext) -> i32 {
    classify(&ctx, FirstHeader::Ip, Direction::Ingress)
}

/// Entry program of TC, egress, for interfaces without a link-layer header (tun, WireGuard).
#[classifier]
pub(crate) fn finwait_out_ip(ctx: TcContext) -> i32 {
    classify(&ctx, FirstHeader::Ip, Direction::Egress)
}

/// Entry program of TC, egress, for the last place behind programs of others.
#[classifier]
pub(crate) fn finwait_last(ctx: TcContext) -> i32 {
    maps::note_reached(SkbPacket::new(&ctx).interface_index());
    classify(&ctx, FirstHeader::Ethernet, Direction::Egress)
}

/// Entry program of TC, egress, for the last place behind programs of others, for interfaces without a link-layer header.
#[classifier]
pub(crate) fn finwait_last_ip(ctx: TcContext) -> i32 {
    maps::note_reached(SkbPacket::new(&ctx).interface_index());
    classify(&ctx, FirstHeader::Ip, Direction::Egress)
}

#[inline(always)]
fn classify(ctx: &TcContext, link: FirstHeader, direction: Direction) -> i32 {
    // SAFETY: the only call in each of the six entry programs of TC. They run at TC hooks.
    let mut cpu = unsafe { PerCpu::enter() };
    if !predicted::handle(&SkbPacket::new(ctx), link, direction, &mut cpu) {
        observe::remember_hook(link, direction, &mut cpu);
        next_tc(ctx, Some(tail_call::READ), &mut cpu);
    }
    TC_ACT_UNSPEC
}

/// Reads a packet and locks its flow. Behind the entry programs of TC.
#[classifier]
pub(crate) fn finwait_read_tc(ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = observe::observe_linear(&SkbPacket::new(&ctx), &mut cpu);
    next_tc(&ctx, next, &mut cpu)
}

/// Copies and reads the headers that are not all in the packet's linear part. Behind `finwait_read_tc`.
///
/// A program of its own, because the verifier follows too many paths through reading a copy.
#[classifier]
pub(crate) fn finwait_copy_tc(ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = observe::read_copied(&SkbPacket::new(&ctx), &mut cpu);
    next_tc(&ctx, next, &mut cpu)
}

/// Locks the flow of a packet that another program has read.
#[classifier]
pub(crate) fn finwait_lock_tc(ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = observe::lock_read(&mut cpu);
    next_tc(&ctx, next, &mut cpu)
}

/// Applies the segment to the locked flow.
#[classifier]
pub(crate) fn finwait_apply_tc(ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    observe::apply(&mut cpu);
    next_tc(&ctx, Some(tail_call::FINISH), &mut cpu)
}

/// Publishes what the segment did, and unlocks the flow.
#[classifier]
pub(crate) fn finwait_finish_tc(_ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    observe::finish(&mut cpu);
    TC_ACT_UNSPEC
}

/// Keeps a fragment until its datagram is whole. Behind `finwait_read_tc` and `finwait_copy_tc`.
#[classifier]
pub(crate) fn finwait_fragment_tc(ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = rare::fragment(&mut cpu);
    next_tc(&ctx, next, &mut cpu)
}

/// Checks the options of IPv4. Behind `finwait_read_tc` and `finwait_copy_tc`.
#[classifier]
pub(crate) fn finwait_options_tc(ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let next = rare::options(SkbPacket::new(&ctx).copied().as_ref(), &mut cpu);
    next_tc(&ctx, next, &mut cpu)
}

/// Reads and applies an ICMP message. Behind `finwait_read_tc` and `finwait_copy_tc`.
#[classifier]
pub(crate) fn finwait_icmp_tc(ctx: TcContext) -> i32 {
    // SAFETY: the only call in this program, which runs at a TC hook.
    let mut cpu = unsafe { PerCpu::enter() };
    let packet = SkbPacket::new(&ctx);
    rare::icmp(packet.copied().as_ref(), &packet, &mut cpu);
    TC_ACT_UNSPEC
}

/// Goes on with the next program of the chain, if there is one.
#[inline(always)]
fn next_tc(ctx: &TcContext, next: Option<u32>, cpu: &mut PerCpu) -> i32 {
    if let Some(index) = next {
        // SAFETY: `ctx` is the context that the kernel passed to this program.
        unsafe { maps::CHAIN_TC.tail_call(ctx, index) };
        observe::count_missing_program(index, cpu);
    }
    TC_ACT_UNSPEC
}

/// Reads both clocks for the agent. Never attached.
#[xdp]
pub(crate) fn finwait_clocks(_ctx: XdpContext) -> u32 {
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
