//! The ring of events, drained a bounded number at a time.

use std::ptr;

use aya::maps::{MapData, RingBuf};
use tcp_common::record::Event;

/// The only reader of the ring.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Events {
        Events { ring }
    }

    /// Gives up to `limit` events to `take`. Returns how many there were.
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(&Event)) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(item) = self.ring.next() else { break };
            if item.len() == size_of::<Event>() {
                // SAFETY: the kernel program wrote one `Event`; plain integers, any bytes are valid. Ring items are
                // 8-byte aligned; read unaligned all the same, since nothing promises it.
                let event = unsafe { ptr::read_unaligned(item.as_ptr().cast::<Event>()) };
                take(&event);
            }
            count += 1;
        }
        count
    }
}
