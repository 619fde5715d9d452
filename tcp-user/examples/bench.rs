//! Cost of a packet on the established path, by `BPF_PROG_TEST_RUN`: medians, and what the verifier walked.

#[path = "../tests/frames/mod.rs"]
mod frames;

use anyhow::Result;
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use tcp_common::{End, Flags, Segment};

fn main() -> Result<()> {
    let mut kernel = Kernel::load(&LoadOptions::default())?;
    for (name, count) in kernel.verified_instructions() {
        println!("verifier walked {count:>7} instructions for {name}");
    }
    let segment = |flags: u8, seq: u32, ack: u32, payload_len: u32| Segment {
        seq,
        ack,
        payload_len,
        window: 65_535,
        flags: Flags(flags),
        wire_segments: 1,
        ..Segment::default()
    };
    let handshake = [
        (End::A, segment(Flags::SYN, 1000, 0, 0)),
        (End::B, segment(Flags::SYN | Flags::ACK, 5000, 1001, 0)),
        (End::A, segment(Flags::ACK, 1001, 5001, 0)),
        (End::A, segment(Flags::ACK, 1001, 5001, 100)),
        (End::B, segment(Flags::ACK, 5001, 1101, 0)),
    ];
    let ack = frames::frame(End::A, &segment(Flags::ACK, 1101, 5001, 0));
    let mut udp = ack.clone();
    udp[23] = 17;
    for program in [ProgramName::Xdp, ProgramName::In] {
        kernel.table().clear();
        for (sender, segment) in &handshake {
            kernel.test_run(program, &frames::frame(*sender, segment), 1)?;
        }
        let other = median(&mut kernel, program, &udp)?;
        let established = median(&mut kernel, program, &ack)?;
        println!(
            "{:<12} not TCP {other:>4} ns, established ACK {established:>4} ns a packet",
            program.name()
        );
    }
    Ok(())
}

/// Median of eleven rounds of a hundred thousand runs each.
fn median(kernel: &mut Kernel, program: ProgramName, frame: &[u8]) -> Result<u128> {
    let mut rounds = Vec::new();
    for _ in 0..11 {
        rounds.push(kernel.test_run(program, frame, 100_000)?.1.as_nanos());
    }
    rounds.sort_unstable();
    Ok(rounds[rounds.len() / 2])
}
