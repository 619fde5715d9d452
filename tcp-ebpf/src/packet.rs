//! How the bytes of a packet are read, at each kind of hook.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};
use tcp_common::wire::Bytes;

use crate::maps::SPARE;

/// Which way a packet goes at the interface.
#[derive(Clone, Copy)]
pub enum Direction {
    Ingress = 0,
    Egress = 1,
}

/// What a program must know of a packet beside its bytes.
pub trait Packet: Bytes {
    fn interface_index(&self) -> u32;
    /// Segments on the wire, where the stack made one of many.
    fn wire_segments(&self) -> u32;
    /// VLAN id that the NIC has already taken out of the frame.
    fn stripped_vlan(&self) -> Option<u16>;
}

pub struct XdpPacket<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        XdpPacket { ctx }
    }
}

impl Bytes for XdpPacket<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // The first buffer of a multi-buffer packet holds the headers.
        direct(self.ctx.data(), self.ctx.data_end(), offset)
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        // SAFETY: takes the context and returns a number.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn interface_index(&self) -> u32 {
        // SAFETY: the context is valid for the run of the program.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn wire_segments(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn stripped_vlan(&self) -> Option<u16> {
        None
    }
}

pub struct SkbPacket<'a> {
    ctx: &'a TcContext,
}

impl<'a> SkbPacket<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        SkbPacket { ctx }
    }
}

impl Bytes for SkbPacket<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = direct(self.ctx.data(), self.ctx.data_end(), offset) {
            return Some(bytes);
        }
        // Beyond the linear part: never pull, that would change the packet.
        let spare = SPARE.get_ptr_mut(0)?;
        // SAFETY: the helper writes N octets into this CPU's spare ones, or fails.
        unsafe {
            let error = bpf_skb_load_bytes(
                self.ctx.as_ptr().cast(),
                (offset & MAX_OFFSET) as u32,
                spare.cast(),
                N as u32,
            );
            (error == 0).then(|| *spare.cast::<[u8; N]>())
        }
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.ctx.len() as usize
    }
}

impl Packet for SkbPacket<'_> {
    #[inline(always)]
    fn interface_index(&self) -> u32 {
        // SAFETY: the context is valid for the run of the program.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    #[inline(always)]
    fn wire_segments(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.ctx.skb.skb).gso_segs }
    }

    #[inline(always)]
    fn stripped_vlan(&self) -> Option<u16> {
        // SAFETY: as above.
        let (present, tci) = unsafe { ((*self.ctx.skb.skb).vlan_present, (*self.ctx.skb.skb).vlan_tci) };
        (present != 0).then_some(tci as u16 & 0xfff)
    }
}

/// `N` octets of the linear part.
#[inline(always)]
fn direct<const N: usize>(start: usize, end: usize, offset: usize) -> Option<[u8; N]> {
    let mut first = start + (offset & MAX_OFFSET);
    // SAFETY: moves a register to itself. It keeps the compiler from computing the address twice: the verifier knows only
    // the register that was compared.
    unsafe { asm!("{0} = {0}", inout(reg) first, options(nomem, nostack, preserves_flags)) };
    if first + N <= end {
        // SAFETY: the comparison with the packet's end is what the verifier asks for; bytes have no alignment.
        return Some(unsafe { *(first as *const [u8; N]) });
    }
    None
}

/// No header begins beyond; the verifier wants the bound of an offset next to its use.
const MAX_OFFSET: usize = 0x7ff;
