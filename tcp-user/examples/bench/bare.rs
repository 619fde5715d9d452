//! Programs to compare with, assembled by hand: one that only passes the packet, and one that only reads the fields of a
//! TCP packet that any tracker must read. They are loaded and run by the system call itself, so that they cost nothing else.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Where a program sits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Xdp,
    Tc,
}

/// A loaded program.
pub(crate) struct Bare(OwnedFd);

impl Bare {
    /// Any program that passes every packet.
    pub(crate) fn of(program: OwnedFd) -> Bare {
        Bare(program)
    }

    /// Passes the packet: what a run costs by itself.
    pub(crate) fn pass(place: Place) -> Result<Bare> {
        load(place, &[op(MOV_IMM, 0, 0, 0, 2), op(EXIT, 0, 0, 0, 0)])
    }

    /// Checks bounds, EtherType, header and protocol, then loads addresses, ports, seq, ack, flags, window and length.
    pub(crate) fn parse(place: Place, ipv6: bool) -> Result<Bare> {
        let (tcp, ether_type) = if ipv6 { (54, 0xdd86) } else { (34, 0x0008) };
        // Offset and size of what must have one value, then of what is only loaded.
        let checks: &[(u8, i16, i32)] = if ipv6 {
            &[(LOAD_16, 12, ether_type), (LOAD_8, 20, 6)]
        } else {
            &[(LOAD_16, 12, ether_type), (LOAD_8, 14, 0x45), (LOAD_8, 23, 6)]
        };
        let mut loads: Vec<(u8, i16)> = if ipv6 {
            vec![(LOAD_64, 22), (LOAD_64, 30), (LOAD_64, 38), (LOAD_64, 46), (LOAD_16, 18)]
        } else {
            vec![(LOAD_32, 26), (LOAD_32, 30), (LOAD_16, 16), (LOAD_16, 20)]
        };
        loads.extend([(LOAD_32, tcp), (LOAD_32, tcp + 4), (LOAD_32, tcp + 8)]);
        loads.extend([(LOAD_16, tcp + 12), (LOAD_16, tcp + 14)]);
        let (data, end) = if place == Place::Xdp { (0, 4) } else { (76, 80) };
        let mut code = vec![
            op(MOV_IMM, 0, 0, 0, 0),
            op(LOAD_32, 2, 1, data, 0),
            op(LOAD_32, 3, 1, end, 0),
            op(MOV, 4, 2, 0, 0),
            op(ADD_IMM, 4, 0, 0, i32::from(tcp) + 20),
        ];
        // Every jump leads to the last instruction, past the verdict that says all was read.
        let length = code.len() + 2 + 2 * checks.len() + 2 * loads.len();
        let leave = |at: usize| i16::try_from(length - at - 1).unwrap_or(0);
        code.push(op(JUMP_GREATER, 4, 3, leave(code.len()), 0));
        for &(size, offset, value) in checks {
            code.push(op(size, 5, 2, offset, 0));
            code.push(op(JUMP_NOT_IMM, 5, 0, leave(code.len()), value));
        }
        for (size, offset) in loads {
            code.extend([op(size, 5, 2, offset, 0), op(XOR, 0, 5, 0, 0)]);
        }
        code.extend([op(MOV_IMM, 0, 0, 0, 2), op(EXIT, 0, 0, 0, 0)]);
        load(place, &code)
    }

    /// Runs it over one frame, `repeat` times; the kernel's mean duration of a run.
    pub(crate) fn run(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        let result = self.test_run(frame, repeat, 0, 0)?;
        ensure!(result.verdict == 2, "a program to compare with did not read its frame to the end");
        Ok(Duration::from_nanos(result.duration.into()))
    }

    /// Hands `repeat` copies of a frame to the network stack, as if they had come in at the namespace's loopback.
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

fn load(place: Place, code: &[u64]) -> Result<Bare> {
    let mut request = Load {
        kind: if place == Place::Xdp { 6 } else { 3 },
        count: u32::try_from(code.len())?,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    let fd = bpf(PROG_LOAD, &mut request).context("loading a program to compare with (root needed)")?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else.
    Ok(Bare(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// bpf(2): the head of `union bpf_attr`, what follows counts as zero.
fn bpf<T>(command: libc::c_long, request: &mut T) -> io::Result<i32> {
    // SAFETY: `request` is one of the two `repr(C)` structures below, and what it points to outlives the call.
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

/// One instruction.
fn op(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset as u16) << 16
        | u64::from(value as u32) << 32
}

const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`
const LIVE_FRAMES: u32 = 2;
const LOAD_8: u8 = 0x71;
const LOAD_16: u8 = 0x69;
const LOAD_32: u8 = 0x61;
const LOAD_64: u8 = 0x79;
const MOV: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const ADD_IMM: u8 = 0x07;
const XOR: u8 = 0xaf;
const JUMP_GREATER: u8 = 0x2d;
const JUMP_NOT_IMM: u8 = 0x55;
const EXIT: u8 = 0x95;
