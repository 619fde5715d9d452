//! The parser's errors for wrong files, and its result for a whole file.

use tcp_common::{End, Flags, Rules, Segment, State};

use super::{Event, Location, load, parse};

const WHOLE: &str = "\
# A comment.

scenario T1 A title
source somewhere
rules R4 R25
isn 7 4294967295
msl 15000
rfc1337
idle FIN-WAIT-1 120000
local a
remote b
   5 a> SEW -3:97(100) win 1 <wscale 7, TS val 9 ecr 8> -> SYN-SENT, LISTEN|CLOSED  # why
     b> S. 0:0(0) ack -1 unseen
  90 tick -> TIME-WAIT until 60090, ESTABLISHED
close open|timeout opener unknown closer a|both aborter b fins ab complete state-lost no
";

/// Returns the message for a file in which one line is replaced.
fn message(line: &str, replacement: &str) -> String {
    assert_eq!(WHOLE.matches(line).count(), 1, "{line} is there once");
    match parse("t.pkt", &WHOLE.replace(line, replacement)) {
        Ok(_) => panic!("{replacement:?} is accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_whole_scenario_is_read() {
    let scenarios = parse("t.pkt", WHOLE).expect("it is well formed");
    let [scenario] = scenarios.as_slice() else { panic!("one scenario") };
    assert_eq!((scenario.id.as_str(), scenario.title.as_str()), ("T1", "A title"));
    assert_eq!(scenario.cites, [4, 25]);
    assert_eq!(scenario.isn, Some((7, u32::MAX)));
    assert_eq!(scenario.requires, [Some(Location::Local), Some(Location::Remote)]);
    assert_eq!(scenario.rules.time_wait_local_ns, 30_000_000_000);
    assert_eq!(scenario.rules.rfc1337, 1);
    assert_eq!(scenario.rules.silence_ns[State::FinWait1 as usize], 120_000_000_000);
    assert_eq!(
        scenario.rules.silence_ns[State::FinWait2 as usize],
        Rules::RFC.silence_ns[State::FinWait2 as usize]
    );
    let [syn, missed, tick] = scenario.steps.as_slice() else { panic!("three steps") };
    let Event::Seen(
        End::A,
        Segment { seq, ack, payload_len, window, flags, wscale, tsval, tsecr, options, .. },
    ) = syn.event
    else {
        panic!("{syn:?}")
    };
    assert_eq!((seq, ack, payload_len, window), (3_u32.wrapping_neg(), 0, 100, 1));
    assert_eq!(flags.0, Flags::SYN | Flags::ECE | Flags::CWR);
    assert_eq!((wscale, tsval, tsecr), (7, 9, 8));
    assert_eq!(options, Segment::HAS_WSCALE | Segment::HAS_TIMESTAMP);
    assert_eq!(syn.expected.as_ref().expect("both ends")[1].states, [State::Listen, State::Closed]);
    assert_eq!((syn.at_ms, missed.at_ms, tick.at_ms), (5, 15, 90));
    assert!(matches!(missed.event, Event::Missed(End::B, _)) && missed.expected.is_none());
    assert_eq!(tick.expected.as_ref().expect("both ends")[0].time_wait_until_ms, Some(60_090));
    let [close] = scenario.closes.as_slice() else { panic!("one close record") };
    assert_eq!(close.kinds, ["open", "timeout"]);
    assert_eq!(close.closers, ["a", "both"]);
    assert_eq!(
        (close.aborter.as_str(), close.fins.as_str(), close.complete, close.state_lost),
        ("b", "ab", true, Some(false))
    );
}

#[test]
fn an_error_names_the_place_and_what_was_expected() {
    let step = "   5 a> SEW -3:97(100) win 1 <wscale 7, TS val 9 ecr 8> -> SYN-SENT, LISTEN|CLOSED  # why";
    let close = "close open|timeout opener unknown closer a|both aborter b fins ab complete state-lost no";
    for (line, replacement, expected) in [
        ("scenario T1 A title", "scenario T1", "t.pkt:3:12: expected a title, found the end of the line"),
        ("scenario T1 A title", "szenario T1", "t.pkt:3:1: expected `scenario ID TITLE`, found `szenario`"),
        ("rules R4 R25", "rules R4 R99", "t.pkt:5:10: expected a rule, R1 to R29, found `R99`"),
        ("isn 7 4294967295", "isn 7", "t.pkt:6:6: expected the ISN of end b, found the end of the line"),
        ("isn 7 4294967295", "isn 7 4294967296", "t.pkt:6:7: expected the ISN of end b, found `4294967296`"),
        ("msl 15000", "msl 15s", "t.pkt:7:7: expected the end of the line, found `s`"),
        ("local a", "local c", "t.pkt:10:7: expected an end (a, b), found `c`"),
        ("idle FIN-WAIT-1 120000", "idle FIN-WAIT-3 1", "t.pkt:9:6: expected a state (CLOSED, LISTEN, "),
        (step, "a> X 0:0(0) -> CLOSED, CLOSED", "t.pkt:12:4: expected flags (`S` SYN, `.` ACK, "),
        (step, "a> S 0(0) -> CLOSED, CLOSED", "t.pkt:12:7: expected `:`, found `(0)`"),
        (step, "a> S 1:100(100) -> CLOSED, CLOSED", "t.pkt:12:8: expected 101, found `100(100)`"),
        (step, "a> . 1:1(0) -> CLOSED, CLOSED", "t.pkt:12:13: expected `ack`, found `->`"),
        (step, "a> S 0:0(0) ack 1 -> CLOSED, CLOSED", "t.pkt:12:13: expected `->`, found `ack`"),
        (step, "a> S 0:0(0) <mss 1460> -> CLOSED, CLOSED", "t.pkt:12:14: expected an option (`wscale N` or "),
        (
            step,
            "a> S 0:0(0) win 65536 -> CLOSED, CLOSED",
            "t.pkt:12:17: expected a window of at most 65535, found `65536`",
        ),
        (step, "a> S 0:0(0)", "t.pkt:12:12: expected `->`, found the end of the line"),
        (step, "a> S 0:0(0) -> SYN-SENT", "t.pkt:12:24: expected `,`, found the end of the line"),
        (step, "a> S 0:0(0) -> SYN-SENT, ", "t.pkt:12:25: expected a state (CLOSED, "),
        (step, "c> S 0:0(0) -> SYN-SENT, LISTEN", "t.pkt:12:1: expected a segment (`a>` or `b>`), `tick`, "),
        ("  90 tick", "  14 tick", "t.pkt:14:3: expected a time from 15 ms on, found `14`"),
        (" until 60090", " until soon", "t.pkt:14:30: expected the end of TIME-WAIT in ms, found `soon,`"),
        (
            "b> S. 0:0(0) ack -1 unseen",
            "b> S. 0:0(0) ack -1 unseen -> CLOSED, CLOSED",
            "t.pkt:13:33: expected the end of the line, found `->`",
        ),
        (close, "close fin_5seg opener a", "t.pkt:15:7: expected a close kind (open, fin_4seg, "),
        (close, "close open", "t.pkt:15:11: expected `opener`, found the end of the line"),
        (
            close,
            "close open opener a complete fins ab",
            "t.pkt:15:30: expected the end of the line, found `fins`",
        ),
        ("source somewhere", "", "t.pkt:3:10: T1 has no `source` line"),
        (close, "", "t.pkt:3:10: T1 has no `close` line, or has both `close none` and others"),
        (
            close,
            &format!("{close}\nclose none"),
            "t.pkt:3:10: T1 has no `close` line, or has both `close none` and others",
        ),
        (step, "", "t.pkt:3:10: T1 has no segment that the tap sees"),
    ] {
        let message = message(line, replacement);
        assert!(message.starts_with(expected), "{replacement:?}: {message}");
    }
}

#[test]
fn every_file_is_read() {
    assert!(load().len() > 150);
}
