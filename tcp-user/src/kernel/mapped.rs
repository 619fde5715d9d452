//! Arrays that kernel programs and agent share (`BPF_F_MMAPABLE`).

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};

use super::{KernelError, failed, take_map};

/// A BPF array that is mapped into the agent's memory.
pub(super) struct Mapped<T> {
    memory: MmapRaw,
    pub(super) len: u32,
    // Keeps the map's file descriptor open.
    _map: MapData,
    element: std::marker::PhantomData<T>,
}

// SAFETY: `Mapped` gives out raw pointers only. Who dereferences one must follow the protocol of the array,
// which allows for concurrent access by kernel programs and so for that of other threads.
unsafe impl<T> Sync for Mapped<T> {}
// SAFETY: the mapping belongs to the process, not to a thread, and `T` is plain integers without a
// destructor.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps the array with this name, which has `len` elements.
    pub(super) fn map(ebpf: &mut Ebpf, name: &'static str, len: u32) -> Result<Mapped<T>, KernelError> {
        let Map::Array(map) = take_map(ebpf, name)? else {
            return Err(KernelError::NotSupported(format!("map {name} is not an array")));
        };
        let memory = MmapOptions::new()
            .len(len as usize * size_of::<T>())
            .map_raw(&map.fd().as_fd())
            .map_err(|error| failed(format!("mapping {name} into memory"), error))?;
        Ok(Mapped { memory, len, _map: map, element: std::marker::PhantomData })
    }

    pub(super) fn bytes(&self) -> usize {
        self.len as usize * size_of::<T>()
    }

    /// Returns a pointer to an element.
    pub(super) fn at(&self, index: u32) -> *mut T {
        assert!(index < self.len, "{index} of {}", self.len);
        // SAFETY: the mapping has `len` elements, and `index` is less, as just checked.
        unsafe { self.memory.as_mut_ptr().cast::<T>().add(index as usize) }
    }
}
