//! Reads the bytes of a packet, at each kind of hook.

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
use tcp_common::{
    Segment,
    wire::{Bytes, Header},
};

use crate::{
    maps::{COPIED, HEADERS},
    verifier::opaque,
};

/// A packet: its bytes, and what the kernel knows of it.
pub(crate) trait PacketAccess: Bytes {
    /// Returns the index of the interface.
    fn interface_index(&self) -> u32;
    /// Returns the number of segments on the wire, of which GRO or GSO made one packet.
    fn wire_segments(&self) -> u16;
    /// Returns the VLAN id that the NIC has removed from the frame.
    fn stripped_vlan(&self) -> Option<u16>;
    /// Returns whether the packet has come in by an interface, and was not made by this host.
    fn has_come_in(&self) -> bool;
}

/// A packet at an XDP hook.
pub(crate) struct XdpPacket<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    /// Returns the packet of a context.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
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
        = CheckedBytes
    where
        Self: 'b;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<CheckedBytes> {
        // The first buffer of a multi-buffer packet holds the headers.
        direct::<N>(self.start(), self.end(), offset)
    }

    #[inline(always)]
    fn has(&self, header: CheckedBytes, len: usize) -> bool {
        reaches(header, len, self.end())
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        // SAFETY: the helper needs a valid context, which the kernel passed to the program.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }
}

impl PacketAccess for XdpPacket<'_> {
    #[inline(always)]
    fn interface_index(&self) -> u32 {
        // SAFETY: the kernel passed this context to the program. It is valid while the program runs.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn wire_segments(&self) -> u16 {
        1
    }

    #[inline(always)]
    fn stripped_vlan(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn has_come_in(&self) -> bool {
        true
    }
}

/// A packet at a TC hook.
pub(crate) struct SkbPacket<'a> {
    ctx: &'a TcContext,
}

impl<'a> SkbPacket<'a> {
    /// Returns the packet of a context.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
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
    /// Copies the first bytes of a packet whose headers are not all in the linear part. Pulling them into the linear part
    /// would modify the packet.
    #[inline(always)]
    pub(crate) fn copied(&self) -> Option<Copied> {
        let memory = HEADERS.get_ptr_mut(0)?.cast::<u8>();
        // The verifier of Linux 6.1 relates a register that is compared to its copy that is passed on only if both have 64
        // bits and no call lies between them. It learns nothing from `len == 0`.
        let len = opaque(self.ctx.len() as usize).min(COPIED);
        if len < 2 {
            return None;
        }
        // SAFETY: the helper fails or writes `len` bytes, at most the size of this CPU's `HEADERS`, which no other program
        // uses meanwhile (see `per_cpu`).
        let error = unsafe { bpf_skb_load_bytes(self.ctx.as_ptr().cast(), 0, memory.cast(), len as u32) };
        (error == 0).then_some(Copied { memory, len, wire_len: self.ctx.len() as usize })
    }
}

impl Bytes for SkbPacket<'_> {
    type Header<'b>
        = CheckedBytes
    where
        Self: 'b;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<CheckedBytes> {
        direct::<N>(self.start(), self.end(), offset)
    }

    #[inline(always)]
    fn has(&self, header: CheckedBytes, len: usize) -> bool {
        reaches(header, len, self.end())
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.ctx.len() as usize
    }
}

impl PacketAccess for SkbPacket<'_> {
    #[inline(always)]
    fn interface_index(&self) -> u32 {
        // SAFETY: the kernel passed this context to the program. It is valid while the program runs.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    #[inline(always)]
    fn wire_segments(&self) -> u16 {
        // SAFETY: the kernel passed this context to the program. It is valid while the program runs.
        let segments = unsafe { (*self.ctx.skb.skb).gso_segs };
        segments.clamp(1, Segment::MAX_WIRE_SEGMENTS as u32) as u16
    }

    #[inline(always)]
    fn stripped_vlan(&self) -> Option<u16> {
        // SAFETY: the kernel passed this context to the program. It is valid while the program runs.
        let (present, tci) = unsafe { ((*self.ctx.skb.skb).vlan_present, (*self.ctx.skb.skb).vlan_tci) };
        (present != 0).then_some(tci as u16 & 0xfff)
    }

    #[inline(always)]
    fn has_come_in(&self) -> bool {
        // SAFETY: the kernel passed this context to the program. It is valid while the program runs.
        unsafe { (*self.ctx.skb.skb).ingress_ifindex != 0 }
    }
}

/// The first bytes of a packet, copied to this CPU's `HEADERS`.
pub(crate) struct Copied {
    memory: *const u8,
    len: usize,
    wire_len: usize,
}

impl Bytes for Copied {
    type Header<'b> = CheckedBytes;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<CheckedBytes> {
        let offset = offset & MAX_OFFSET;
        if offset > COPIED - N || offset + N > self.len {
            return None;
        }
        // SAFETY: `offset + N` is at most `COPIED`, the size of `HEADERS`, as just checked.
        Some(CheckedBytes(unsafe { self.memory.add(offset) } as usize))
    }

    #[inline(always)]
    fn has(&self, header: CheckedBytes, len: usize) -> bool {
        reaches(header, len, self.memory as usize + self.len)
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.wire_len
    }
}

/// Address of bytes whose presence has been checked.
#[derive(Clone, Copy)]
pub(crate) struct CheckedBytes(usize);

impl CheckedBytes {
    /// Loads a number at any alignment. CPUs that run these programs support it; the verifier rejects them on others.
    #[inline(always)]
    fn load<T>(self, at: usize) -> T {
        // SAFETY: `Bytes::header` or `Bytes::has` has checked that these bytes exist, and the verifier checks it again.
        unsafe { read_volatile((self.0 + at) as *const T) }
    }
}

impl Header for CheckedBytes {
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
    fn from(self, at: usize) -> CheckedBytes {
        CheckedBytes(self.0 + at)
    }
}

/// Loads one of a context's pointers into the packet. The field has 32 bits, and the verifier turns the loaded value into a
/// pointer. So the compiler must not know that the upper half of the register is zero.
#[inline(always)]
fn packet_pointer<const FIELD: usize>(ctx: *mut c_void) -> usize {
    let pointer: usize;
    // SAFETY: the instruction loads a field of the context that the kernel passed to the program.
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

/// Returns `N` bytes of the linear part.
#[inline(always)]
fn direct<const N: usize>(start: usize, end: usize, offset: usize) -> Option<CheckedBytes> {
    // Computed once, because the verifier knows the bounds only of the register that was compared.
    let first = opaque(start + (offset & MAX_OFFSET));
    if first + N <= end { Some(CheckedBytes(first)) } else { None }
}

/// Returns whether `len` bytes from `header` are before `end`. The verifier needs the bound of `len` next to its use.
#[inline(always)]
fn reaches(header: CheckedBytes, len: usize, end: usize) -> bool {
    opaque(header.0 + (len & 63)) <= end
}

/// Maximum offset of a header. The verifier needs the bound of an offset next to its use.
const MAX_OFFSET: usize = 0x7ff;
