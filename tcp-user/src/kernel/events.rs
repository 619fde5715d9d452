//! The event rings, one per CPU, drained as one stream in the order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use tcp_common::record::{Event, RingPositions};

use super::KernelError;
use super::mapped::Mapped;

/// The only reader of the event rings.
///
/// The events of one flow arrive in the order in which its segments were processed, whichever CPUs saw them.
/// A CPU takes a segment's time after it has locked the flow, and publishes the event before it unlocks the
/// flow. So the first of two events of a flow has the lower time and was published before the second one.
/// A reader that finds the second event in one ring, and polls all other rings again, finds the first.
pub struct Events {
    positions: Mapped<RingPositions>,
    events: Mapped<Event>,
    ring_len: u32,
    rings: Vec<MappedRing>,
    /// The rings that have events, by the time of their first one.
    earliest: BinaryHeap<Reverse<(u64, u32)>>,
}

/// Positions in a ring, counted from the first event that was ever written to it.
#[derive(Clone, Copy, Default)]
struct MappedRing {
    /// The next event to read.
    next: u64,
    /// End of the events that the current call of [`Events::drain`] must hand out.
    due: u64,
    /// End of the events that it may hand out.
    written: u64,
}

impl Events {
    pub(super) fn map(ebpf: &mut Ebpf, cpus: u32, ring_len: u32) -> Result<Events, KernelError> {
        Ok(Events {
            positions: Mapped::map(ebpf, "RINGS", cpus)?,
            events: Mapped::map(ebpf, "EVENTS", cpus * ring_len)?,
            ring_len,
            rings: vec![MappedRing::default(); cpus as usize],
            earliest: BinaryHeap::new(),
        })
    }

    /// Returns the size of one CPU's ring, in events.
    pub fn ring_len(&self) -> u32 {
        self.ring_len
    }

    /// Hands up to `limit` events to `handle`. Events that exist now come before any that are published
    /// meanwhile. Returns the number of events.
    pub fn drain(&mut self, limit: usize, mut handle: impl FnMut(&Event)) -> usize {
        let mut due = self.poll();
        let mut count = 0;
        while due > 0 && count < limit {
            let Some(Reverse((_, cpu))) = self.earliest.peek().copied() else { break };
            let ring = self.rings[cpu as usize];
            handle(self.event(cpu, ring.next));
            count += 1;
            due -= u64::from(ring.next < ring.due);
            self.advance(cpu);
        }
        for (cpu, ring) in (0..).zip(&self.rings) {
            self.read_position(cpu).store(ring.next, Ordering::Release);
        }
        count
    }

    /// Polls all rings twice. Returns the number of events at the first poll.
    fn poll(&mut self) -> u64 {
        let mut due = 0;
        for cpu in 0..self.positions.len {
            let written = self.written_position(cpu).load(Ordering::Acquire);
            let ring = &mut self.rings[cpu as usize];
            ring.due = written;
            due += written - ring.next;
        }
        self.earliest.clear();
        if due > 0 {
            for cpu in 0..self.positions.len {
                let written = self.written_position(cpu).load(Ordering::Acquire);
                let ring = &mut self.rings[cpu as usize];
                ring.written = written;
                if ring.next < written {
                    let next = ring.next;
                    let first_ns = self.event(cpu, next).at_ns;
                    self.earliest.push(Reverse((first_ns, cpu)));
                }
            }
        }
        due
    }

    /// Advances the ring that has the earliest event by one event.
    fn advance(&mut self, cpu: u32) {
        let ring = &mut self.rings[cpu as usize];
        ring.next += 1;
        let (next, more) = (ring.next, ring.next < ring.written);
        let next_ns = if more { self.event(cpu, next).at_ns } else { 0 };
        if let Some(mut top) = self.earliest.peek_mut() {
            if more {
                *top = Reverse((next_ns, cpu));
            } else {
                PeekMut::pop(top);
            }
        }
    }

    /// Returns an event that has been written and not been read.
    fn event(&self, cpu: u32, number: u64) -> &Event {
        let index = cpu * self.ring_len + (number as u32 & (self.ring_len - 1));
        // SAFETY: `Mapped::at` returns a pointer into the mapping, to plain integers. The programs do not
        // write the event again before the ring's `read` position, which only this reader advances, is beyond
        // it.
        unsafe { &*self.events.at(index) }
    }

    fn written_position(&self, cpu: u32) -> &AtomicU64 {
        // SAFETY: `Mapped::at` returns a pointer into the mapping. The field is 8-byte aligned, and the
        // programs write it by 64-bit stores only.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.positions.at(cpu)).written) }
    }

    fn read_position(&self, cpu: u32) -> &AtomicU64 {
        // SAFETY: `Mapped::at` returns a pointer into the mapping. The field is 8-byte aligned, and the
        // programs only read it, by 64-bit loads.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.positions.at(cpu)).read) }
    }
}

/// Returns the size of each ring, in events, if all rings together may have `bytes` of memory.
pub(super) fn ring_len(bytes: u32, cpus: u32) -> u32 {
    let fit = bytes as usize / cpus.max(1) as usize / size_of::<Event>();
    1 << (fit as u32).max(MIN_RING_LEN).ilog2()
}

/// Minimum size of a ring, in events. A busy CPU fills it in some milliseconds.
const MIN_RING_LEN: u32 = 1024;
