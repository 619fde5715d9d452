//! bpf(2) without a library: loads and runs the programs and maps to compare with.

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use finwait::kernel::ProgramName;

use crate::assembler::Code;

/// The type of a program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgramType {
    Xdp,
    Tc,
}

/// A loaded program.
pub(crate) struct Program(OwnedFd);

impl Program {
    /// Finds the program of this name that `process` holds: other processes may have loaded their own.
    pub(crate) fn find(process: u32, name: ProgramName) -> Result<Program> {
        let files =
            fs::read_dir(format!("/proc/{process}/fdinfo")).context("reading the open files of a process")?;
        let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
        let id = |text: String| {
            text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok())
        };
        let own: Vec<u32> = texts.filter_map(id).collect();
        let program = loaded_programs()
            .filter_map(Result::ok)
            .find(|program| program.name_as_str() == Some(name.name()) && own.contains(&program.id()))
            .with_context(|| format!("{process} has no program {}", name.name()))?;
        Ok(Program(program.fd()?.as_fd().try_clone_to_owned()?))
    }

    pub(crate) fn load(program_type: ProgramType, code: &Code) -> Result<Program> {
        let code = code.finish();
        let mut log = vec![0u8; 1 << 20];
        let mut request = Load {
            kind: if program_type == ProgramType::Xdp { 6 } else { 3 },
            count: u32::try_from(code.len())?,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 1,
            log_size: u32::try_from(log.len())?,
            log: log.as_mut_ptr() as u64,
            kernel_version: 0,
            // As in finwait's programs, which could not tail-call this one otherwise.
            flags: if program_type == ProgramType::Xdp { XDP_HAS_FRAGS } else { 0 },
            name: [0; 16],
            interface: 0,
            attach_type: if program_type == ProgramType::Xdp { ATTACH_XDP } else { 0 },
        };
        let loaded = bpf(PROG_LOAD, &mut request).with_context(|| {
            let log = String::from_utf8_lossy(&log);
            let messages: Vec<&str> = log.trim_end_matches('\0').lines().rev().take(4).collect();
            format!("loading a program to compare with (root needed); {}", messages.join("; "))
        });
        Ok(Program(owned(loaded?)))
    }

    /// Attaches the program to an interface of this thread's namespace in driver mode, until the link is
    /// dropped.
    pub(crate) fn attach_xdp(&self, interface: u32) -> Result<OwnedFd> {
        self.attach(interface, ATTACH_XDP, DRIVER_MODE).context("attaching a program to an interface")
    }

    /// Attaches the program to TC ingress of an interface until the link is dropped. Needs TCX, Linux 6.6.
    pub(crate) fn attach_tc(&self, interface: u32) -> Result<OwnedFd> {
        self.attach(interface, ATTACH_TCX_INGRESS, 0)
    }

    fn attach(&self, interface: u32, attach_type: u32, flags: u32) -> Result<OwnedFd> {
        let program = u32::try_from(self.0.as_raw_fd())?;
        Ok(owned(bpf(LINK_CREATE, &mut NewLink { program, interface, attach_type, flags })?))
    }

    /// Runs the program on one frame, `repeat` times. Returns the kernel's mean duration of a run in ns.
    pub(crate) fn run(&self, frame: &[u8], repeat: u32) -> Result<f64> {
        let result = self.test_run(frame, repeat, 0, 0)?;
        ensure!(result.verdict == 2, "a program to compare with did not read its frame to the end");
        Ok(f64::from(result.duration))
    }

    /// Passes `repeat` frames to the network stack, as if received on the namespace's loopback interface.
    pub(crate) fn inject(&self, frame: &[u8], repeat: u32) -> Result<()> {
        self.test_run(frame, repeat, LIVE_FRAMES, 64.min(repeat)).map(drop)
    }

    fn test_run(&self, frame: &[u8], repeat: u32, flags: u32, batch_size: u32) -> Result<TestRun> {
        let mut request = TestRun {
            program: u32::try_from(self.0.as_raw_fd())?,
            data_size_in: u32::try_from(frame.len())?,
            data_in: frame.as_ptr() as u64,
            repeat,
            flags,
            batch_size,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut request).context("running a program on a frame")?;
        Ok(request)
    }
}

/// A map.
pub(crate) struct Map(OwnedFd);

impl Map {
    /// Creates a map with preallocated memory, the kernel's default.
    pub(crate) fn new(kind: MapKind, key_size: u32, value_size: u32, most: u32) -> Result<Map> {
        let mut request = NewMap { kind: kind as u32, key_size, value_size, most };
        Ok(Map(owned(bpf(MAP_CREATE, &mut request).context("making a map to compare with")?)))
    }

    pub(crate) fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Sets a value of an array with values of at most 64 bytes.
    pub(crate) fn set(&self, index: u32, value: &[u64; 8]) -> Result<()> {
        let mut request = Element {
            map: u32::try_from(self.fd())?,
            padding: 0,
            key: (&raw const index) as u64,
            value: value.as_ptr() as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &mut request).context("setting a value of an array").map(drop)
    }

    /// Looks up a value in a map with values of 64 bytes.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<[u64; 8]>> {
        let mut value = [0; 8];
        let mut request = Element {
            map: u32::try_from(self.fd())?,
            padding: 0,
            key: key.as_ptr() as u64,
            value: value.as_mut_ptr() as u64,
            flags: 0,
        };
        match bpf(MAP_LOOKUP_ELEM, &mut request) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("looking into a map"),
        }
    }

    /// Puts a program at index 0 of a program array.
    pub(crate) fn set_program(&self, program: &Program) -> Result<()> {
        self.set(0, &[u64::try_from(program.0.as_raw_fd())?, 0, 0, 0, 0, 0, 0, 0])
    }
}

/// Types of map (`enum bpf_map_type`).
#[derive(Clone, Copy)]
pub(crate) enum MapKind {
    Hash = 1,
    Array = 2,
    Programs = 3,
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just created this descriptor for this process, and it has no other owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Calls bpf(2) with the first fields of `union bpf_attr`. The kernel takes the rest as zero.
fn bpf<T>(command: libc::c_long, request: &mut T) -> io::Result<i32> {
    // SAFETY: `request` is one of the `repr(C)` structures below, and its pointers outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(request), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct NewMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    most: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct NewLink {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

#[derive(Default)]
#[repr(C)]
struct TestRun {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_sizes: [u32; 2],
    contexts: [u64; 2],
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;
/// `BPF_TCX_INGRESS`
const ATTACH_TCX_INGRESS: u32 = 46;
/// `XDP_FLAGS_DRV_MODE`
const DRIVER_MODE: u32 = 1 << 2;
/// `BPF_F_XDP_HAS_FRAGS`
const XDP_HAS_FRAGS: u32 = 1 << 5;
/// `BPF_XDP`
const ATTACH_XDP: u32 = 37;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`
const LIVE_FRAMES: u32 = 2;
