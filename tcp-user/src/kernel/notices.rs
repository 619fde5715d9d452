//! Notices of programs that any process loads, which may soon be attached to a hook.
//!
//! The kernel records them as perf events (`PERF_RECORD_BPF_EVENT`, `include/uapi/linux/perf_event.h`) in one
//! ring per CPU. It does not record that a program is attached. The records are not read: a readable ring
//! is notice enough.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::util::online_cpus;
use memmap2::{MmapOptions, MmapRaw};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// Perf events of loaded programs. The descriptor is readable after a load, until [`ProgramNotices::drain`].
pub struct ProgramNotices {
    epoll: Epoll,
    rings: Vec<NoticeRing>,
}

/// The perf event of one CPU, and its ring: a page of positions, then a page of records.
struct NoticeRing {
    _event: OwnedFd,
    memory: MmapRaw,
}

impl ProgramNotices {
    /// Opens the events of every CPU. Needs CAP_PERFMON.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn open() -> io::Result<ProgramNotices> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut rings = Vec::new();
        for cpu in online_cpus().map_err(|(_, error)| error)? {
            let event = open_event(cpu)?;
            let memory = MmapOptions::new().len(2 * PAGE).map_raw(&event)?;
            epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            rings.push(NoticeRing { _event: event, memory });
        }
        Ok(ProgramNotices { epoll, rings })
    }

    /// Forgets the notices so far.
    pub fn drain(&mut self) {
        for ring in &self.rings {
            let written = ring.position(DATA_HEAD).load(Ordering::Acquire);
            ring.position(DATA_TAIL).store(written, Ordering::Release);
        }
    }
}

impl NoticeRing {
    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the mapping is longer than the offset of both positions, which are aligned `u64`. Kernel and
        // reader access them as atomics (`struct perf_event_mmap_page`).
        unsafe { AtomicU64::from_ptr(self.memory.as_mut_ptr().add(offset).cast()) }
    }
}

impl AsRawFd for ProgramNotices {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }
}

impl AsFd for ProgramNotices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Opens an event of one CPU that counts nothing and records the programs that are loaded there.
fn open_event(cpu: u32) -> io::Result<OwnedFd> {
    let attributes = EventAttributes {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<EventAttributes>() as u32,
        config: PERF_COUNT_SW_DUMMY,
        flags: WATERMARK | BPF_EVENT,
        wakeup_watermark: 1,
        ..EventAttributes::default()
    };
    let (any_process, no_group) = (-1, -1);
    // SAFETY: the kernel reads `size` bytes of the attributes.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            any_process,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just created this descriptor, and it has no other owner.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct perf_event_attr`, as long as in Linux 5.0 (`PERF_ATTR_SIZE_VER5`).
#[repr(C)]
#[derive(Default)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    breakpoint_type: u32,
    unused: [u64; 7],
}

const _: () = assert!(size_of::<EventAttributes>() == 112);

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;
/// `wakeup_watermark` is in bytes of the ring.
const WATERMARK: u64 = 1 << 14;
const BPF_EVENT: u64 = 1 << 30;
/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
/// Size of a page on x86-64.
const PAGE: usize = 4096;
