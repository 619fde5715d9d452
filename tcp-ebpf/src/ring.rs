//! The rings of events: one for each CPU, in memory that the agent reads as it is.
//!
//! Not the kernel's ring buffer: nobody else writes to a CPU's ring, so that neither a lock nor a helper is needed, and the
//! agent can see which CPU's event is the earliest.

use core::arch::asm;
use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tcp_common::record::{Event, RingPositions};

use crate::maps::{EVENTS, RINGS, settings};

/// A slot for this CPU's next event.
pub struct Reservation {
    ends: *mut RingPositions,
    written: u64,
    /// Whose every field is to be written.
    pub event: *mut Event,
    /// This CPU.
    pub cpu: u32,
}

/// `None` if the ring is full, or a CPU came that has none.
#[inline(always)]
pub fn reserve() -> Option<Reservation> {
    // SAFETY: takes nothing, returns a number.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    let ends = RINGS.get_ptr_mut(cpu)?;
    let len = settings().ring_len;
    // SAFETY: a map value; programs of one CPU do not interrupt each other, so only the agent writes, and only `read`.
    let (written, read) = unsafe { ((*ends).written, read_volatile(addr_of!((*ends).read))) };
    if written.wrapping_sub(read) >= len as u64 {
        return None;
    }
    let index = cpu.wrapping_mul(len).wrapping_add(written as u32 & len.wrapping_sub(1));
    Some(Reservation { ends, written, event: EVENTS.get_ptr_mut(index)?, cpu })
}

impl Reservation {
    /// Hands the event to the agent.
    #[inline(always)]
    pub fn publish(self) {
        // SAFETY: no instruction, but the compiler writes the event before it; x86 keeps stores in order, another machine
        // needs a release here.
        unsafe { asm!("", options(nostack, preserves_flags)) };
        // SAFETY: as in `reserve`.
        unsafe { write_volatile(&raw mut (*self.ends).written, self.written + 1) };
    }
}
