//! The event rings: one per CPU, in memory that the agent reads directly.
//!
//! The kernel's ring buffer is not used. Only this CPU writes to its ring, so that neither a lock nor a helper is needed,
//! and the agent can see which CPU's event is the earliest.

use core::arch::asm;
use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tcp_common::record::{Event, RingPositions};

use crate::maps::{EVENTS, RINGS, settings};

/// Room for this CPU's next event.
pub(crate) struct Reservation {
    positions: *mut RingPositions,
    written: u64,
    /// The event to write.
    pub(crate) event: *mut Event,
    /// This CPU.
    pub(crate) cpu: u32,
}

/// This CPU's ring, if it has one.
struct CpuRing {
    cpu: u32,
    positions: *mut RingPositions,
    written: u64,
    /// Number of events that the agent has not read.
    unread: u64,
}

#[inline(always)]
fn ring() -> Option<CpuRing> {
    // SAFETY: the helper has no arguments and only returns the number of this CPU.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    let positions = RINGS.get_ptr_mut(cpu)?;
    // SAFETY: `positions` is a map value. Only this CPU's current program writes `written` (see `per_cpu`). The agent
    // writes `read` as one 64-bit store.
    let (written, read) = unsafe { ((*positions).written, read_volatile(addr_of!((*positions).read))) };
    Some(CpuRing { cpu, positions, written, unread: written.wrapping_sub(read) })
}

/// Whether half of this CPU's ring is full, or there is none.
#[inline(always)]
pub(crate) fn is_half_full() -> bool {
    ring().is_none_or(|ring| ring.unread >= settings().ring_len as u64 / 2)
}

/// Reserves room for an event. Returns `None` if the ring is full, or this CPU has no ring.
#[inline(always)]
pub(crate) fn reserve() -> Option<Reservation> {
    let CpuRing { cpu, positions, written, unread } = ring()?;
    let len = settings().ring_len;
    if unread >= len as u64 {
        return None;
    }
    let index = cpu.wrapping_mul(len).wrapping_add(written as u32 & len.wrapping_sub(1));
    Some(Reservation { positions, written, event: EVENTS.get_ptr_mut(index)?, cpu })
}

impl Reservation {
    /// Publishes the event, which must be written completely.
    #[inline(always)]
    pub(crate) fn publish(self) {
        // SAFETY: an empty instruction. It keeps the compiler from moving the event's stores behind the next one. x86-64
        // keeps stores in order; another architecture needs a release store below.
        unsafe { asm!("", options(nostack, preserves_flags)) };
        // SAFETY: `positions` is a map value, and only this CPU's current program writes `written` (see `per_cpu`).
        unsafe { write_volatile(&raw mut (*self.positions).written, self.written + 1) };
    }
}
