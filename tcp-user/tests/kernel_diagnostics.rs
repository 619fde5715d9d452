//! The messages that the kernel programs write to the agent's log for segments that they do not follow.

mod common;

use std::fs::{self, File};
use std::process::Command;
use std::sync::Mutex;

use common::{Agent, FINWAIT, Signal, public_folder, until};
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use finwait::lab::{Lab, Tap};
use tcp_common::{End, Flags};
use testkit::frames::{frame, frame_between, frame_v6_of, key_between, segment};

/// The lines that reached the log.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if !record.target().starts_with("finwait_ebpf") {
            return;
        }
        let line = format!("{} {}", record.level(), record.args());
        LINES.lock().expect("no writer has failed").push(line);
    }

    fn flush(&self) {}
}

const SYN_FIN: u8 = Flags::SYN | Flags::FIN;

#[test]
#[ignore = "needs root"]
fn each_segment_that_is_not_followed_is_logged_by_every_program() {
    log::set_logger(&Lines).expect("the first logger");
    log::set_max_level(log::LevelFilter::Debug);
    let options =
        LoadOptions { max_flows: 64, max_flows_v6: 64, diagnostics: true, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    for (name, count) in kernel.verified_instructions() {
        println!("verifier walked {count} instructions for {name}");
    }
    let mut diagnostics = kernel.take_diagnostics().expect("asked for");
    for (number, program) in (1..).zip([ProgramName::Xdp, ProgramName::In, ProgramName::Out]) {
        let mut run = |frame: &[u8]| {
            kernel.test_run(program, frame, 1).expect("a run");
            diagnostics.flush();
            std::mem::take(&mut *LINES.lock().expect("no writer has failed"))
        };
        let bad = segment(SYN_FIN, 7, 0, 0);
        assert_eq!(
            run(&frame(End::A, &bad)),
            [
                "DEBUG kernel: bad_flags segment, [::ffff:10.9.0.1]:40000 and [::ffff:10.9.0.2]:80, sequence 7, flags 0x3"
            ]
        );
        assert_eq!(
            run(&frame_v6_of(40_000, End::B, &bad)),
            ["DEBUG kernel: bad_flags segment, [fd00::1]:40000 and [fd00::2]:80, sequence 7, flags 0x3"]
        );
        assert_eq!(
            run(&frame(End::B, &segment(Flags::RST, 9, 0, 0))),
            [
                "DEBUG kernel: no_flow segment, [::ffff:10.9.0.1]:40000 and [::ffff:10.9.0.2]:80, sequence 9, flags 0x4"
            ]
        );
        assert_eq!(run(&frame(End::A, &bad)[..40]), ["DEBUG kernel: truncated frame ignored"]);
        let syn = frame_between(number, End::A, &segment(Flags::SYN, 1, 0, 0));
        assert!(run(&syn).is_empty(), "a segment that is followed");
        let index = kernel.table().find(&key_between(number)).expect("its flow");
        let held = kernel.table().try_lock(index).expect("no other owner");
        let told = run(&syn);
        assert!(matches!(&told[..], [line] if line.contains("kernel: deferred segment")), "{told:?}");
        drop(held);
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert!(run(&arp).is_empty(), "what is not TCP is no news");
    }
}

#[test]
#[ignore = "needs root"]
fn the_agent_logs_such_segments_only_if_verbose() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("diagnostics");
    for (verbose, told) in [(true, true), (false, false)] {
        let tap =
            lab.server.namespace().run(|| Tap::create("told")).expect("entering").expect("a TAP device");
        let ip = |arguments: &[&str]| {
            let run = || Command::new("ip").args(arguments).status();
            assert!(lab.server.namespace().run(run).expect("entering").expect("ip").success());
        };
        ip(&["link", "set", "told", "up"]);
        let socket = format!("{}/finwait.sock", folder.display());
        let log = folder.join("log");
        let mut command = Command::new(FINWAIT);
        command.args([
            "run",
            "-i",
            "told",
            "--max-flows",
            "1024",
            "--listen",
            "127.0.0.1:0",
            "--socket",
            &socket,
        ]);
        if verbose {
            command.arg("-v");
        }
        let log_file = File::create(&log).expect("a log");
        let agent = Agent::start_logging(&lab, &socket, &mut command, log_file);
        tap.send(&frame(End::A, &segment(SYN_FIN, 7, 0, 0))).expect("sending");
        until("the segment is counted", || agent.stats().packets_ignored["bad_flags"] == 1);
        let has_line = || fs::read_to_string(&log).expect("the log").contains("kernel: bad_flags segment");
        if told {
            until("the log has it", has_line);
        } else {
            assert!(agent.stop(Signal::SIGTERM).success());
            assert!(!has_line(), "nobody asked for it");
        }
    }
    fs::remove_dir_all(folder).expect("removing the folder");
}
