//! How the bytes of a packet are read, at each kind of hook.

use core::arch::asm;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, xdp_md},
    helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};
use tcp_common::wire::{Bytes, Header};

use crate::{
    maps::{COPIED, HEADERS},
    verifier::opaque,
};

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

    #[inline(always)]
    fn start(&self) -> usize {
        packet_pointer::<{ offset_of!(xdp_md, data) }>(self.ctx.as_ptr())
    }

    #[inline(always)]
    fn end(&self) -> usize {
        packet_pointer::<{ offset_of!(xdp_md, data_end) }>(self.ctx.as_ptr())
    }
}

impl Bytes for XdpPacket<'_> {
    type Header<'b>
        = At
    where
        Self: 'b;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<At> {
        // The first buffer of a multi-buffer packet holds the headers.
        direct::<N>(self.start(), self.end(), offset)
    }

    #[inline(always)]
    fn has<'b>(&'b self, header: At, len: usize) -> bool {
        reaches(header, len, self.end())
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

    #[inline(always)]
    fn start(&self) -> usize {
        packet_pointer::<{ offset_of!(__sk_buff, data) }>(self.ctx.as_ptr())
    }

    #[inline(always)]
    fn end(&self) -> usize {
        packet_pointer::<{ offset_of!(__sk_buff, data_end) }>(self.ctx.as_ptr())
    }
}

impl SkbPacket<'_> {
    /// The beginning of a packet whose headers are not all in the linear part: never pulled there, that would change the
    /// packet.
    #[inline(always)]
    pub fn copied(&self) -> Option<Copied> {
        let memory = HEADERS.get_ptr_mut(0)?.cast::<u8>();
        // The verifier of Linux 6.1 relates a register and its copy, of which one is compared and the other passed on, only if
        // they are whole ones and no call lies between; and it learns nothing from `len == 0`.
        let len = opaque(self.ctx.len() as usize).min(COPIED);
        if len < 2 {
            return None;
        }
        // SAFETY: the helper writes `len` octets, no more than this CPU's `HEADERS` holds, or fails.
        let error = unsafe { bpf_skb_load_bytes(self.ctx.as_ptr().cast(), 0, memory.cast(), len as u32) };
        (error == 0).then_some(Copied { memory, len, wire_len: self.ctx.len() as usize })
    }
}

impl Bytes for SkbPacket<'_> {
    type Header<'b>
        = At
    where
        Self: 'b;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<At> {
        direct::<N>(self.start(), self.end(), offset)
    }

    #[inline(always)]
    fn has<'b>(&'b self, header: At, len: usize) -> bool {
        reaches(header, len, self.end())
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

/// The beginning of a packet, copied to this CPU's `HEADERS`.
pub struct Copied {
    memory: *const u8,
    len: usize,
    wire_len: usize,
}

impl Bytes for Copied {
    type Header<'b> = At;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<At> {
        let offset = offset & MAX_OFFSET;
        if offset > COPIED - N || offset + N > self.len {
            return None;
        }
        // SAFETY: inside `HEADERS`, as just checked.
        Some(At(unsafe { self.memory.add(offset) } as usize))
    }

    #[inline(always)]
    fn has<'b>(&'b self, header: At, len: usize) -> bool {
        reaches(header, len, self.memory as usize + self.len)
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.wire_len
    }
}

/// Octets whose presence has been checked, by their address.
#[derive(Clone, Copy)]
pub struct At(usize);

impl At {
    /// A number of the packet, wherever it lies: machines that run these programs load from any address, and the verifier
    /// refuses the program on one that does not.
    #[inline(always)]
    fn load<T>(self, at: usize) -> T {
        // SAFETY: inside what `Bytes::header` has checked, which the verifier checks again.
        unsafe { read_volatile((self.0 + at) as *const T) }
    }
}

impl Header for At {
    #[inline(always)]
    fn u8(self, at: usize) -> u8 {
        self.load(at)
    }

    #[inline(always)]
    fn be16(self, at: usize) -> u16 {
        u16::from_be(self.load(at))
    }

    #[inline(always)]
    fn be32(self, at: usize) -> u32 {
        u32::from_be(self.load(at))
    }

    #[inline(always)]
    fn be64(self, at: usize) -> u64 {
        u64::from_be(self.load(at))
    }

    #[inline(always)]
    fn from(self, at: usize) -> At {
        At(self.0 + at)
    }
}

/// One of a context's pointers into the packet. The field has 32 bits and the verifier makes a pointer of what is loaded,
/// so the compiler must not know that half a register would do to copy it.
#[inline(always)]
fn packet_pointer<const FIELD: usize>(ctx: *mut c_void) -> usize {
    let pointer: usize;
    // SAFETY: loads a field of the context.
    unsafe {
        asm!(
            "{pointer} = *(u32 *)({ctx} + {field})",
            pointer = out(reg) pointer,
            ctx = in(reg) ctx,
            field = const FIELD,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    pointer
}

/// `N` octets of the linear part.
#[inline(always)]
fn direct<const N: usize>(start: usize, end: usize, offset: usize) -> Option<At> {
    // Not computed twice: the verifier knows only the register that was compared.
    let first = opaque(start + (offset & MAX_OFFSET));
    if first + N <= end { Some(At(first)) } else { None }
}

/// Whether the linear part goes on for `len` octets from there; the verifier wants their bound next to them.
#[inline(always)]
fn reaches(header: At, len: usize, end: usize) -> bool {
    opaque(header.0 + (len & 63)) <= end
}

/// No header begins beyond; the verifier wants the bound of an offset next to its use.
const MAX_OFFSET: usize = 0x7ff;
