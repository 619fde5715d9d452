//! The rings of events, one for each CPU, read as one: drained a bounded number at a time, in the order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::Map;
use tcp_common::record::{Event, RingPositions};

use super::KernelError;
use super::mapped::Mapped;

/// The only reader of the rings.
///
/// The events of one flow come in the order in which its segments were taken, whichever CPUs saw them. A segment has its
/// time after its CPU has got the flow, and its event is published before that CPU lets go of it. So of two events of a flow
/// the first one has the lower time, and was there before the other one: who sees the second in one ring, and looks at all the
/// others once more, sees the first.
pub struct Events {
    ends: Mapped<RingPositions>,
    events: Mapped<Event>,
    /// Events in a ring.
    len: u32,
    rings: Vec<Ring>,
    /// The rings that have events, by the time of the first one.
    earliest: BinaryHeap<Reverse<(u64, u32)>>,
}

/// Places in a ring, counted from the first event that was ever written to it.
#[derive(Clone, Copy, Default)]
struct Ring {
    next: u64,
    /// What was there at the first look, all of which is given out.
    due: u64,
    /// At the second.
    written: u64,
}

impl Events {
    pub(super) fn map(ends: Map, events: Map, cpus: u32, len: u32) -> Result<Events, KernelError> {
        Ok(Events {
            ends: Mapped::map(ends, cpus)?,
            events: Mapped::map(events, cpus * len)?,
            len,
            rings: vec![Ring::default(); cpus as usize],
            earliest: BinaryHeap::new(),
        })
    }

    /// How many events the ring of a CPU holds.
    pub fn ring_len(&self) -> u32 {
        self.len
    }

    /// Gives up to `limit` events to `take`, those that are there now before any that come meanwhile. Returns how many there
    /// were.
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(&Event)) -> usize {
        let mut due = self.look();
        let mut count = 0;
        while due > 0 && count < limit {
            let Some(Reverse((_, cpu))) = self.earliest.peek().copied() else { break };
            let ring = self.rings[cpu as usize];
            take(self.event(cpu, ring.next));
            count += 1;
            due -= u64::from(ring.next < ring.due);
            self.advance(cpu);
        }
        for (cpu, ring) in (0..).zip(&self.rings) {
            self.read_of(cpu).store(ring.next, Ordering::Release);
        }
        count
    }

    /// Looks at all rings, twice. Returns how many events there were at the first look.
    fn look(&mut self) -> u64 {
        let mut due = 0;
        for cpu in 0..self.ends.len {
            let written = self.written_of(cpu);
            let ring = &mut self.rings[cpu as usize];
            ring.due = written;
            due += written - ring.next;
        }
        self.earliest.clear();
        if due > 0 {
            for cpu in 0..self.ends.len {
                let written = self.written_of(cpu);
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

    /// One event of the ring that has the earliest was taken.
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

    /// An event that has been written and not been read.
    fn event(&self, cpu: u32, number: u64) -> &Event {
        let index = cpu * self.len + (number as u32 & (self.len - 1));
        // SAFETY: in bounds and mapped; plain integers, which nobody writes until `read` is beyond them.
        unsafe { &*self.events.at(index) }
    }

    fn written_of(&self, cpu: u32) -> u64 {
        // SAFETY: in bounds and mapped, 8-byte aligned, and changed by whole words only.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.ends.at(cpu)).written) }.load(Ordering::Acquire)
    }

    fn read_of(&self, cpu: u32) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.ends.at(cpu)).read) }
    }
}

/// Events in the ring of one CPU of so many, where all rings may have so much memory.
pub(super) fn ring_len(bytes: u32, cpus: u32) -> u32 {
    let fit = bytes as usize / cpus.max(1) as usize / size_of::<Event>();
    1 << (fit as u32).max(FEWEST).ilog2()
}

/// Some milliseconds of a busy CPU.
const FEWEST: u32 = 1024;
