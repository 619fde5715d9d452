//! Timestamps that cannot be right, jumps of the clock, and frames that wait on a pipe.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

const START_NS: u64 = 1_700_000_000 * SECOND_NS;
const YEAR_2106_NS: u64 = 4_294_967_295 * SECOND_NS;
const DAY_NS: u64 = 86_400 * SECOND_NS;

fn start() -> Vec<Captured> {
    connection_of(41_000, START_NS)
}

/// A SYN of another connection.
fn stamped(at_ns: u64) -> Captured {
    Captured { at_ns, frame: syn_of(5_000) }
}

fn read(frames: &[Captured]) -> Replayed {
    replay(pcap(Order::Little, Unit::Micro, 1, frames), Rules::AGENT)
}

/// Whether the connection of [`start`] was followed to its TIME-WAIT.
fn assert_followed(replayed: &Replayed, what: &str) {
    let connection = replayed.connections.iter().find(|c| c.client.port == 41_000).expect("listed");
    assert_eq!(connection.close_word(), "fin_3seg", "{what}");
    assert_eq!(connection.client.state, State::TimeWait, "{what}");
    assert_eq!(replayed.connections.iter().filter(|c| c.client.port == 41_000).count(), 1, "{what}");
}

#[test]
fn an_outlier_does_not_move_the_clock() {
    for outlier_ns in [YEAR_2106_NS, START_NS + 61 * SECOND_NS, START_NS + DAY_NS, START_NS + 400 * DAY_NS] {
        for at in 0..=5 {
            let mut frames = start();
            frames.insert(at, stamped(outlier_ns));
            let (what, replayed) = (format!("{outlier_ns} at {at}"), read(&frames));
            assert_followed(&replayed, &what);
            assert_eq!(replayed.statistics.impossible_times, 1, "{what}");
            assert_eq!(replayed.ended_at.as_nanosecond(), i128::from(START_NS + 50 * MS), "{what}");
            let [warning] = &replayed.warnings[..] else { panic!("{what}: {:?}", replayed.warnings) };
            assert!(warning.starts_with(&format!("frame {} is stamped 2", at + 1)), "{what}: {warning}");
        }
    }
    let mut frames = start();
    frames.insert(5, stamped(YEAR_2106_NS));
    let replayed = read(&frames);
    assert!(replayed.warnings[0].contains("2106-02-07T06:28:15Z"), "{:?}", replayed.warnings);
    let other = replayed.connections.iter().find(|c| c.client.port == 5_000).expect("it was processed");
    assert_eq!(other.opened_at.expect("by its SYN").as_nanosecond(), i128::from(START_NS + 40 * MS));
}

#[test]
fn several_outliers_do_not_move_the_clock() {
    for at in 2..=5 {
        for count in 1..=3 {
            let mut frames = start();
            for number in 0..count {
                frames.insert(at, stamped(YEAR_2106_NS - number * SECOND_NS));
            }
            let replayed = read(&frames);
            assert_followed(&replayed, &format!("{count} at {at}"));
            assert_eq!(replayed.statistics.impossible_times, count);
        }
    }
}

#[test]
fn an_outlier_at_the_end_is_rejected_if_no_pause_explains_it() {
    let mut frames = start();
    frames.push(stamped(YEAR_2106_NS));
    let replayed = read(&frames);
    assert_followed(&replayed, "the last frame");
    assert_eq!(replayed.statistics.impossible_times, 1);
    // A pause of a day may be one.
    frames.last_mut().expect("there").at_ns = START_NS + DAY_NS;
    let replayed = read(&frames);
    assert_eq!(replayed.statistics.impossible_times, 0);
    assert_eq!(replayed.connections[0].client.state, State::Closed);
}

#[test]
fn an_early_stamp_of_the_first_frame_is_rejected() {
    for wrong_ns in [0, 3 * SECOND_NS, YEAR_2106_NS, START_NS - 400 * DAY_NS] {
        let mut frames = start();
        frames[0].at_ns = wrong_ns;
        let replayed = read(&frames);
        assert_followed(&replayed, &format!("{wrong_ns}"));
        let opened_at = replayed.connections[0].opened_at.expect("by its SYN");
        assert_eq!(opened_at.as_nanosecond(), i128::from(START_NS + 10 * MS), "{wrong_ns}");
    }
}

#[test]
fn a_real_jump_is_followed() {
    for pause_ns in [61 * SECOND_NS, 3_600 * SECOND_NS, DAY_NS, 400 * DAY_NS] {
        let later_ns = START_NS + pause_ns;
        let frames = [start(), connection_of(42_000, later_ns)].concat();
        let replayed = read(&frames);
        assert!(replayed.warnings.is_empty(), "{pause_ns}: {:?}", replayed.warnings);
        let states: Vec<_> = replayed.connections.iter().map(|c| (c.client.port, c.client.state)).collect();
        assert_eq!(states, [(41_000, State::Closed), (42_000, State::TimeWait)], "{pause_ns}");
        assert_eq!(replayed.ended_at.as_nanosecond(), i128::from(later_ns + 50 * MS));
    }
    // A capture with one frame an hour.
    let hours: Vec<_> = (0..10).map(|hour| stamped(START_NS + hour * 3_600 * SECOND_NS)).collect();
    let replayed = read(&hours);
    assert_eq!((replayed.statistics.impossible_times, replayed.connections.len()), (0, 10));
}

#[test]
fn a_step_back_is_named_and_does_not_move_the_clock() {
    let mut frames = start();
    for later in &mut frames[3..] {
        later.at_ns -= 3_600 * SECOND_NS;
    }
    let replayed = read(&frames);
    assert_followed(&replayed, "an hour back");
    assert_eq!(replayed.statistics.out_of_order, 3);
    assert_eq!(replayed.ended_at.as_nanosecond(), i128::from(START_NS + 20 * MS));
    let [warning] = &replayed.warnings[..] else { panic!("one step: {:?}", replayed.warnings) };
    assert!(warning.starts_with("frame 4 is stamped 3599.99 s before the frame before it"), "{warning}");
}

#[test]
fn only_the_first_warnings_of_a_kind_are_given() {
    let frames: Vec<_> = (0..100).map(|i| stamped(START_NS + if i % 2 == 0 { 0 } else { 30 } * MS)).collect();
    let replayed = read(&frames);
    assert_eq!((replayed.warnings.len(), replayed.statistics.out_of_order), (20, 49));
}

#[test]
fn a_fraction_of_a_second_or_more_is_no_time() {
    for (order, unit, second) in [
        (Order::Little, Unit::Micro, 1_000_000_u32),
        (Order::Big, Unit::Micro, u32::MAX),
        (Order::Little, Unit::Nano, 1_000_000_000),
    ] {
        for at in 0..6 {
            let mut file = pcap(order, unit, 1, &start());
            let record = 24 + at * (16 + start()[0].frame.len());
            let fraction = if order == Order::Little { second.to_le_bytes() } else { second.to_be_bytes() };
            file[record + 4..record + 8].copy_from_slice(&fraction);
            let (what, replayed) = (format!("{second} at {at}"), replay(file, Rules::AGENT));
            assert_followed(&replayed, &what);
            assert_eq!(replayed.statistics.impossible_times, 1, "{what}");
            let [warning] = &replayed.warnings[..] else { panic!("{what}: {:?}", replayed.warnings) };
            assert!(warning.starts_with(&format!("frame {} has an impossible", at + 1)), "{what}: {warning}");
            let end_ms = if at == 5 { 40 } else { 50 };
            assert_eq!(replayed.ended_at.as_nanosecond(), i128::from(START_NS + end_ms * MS), "{what}");
        }
    }
}

/// A replay that reads a pipe, and the lines that it prints.
struct Live {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Live {
    fn start() -> Live {
        let mut child = Command::new(env!("CARGO_BIN_EXE_finwait"))
            .args(["replay", "--events", "-o", "ndjson", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _nobody_waits = sender.send(line);
            }
        });
        Live { child, lines }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().expect("piped").write_all(bytes).expect("it reads");
    }

    /// Waits for the transition of this client's SYN.
    fn wait_for(&self, port: u16) {
        let wanted = format!("\"port\":{port}");
        while !self.lines.recv_timeout(Duration::from_secs(60)).expect("an event").contains(&wanted) {}
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_pipe_without_traffic_holds_no_frame_back() {
    let mut live = Live::start();
    let next = Captured { at_ns: START_NS + DAY_NS, frame: syn_of(6_000) };
    let file = pcap(Order::Little, Unit::Micro, 1, &[stamped(START_NS), next]);
    let first_len = 24 + 16 + stamped(0).frame.len();
    live.write(&file[..first_len]);
    live.wait_for(5_000);
    // The next frame comes a day later, and none after it.
    live.write(&file[first_len..]);
    live.wait_for(6_000);
}
