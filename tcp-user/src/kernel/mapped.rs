//! Arrays that kernel and agent share (`BPF_F_MMAPABLE`).

use std::os::fd::AsFd as _;

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};

use super::{KernelError, other};

/// An array of the kernel's in our memory.
pub(super) struct Mapped<T> {
    memory: MmapRaw,
    pub(super) len: u32,
    // The map lives as long as somebody holds it.
    _map: MapData,
    of: std::marker::PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway; every access follows the protocol of what it holds.
unsafe impl<T> Sync for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    pub(super) fn map(map: Map, len: u32) -> Result<Mapped<T>, KernelError> {
        let Map::Array(map) = map else {
            return Err(KernelError::NotSupported("a map to be shared is no array".into()));
        };
        let bytes = len as usize * size_of::<T>();
        let memory = MmapOptions::new()
            .len(bytes)
            .map_raw(&map.fd().as_fd())
            .map_err(other("mapping an array of the kernel's"))?;
        Ok(Mapped { memory, len, _map: map, of: std::marker::PhantomData })
    }

    pub(super) fn bytes(&self) -> usize {
        self.len as usize * size_of::<T>()
    }

    pub(super) fn at(&self, index: u32) -> *mut T {
        assert!(index < self.len, "{index} of {}", self.len);
        // SAFETY: in bounds of the mapping, as just checked.
        unsafe { self.memory.as_mut_ptr().cast::<T>().add(index as usize) }
    }
}
