//! Every parse case, at every length that the kernel accepts, through the loaded programs. They must give the
//! reason that the parser gives in user space.

use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use tcp_common::{
    Ignored, Rules,
    wire::{FirstHeader, parse},
};

const CASES: &str = include_str!("../../conformance/parse_cases.jsonl");
/// The kernel runs no program on a frame shorter than an Ethernet header.
const SHORTEST: usize = 14;

#[test]
#[ignore = "needs root"]
fn the_kernel_programs_agree_with_the_parser_on_every_case() {
    let options =
        LoadOptions { rules: Rules::RFC, max_flows: 64, max_flows_v6: 64, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    kernel.set_clock_ns(1_000_000_000_000).expect("setting the clock");
    let mut failures = Vec::new();
    for program in [ProgramName::Xdp, ProgramName::In, ProgramName::Out] {
        let mut compared = 0;
        for line in CASES.lines() {
            let case: serde_json::Value = serde_json::from_str(line).expect("a case is a line of JSON");
            let frame = octets(case["frame"].as_str().expect("a frame"));
            for len in SHORTEST..=frame.len() {
                let before = kernel.counters().expect("counters").ignored;
                // The kernel does not pass a frame this short to this hook, so there is nothing to compare.
                if kernel.test_run(program, &frame[..len], 1).is_err() {
                    continue;
                }
                compared += 1;
                let after = kernel.counters().expect("counters").ignored;
                let read =
                    PARSER.into_iter().find(|&reason| after[reason as usize] != before[reason as usize]);
                // Fragments and ICMP have tests of their own (`kernel_rare`).
                let expected = parse(&frame[..len], FirstHeader::Ethernet, None)
                    .err()
                    .filter(|reason| PARSER.contains(reason));
                if read != expected {
                    failures.push(format!(
                        "{} {} at {len}: {read:?}, not {expected:?}",
                        program.name(),
                        case["id"]
                    ));
                }
            }
        }
        assert!(compared > 1_000, "{}: only {compared} frames were taken", program.name());
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    for (name, count) in kernel.verified_instructions() {
        println!("verifier walked {count} instructions for {name}");
    }
}

/// The reasons that the parser gives. All other reasons arise after parsing.
const PARSER: [Ignored; 4] = [Ignored::NotTcp, Ignored::Truncated, Ignored::Malformed, Ignored::Unsupported];

fn octets(digits: &str) -> Vec<u8> {
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(octet).collect()
}
