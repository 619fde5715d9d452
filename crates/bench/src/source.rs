//! A program that turns one frame into frames of many connections and hands each to the program under test.
//! One system call delivers any number of frames: by `BPF_PROG_TEST_RUN`, or live to the network stack.

use std::ops::Range;

use anyhow::Result;
use tcp_common::End;

use crate::assembler::{Code, Label, Op, Size};
use crate::bare::{self, DATA, HashTracker};
use crate::bpf::{Map, MapKind, Program, ProgramType};
use crate::conversation::{self, Conversation, Segment};

/// How frames are delivered and what is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// By `BPF_PROG_TEST_RUN`: the programs alone, timed by the kernel.
    TestRun,
    /// To the network stack of this thread's namespace, at its loopback interface: CPU time up to the end of
    /// the stack.
    Live,
}

/// The order of connections and segments.
#[derive(Clone, Copy)]
pub(crate) enum Order<'a> {
    /// A segment of end A of any connection below this number.
    Random(u32, Segment),
    /// All of these segments of one connection after the other, [`TOGETHER`] connections at a time.
    Each(&'a [Segment]),
}

/// What happens to a frame before XDP passes it.
#[derive(Clone, Copy)]
pub(crate) enum Action<'a> {
    Pass,
    Parse,
    Hash(&'a HashTracker),
    /// A tail call.
    Program(&'a Program),
}

/// The loaded program.
pub(crate) struct Source {
    program: Program,
    /// [`Order::Random`]: the frame that is changed into those of all connections.
    frame: Vec<u8>,
    /// [`Order::Each`]: number of frames so far, and frames of a connection.
    count: Map,
    each: u32,
    /// The kernel empties the program array when its last owner is gone.
    _behind: Map,
}

impl Source {
    pub(crate) fn new(order: Order<'_>, then: Action<'_>) -> Result<Source> {
        let behind = Map::new(MapKind::Programs, 4, 4, 1)?;
        if let Action::Program(program) = then {
            behind.set_program(program)?;
        }
        let (segments, each): (&[Segment], u32) = match &order {
            Order::Random(_, segment) => (std::slice::from_ref(segment), 1),
            Order::Each(segments) => (segments, u32::try_from(segments.len())?),
        };
        let count = Map::new(MapKind::Array, 4, 64, 1)?;
        let script = script(segments)?;
        let mut code = Code::new();
        code.with(Op::Move, CONTEXT, 1);
        bare::bounds(&mut code, (CONTEXT, 0, 4), 60);
        match order {
            Order::Random(flows, _) => {
                code.call(RANDOM).with_value_32(Op::Modulo, 0, flows as i32);
                write_number(&mut code, End::A);
            }
            Order::Each(_) => write_next(&mut code, &count, &script, each as i32),
        }
        match then {
            Action::Pass => {}
            Action::Parse => bare::read_fields(&mut code, false),
            Action::Hash(tracker) => tracker.write(&mut code),
            Action::Program(_) => {
                code.with(Op::Move, 1, CONTEXT).map(2, behind.fd()).with_value(Op::Move, 3, 0);
                code.call(TAIL_CALL);
            }
        }
        code.label(Label::Leave).with_value(Op::Move, 0, bare::PASS).exit();
        let frame = frame(segments[0]);
        Ok(Source { program: Program::load(ProgramType::Xdp, &code)?, frame, count, each, _behind: behind })
    }

    /// Delivers this many frames. Returns the mean time of one in ns.
    pub(crate) fn cost(&self, delivery: Delivery, count: u32) -> Result<f64> {
        match delivery {
            Delivery::TestRun => self.program.run(&self.frame, count),
            Delivery::Live => {
                let before = thread_ns();
                self.program.inject(&self.frame, count)?;
                Ok((thread_ns() - before) / f64::from(count))
            }
        }
    }

    /// Delivers all segments of these connections ([`Order::Each`]) and calls `meanwhile` between system
    /// calls. Returns the mean time of a connection in ns.
    pub(crate) fn all(
        &self,
        delivery: Delivery,
        numbers: Range<u32>,
        mut meanwhile: impl FnMut(),
    ) -> Result<f64> {
        self.count.set(0, &[u64::from(self.each * numbers.start), 0, 0, 0, 0, 0, 0, 0])?;
        let mut all = 0.0;
        for first in numbers.clone().step_by((CALL * TOGETHER) as usize) {
            let count = self.each * (CALL * TOGETHER).min(numbers.end - first);
            all += self.cost(delivery, count)? * f64::from(count);
            meanwhile();
        }
        Ok(all / numbers.len() as f64)
    }
}

/// CPU time of this thread so far in ns.
pub(crate) fn thread_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Headers of each segment, then its sender.
fn script(segments: &[Segment]) -> Result<Map> {
    let script = Map::new(MapKind::Array, 4, 64, u32::try_from(segments.len())?)?;
    for (index, &segment) in (0..).zip(segments) {
        let mut value = [0; 8];
        for (word, bytes) in value.iter_mut().zip(frame(segment)[14..54].chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        value[SENDER as usize / 8] = segment.0 as u64;
        script.set(index, &value)?;
    }
    Ok(script)
}

fn frame((sender, flags, numbers): Segment) -> Vec<u8> {
    Conversation { ipv6: false, number: 0 }.frame(sender, flags, numbers)
}

/// Writes the next frame: [`TOGETHER`] connections have their first segment, then all of them their second.
fn write_next(code: &mut Code, count: &Map, script: &Map, each: i32) {
    let together = TOGETHER as i32;
    code.first_value(1, count.fd()).load(Size::U32, 9, 1, 0);
    code.with(Op::Move, 2, 9).with_value(Op::Add, 2, 1).store(Size::U32, 1, 0, 2);
    // R8: index of the segment, R9: connection.
    code.with(Op::Move, 8, 9).with_value(Op::Divide, 8, together).with(Op::Move, 2, 8);
    code.with_value(Op::Modulo, 8, each).with_value(Op::Divide, 2, each).with_value(
        Op::Multiply,
        2,
        together,
    );
    code.with_value(Op::Modulo, 9, together).with(Op::Add, 9, 2);
    code.store(Size::U32, 10, -4, 8).map(1, script.fd()).with(Op::Move, 2, 10).with_value(Op::Add, 2, -4);
    code.call(bare::MAP_LOOKUP).jump_equal(0, 0, Label::Leave).with(Op::Move, 8, 0);
    for offset in (0..SENDER).step_by(8) {
        code.load(Size::U64, 1, 8, offset).store(Size::U64, DATA, 14 + offset, 1);
    }
    code.load(Size::U64, 1, 8, SENDER).with(Op::Move, 0, 9).jump_not_equal(1, 0, Label::OfB);
    write_number(code, End::A);
    code.jump(Label::Written).label(Label::OfB);
    write_number(code, End::B);
    code.label(Label::Written);
}

/// Turns the frame into one of this connection, as [`Conversation::frame`] does.
fn write_number(code: &mut Code, sender: End) {
    let (address, port) = if sender == End::A { (26, 34) } else { (30, 36) };
    code.with(Op::Move, 1, 0).with_value(Op::ShiftRight, 1, conversation::PORT_BITS);
    code.store(Size::U8, DATA, address + 2, 1);
    code.with_value(Op::Xor, 1, 255).store(Size::U8, DATA, 18, 1);
    code.with_value(Op::And, 0, (1 << conversation::PORT_BITS) - 1);
    code.with_value(Op::Add, 0, conversation::FIRST_PORT.into()).swap_bytes(0, 16);
    code.store(Size::U16, DATA, port, 0);
}

/// Connections that open at the same time. All numbers of connections are multiples of it.
const TOGETHER: u32 = 500;
/// Groups of [`TOGETHER`] connections per system call: each call waits twice for all CPUs.
const CALL: u32 = 32;
/// Offset of the sender in a value of the script.
const SENDER: i16 = 40;
/// The register that keeps the context.
const CONTEXT: u8 = 6;
/// `bpf_get_prandom_u32`
const RANDOM: i32 = 7;
const TAIL_CALL: i32 = 12;
