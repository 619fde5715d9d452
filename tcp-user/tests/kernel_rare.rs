//! What few packets have, through the loaded programs on XDP and TC: fragments, ICMP errors, options of IPv4.

use std::sync::OnceLock;

use finwait::kernel::{Events, Kernel, LoadOptions, ProgramName};
use parking_lot::{Mutex, MutexGuard};
use tcp_common::record::{Counters, FRAGMENT_NS};
use tcp_common::{Cause, CloseKind, End, Flags, Flow, Ignored, Rules, Segment, State};
use testkit::frames::{self, segment};

const HOOKS: [ProgramName; 3] = [ProgramName::Xdp, ProgramName::In, ProgramName::Out];
const SYN: u8 = Flags::SYN;
const ACK: u8 = Flags::ACK;
const FIN: u8 = Flags::FIN | Flags::ACK;
const START_NS: u64 = 1_000_000_000_000;

struct Programs {
    kernel: Kernel,
    events: Events,
    now_ns: u64,
    before: Counters,
}

impl Programs {
    /// The programs, loaded once for all tests.
    fn get() -> MutexGuard<'static, Programs> {
        static PROGRAMS: OnceLock<Mutex<Programs>> = OnceLock::new();
        PROGRAMS.get_or_init(|| Mutex::new(Programs::load(false))).lock()
    }

    fn load(key_by_vlan: bool) -> Programs {
        let options = LoadOptions {
            max_flows: 1024,
            max_flows_v6: 1024,
            rules: Rules::RFC,
            key_by_vlan,
            ..LoadOptions::default()
        };
        let mut kernel = Kernel::load(&options).expect("loading the programs (root needed)");
        let events = kernel.take_events().expect("the first call");
        let before = kernel.counters().expect("counters");
        Programs { kernel, events, now_ns: START_NS, before }
    }

    /// Forgets all flows, and counts from here.
    fn begin(&mut self) {
        self.kernel.table().clear();
        self.events.drain(usize::MAX, |_| {});
        // What an earlier step left waiting is gone.
        self.wait(2 * FRAGMENT_NS);
        self.kernel.expire_fragments().expect("reading the fragments");
        self.before = self.kernel.counters().expect("counters");
    }

    fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
        self.kernel.set_clock_ns(self.now_ns).expect("setting the clock");
    }

    fn run(&mut self, hook: ProgramName, frame: &[u8]) {
        self.wait(1_000_000);
        self.kernel.test_run(hook, frame, 1).expect("running a program");
    }

    fn segment(&mut self, hook: ProgramName, sender: End, segment: &Segment) {
        self.run(hook, &frames::frame(sender, segment));
    }

    /// The handshake from 100 and 900.
    fn handshake(&mut self, hook: ProgramName) {
        self.segment(hook, End::A, &segment(SYN, 100, 0, 0));
        self.segment(hook, End::B, &segment(SYN | ACK, 900, 101, 0));
        self.segment(hook, End::A, &segment(ACK, 101, 901, 0));
    }

    fn flow(&self) -> Flow {
        let table = self.kernel.table();
        table.find(&frames::key()).and_then(|index| table.read(index)).map_or(Flow::EMPTY, |entry| entry.flow)
    }

    /// Packets since [`begin`](Self::begin): seen, tracked, waiting, and ignored for these reasons. No other
    /// reason has any.
    fn counted<const N: usize>(&self, reasons: [Ignored; N]) -> (u64, u64, u64, [u64; N]) {
        let now = self.kernel.counters().expect("counters");
        let ignored =
            Ignored::ALL.map(|reason| now.ignored[reason as usize] - self.before.ignored[reason as usize]);
        let (seen, tracked) = (
            now.packets_seen() - self.before.packets_seen(),
            now.packets_tracked() - self.before.packets_tracked(),
        );
        let counted =
            (seen, tracked, now.fragments_pending(), reasons.map(|reason| ignored[reason as usize]));
        assert_eq!(seen, tracked + ignored.iter().sum::<u64>() + now.fragments_pending(), "each packet once");
        assert_eq!(ignored.iter().sum::<u64>(), counted.3.iter().sum::<u64>(), "{ignored:?}");
        counted
    }
}

/// A FIN with 1,000 bytes as three fragments.
fn fin_in_parts(identification: u16) -> [Vec<u8>; 3] {
    in_parts(&segment(FIN, 101, 901, 1_000), identification)
}

fn in_parts(segment: &Segment, identification: u16) -> [Vec<u8>; 3] {
    let frame = frames::frame(End::A, segment);
    frames::fragments(&frame, identification, &[64, 512]).try_into().expect("three fragments")
}

#[test]
#[ignore = "needs root"]
fn the_fragments_make_the_segment_in_any_order() {
    let mut programs = Programs::get();
    for hook in HOOKS {
        for (number, order) in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]].into_iter().enumerate() {
            programs.begin();
            programs.handshake(hook);
            let parts = fin_in_parts(number as u16 + 1);
            programs.run(hook, &parts[order[0]]);
            programs.run(hook, &parts[order[1]]);
            let waits = programs.counted([Ignored::Fragment]);
            assert!(matches!(waits, (5, 3, 1, [1]) | (5, 3, 2, [0])), "{order:?}: {waits:?}");
            programs.run(hook, &parts[order[2]]);
            assert_eq!(programs.counted([Ignored::Fragment]), (6, 5, 0, [1]), "{order:?}");
            programs.segment(hook, End::B, &segment(ACK, 901, 1_102, 0));
            let flow = programs.flow();
            assert_eq!(flow.states(), [State::FinWait2, State::CloseWait], "{} {order:?}", hook.name());
            assert_eq!((flow.payload_bytes(End::A), flow.end(End::A).segments()), (1_000, 3));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_datagram_that_stays_incomplete_is_ignored_after_its_time() {
    let mut programs = Programs::get();
    for hook in HOOKS {
        for part in [0, 2] {
            programs.begin();
            programs.handshake(hook);
            programs.run(hook, &fin_in_parts(7)[part]);
            programs.kernel.expire_fragments().expect("reading the fragments");
            assert_eq!(programs.counted([]), (4, 3, 1, []));
            programs.wait(FRAGMENT_NS);
            programs.kernel.expire_fragments().expect("reading the fragments");
            assert_eq!(programs.counted([Ignored::Fragment]), (4, 3, 0, [1]));
            assert_eq!(programs.flow().states(), [State::Established; 2]);
        }
        // Without the agent, the next fragment with the identification ends the wait.
        programs.begin();
        programs.handshake(hook);
        let [first, middle, last] = fin_in_parts(7);
        programs.run(hook, &first);
        programs.wait(FRAGMENT_NS);
        programs.run(hook, &last);
        assert_eq!(programs.counted([Ignored::Fragment]), (5, 3, 1, [1]));
        programs.run(hook, &middle);
        programs.run(hook, &first);
        assert_eq!(programs.counted([Ignored::Fragment]), (7, 5, 0, [2]));
        assert!(programs.flow().sent_fin(End::A));
    }
}

#[test]
#[ignore = "needs root"]
fn copies_of_fragments_are_duplicates() {
    let mut programs = Programs::get();
    for hook in HOOKS {
        programs.begin();
        programs.handshake(hook);
        let [first, middle, last] = fin_in_parts(9);
        for part in [&first, &first, &middle, &middle, &last, &last, &first] {
            programs.run(hook, part);
        }
        assert_eq!(programs.counted([Ignored::Duplicate, Ignored::Fragment]), (10, 5, 0, [3, 2]));
        assert_eq!(programs.flow().end(End::A).segments(), 3);
    }
}

/// Linux numbers the datagrams of each socket separately, so that two connections soon use one number.
#[test]
#[ignore = "needs root"]
fn another_datagram_with_the_same_identification_is_no_copy() {
    let mut programs = Programs::get();
    for hook in HOOKS {
        programs.begin();
        programs.handshake(hook);
        for part in in_parts(&segment(ACK, 101, 901, 1_000), 9) {
            programs.run(hook, &part);
        }
        for part in in_parts(&segment(FIN, 1_101, 901, 1_000), 9) {
            programs.run(hook, &part);
        }
        assert_eq!(programs.counted([Ignored::Duplicate, Ignored::Fragment]), (9, 7, 0, [0, 2]));
        let flow = programs.flow();
        assert_eq!((flow.payload_bytes(End::A), flow.sent_fin(End::A)), (2_000, true));
    }
}

#[test]
#[ignore = "needs root"]
fn a_datagram_without_a_middle_fragment_is_no_segment() {
    let mut programs = Programs::get();
    let frame = frames::frame(End::A, &segment(FIN, 101, 901, 1_000));
    for hook in HOOKS {
        programs.begin();
        programs.handshake(hook);
        let parts = frames::fragments(&frame, 11, &[64, 512, 960]);
        // A copy of one part does not stand for another.
        for part in [0, 1, 1, 3] {
            programs.run(hook, &parts[part]);
        }
        assert_eq!(programs.counted([Ignored::Fragment]), (7, 3, 2, [2]));
        assert_eq!(programs.flow().states(), [State::Established; 2]);
        programs.run(hook, &parts[2]);
        assert_eq!(programs.counted([Ignored::Fragment]), (8, 5, 0, [3]));
        assert_eq!(programs.flow().states(), [State::FinWait1, State::CloseWait]);
    }
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_fragments_takes_the_room_for_fragments_only() {
    let mut programs = Programs::get();
    programs.begin();
    programs.handshake(ProgramName::Xdp);
    for identification in 0..3_000 {
        programs.run(ProgramName::Xdp, &fin_in_parts(identification)[0]);
        programs.now_ns -= 1_000_000;
    }
    let (seen, tracked, waiting, [ignored]) = programs.counted([Ignored::Fragment]);
    assert_eq!((seen, tracked, waiting + ignored), (3_003, 3, 3_000));
    assert!((900..=1_024).contains(&waiting), "{waiting}");
    programs.segment(ProgramName::Xdp, End::A, &segment(FIN, 101, 901, 0));
    assert_eq!(programs.flow().states(), [State::FinWait1, State::CloseWait]);
    programs.wait(FRAGMENT_NS);
    programs.kernel.expire_fragments().expect("reading the fragments");
    assert_eq!(programs.counted([Ignored::Fragment]), (3_004, 4, 0, [3_000]));
}

#[test]
#[ignore = "needs root"]
fn an_icmp_error_about_the_syn_ends_the_attempt() {
    let mut programs = Programs::get();
    let syn = segment(SYN, 100, 0, 0);
    for hook in HOOKS {
        for (kind, code, expected, cause) in [
            (3, 3, CloseKind::Refused, Cause::Refused),
            (3, 10, CloseKind::Refused, Cause::Refused),
            (3, 1, CloseKind::Unreachable, Cause::Unreachable),
            (11, 0, CloseKind::Unreachable, Cause::Unreachable),
        ] {
            programs.begin();
            programs.segment(hook, End::A, &syn);
            let error = frames::icmp_error(&frames::frame(End::A, &syn), kind, code);
            programs.run(hook, &error);
            let flow = programs.flow();
            assert_eq!(flow.states(), [State::Closed; 2], "{kind}/{code}");
            assert_eq!(flow.close_kind(), expected);
            assert_eq!(flow.icmp_error().map(|error| error.type_and_code(4)), Some((kind, code)));
            let mut causes = Vec::new();
            programs.events.drain(usize::MAX, |event| causes.push(Cause::from_repr(event.cause)));
            assert_eq!(causes, [Some(cause)]);
            // A copy, as another hook sees it, changes nothing more.
            programs.run(hook, &error);
            assert_eq!(programs.counted([Ignored::Icmp]), (3, 2, 0, [1]));
            // The next attempt may have the same number.
            programs.segment(hook, End::A, &syn);
            assert_eq!((programs.flow().incarnation(), programs.flow().state(End::A)), (2, State::SynSent));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn an_icmp_error_about_anything_else_changes_nothing() {
    let mut programs = Programs::get();
    let quote = |flags, seq| frames::frame(End::A, &segment(flags, seq, 0, 0));
    for hook in HOOKS {
        programs.begin();
        // No flow; another number than the SYN's; fragmentation needed.
        programs.run(hook, &frames::icmp_error(&quote(SYN, 100), 3, 3));
        programs.segment(hook, End::A, &segment(SYN, 100, 0, 0));
        programs.run(hook, &frames::icmp_error(&quote(SYN, 101), 3, 3));
        programs.run(hook, &frames::icmp_error(&quote(SYN, 100), 3, 4));
        assert_eq!(programs.counted([Ignored::Icmp]), (4, 1, 0, [3]));
        assert_eq!(programs.flow().state(End::A), State::SynSent);
        // An open connection.
        programs.segment(hook, End::B, &segment(SYN | ACK, 900, 101, 0));
        programs.segment(hook, End::A, &segment(ACK, 101, 901, 0));
        programs.run(hook, &frames::icmp_error(&quote(SYN, 100), 3, 3));
        programs.run(hook, &frames::icmp_error(&quote(ACK, 101), 3, 1));
        // A ping.
        programs.run(hook, &frames::icmp_error(&quote(SYN, 100), 8, 0));
        assert_eq!(programs.counted([Ignored::Icmp, Ignored::NotTcp]), (9, 3, 0, [5, 1]));
        assert_eq!(programs.flow().states(), [State::Established; 2]);
    }
}

/// Puts options before the IPv4 header's end.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut changed = [&frame[..34], options, &frame[34..]].concat();
    changed[14] += (options.len() / 4) as u8;
    let total = u16::from_be_bytes([frame[16], frame[17]]) + options.len() as u16;
    changed[16..18].copy_from_slice(&total.to_be_bytes());
    changed
}

#[test]
#[ignore = "needs root"]
fn a_packet_whose_options_a_host_drops_is_not_followed() {
    let mut programs = Programs::get();
    let fin = frames::frame(End::A, &segment(FIN, 101, 901, 0));
    for hook in HOOKS {
        for (options, tracked) in [
            (&[148, 4, 0, 0][..], true),
            (&[1; 40], true),
            (&[7, 7, 4, 0, 0, 0, 0, 0], true),
            (&[7, 7, 3, 0, 0, 0, 0, 0], false),
            (&[1, 1, 1, 7], false),
        ] {
            programs.begin();
            programs.handshake(hook);
            programs.run(hook, &with_options(&fin, options));
            let counted = programs.counted([Ignored::Malformed]);
            assert_eq!(counted, if tracked { (4, 4, 0, [0]) } else { (4, 3, 0, [1]) }, "{options:?}");
            assert_eq!(programs.flow().sent_fin(End::A), tracked);
        }
    }
}

/// Puts VLAN tags into a frame.
fn tagged(frame: &[u8], vlans: &[u8]) -> Vec<u8> {
    let tags: Vec<u8> = vlans.iter().flat_map(|&id| [0x81, 0, 0, id]).collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

#[test]
#[ignore = "needs root"]
fn connections_with_equal_addresses_in_other_vlans_are_distinguished_by_their_tags() {
    let mut programs = Programs::load(true);
    let stacks: [&[u8]; 4] = [&[], &[10], &[20], &[10, 20]];
    for hook in HOOKS {
        programs.begin();
        // In step, with different numbers; the third one closes.
        for (sender, flags, seq, ack) in
            [(End::A, SYN, 0, 0), (End::B, SYN | ACK, 0, 1), (End::A, ACK, 1, 1), (End::A, ACK, 1, 1)]
        {
            for (number, vlans) in stacks.into_iter().enumerate() {
                let isn = number as u32 * 1_000_000;
                let ack = if flags & ACK != 0 { isn + ack } else { 0 };
                let segment = segment(flags, isn + seq, ack, 0);
                programs.run(hook, &tagged(&frames::frame(sender, &segment), vlans));
            }
        }
        programs
            .run(hook, &tagged(&frames::frame(End::A, &segment(FIN, 2_000_001, 2_000_001, 0)), stacks[2]));
        assert_eq!(programs.counted([]), (17, 17, 0, []));
        let mut flows: Vec<_> = programs
            .kernel
            .table()
            .entries()
            .map(|entry| (entry.flow.end(End::A).isn(), entry.key.domain != 0, entry.flow.states()))
            .collect();
        flows.sort_unstable_by_key(|(isn, ..)| *isn);
        let open = [State::Established; 2];
        assert_eq!(
            flows,
            [
                (0, false, open),
                (1_000_000, true, open),
                (2_000_000, true, [State::FinWait1, State::CloseWait]),
                (3_000_000, true, open)
            ],
            "{}",
            hook.name()
        );
    }
}
