//! The fragments that wait in the kernel for the rest of their datagram.

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use tcp_common::Ignored;
use tcp_common::record::{Counters, FRAGMENT_NS, WaitingDatagram};
use tcp_common::wire::DatagramId;

use super::error::failed;
use super::{Kernel, KernelError, open};
use crate::clock::monotonic_ns;

/// The map, and how many of its fragments the agent has removed.
pub(super) struct Fragments {
    map: HashMap<MapData, [u8; size_of::<DatagramId>()], [u8; size_of::<WaitingDatagram>()]>,
    expired: u64,
}

impl Fragments {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Fragments, KernelError> {
        Ok(Fragments { map: open(ebpf, FRAGMENTS)?, expired: 0 })
    }

    /// Adds the fragments that the agent has removed to the counters of the programs.
    pub(super) fn add_to(&self, counters: &mut Counters) {
        counters.fragments_released += self.expired;
        counters.ignored[Ignored::Fragment as usize] += self.expired;
    }
}

impl Kernel {
    /// Ends the wait of fragments whose datagram did not become whole in time: they count as ignored.
    pub fn expire_fragments(&mut self) -> Result<(), KernelError> {
        let now_ns = if self.current.clock_ns == 0 { monotonic_ns() } else { self.current.clock_ns };
        let Fragments { map, expired } = &mut self.fragments;
        let error = |error| failed(format!("reading map {FRAGMENTS}"), error);
        for id in map.keys().collect::<Result<Vec<_>, _>>().map_err(error)? {
            let datagram = match map.get(&id, 0) {
                Ok(datagram) => datagram,
                // A program has removed it.
                Err(MapError::KeyNotFound) => continue,
                Err(other) => return Err(error(other)),
            };
            let (at_ns, rest) = datagram.split_first_chunk().expect("the time is the first field");
            let (waiting, _) = rest.split_first_chunk().expect("the number of fragments is the second field");
            let waiting_ns = now_ns.saturating_sub(u64::from_ne_bytes(*at_ns));
            // Who removes a datagram counts its fragments.
            if waiting_ns >= FRAGMENT_NS && map.remove(&id).is_ok() {
                *expired += u64::from(u32::from_ne_bytes(*waiting));
            }
        }
        Ok(())
    }
}

const FRAGMENTS: &str = "FRAGMENTS";
