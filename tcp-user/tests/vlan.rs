//! The VLAN tags of live packets are in the records of their connection.

mod common;

use common::watch::Watch;
use common::{Agent, call, until};
use finwait::lab::{Lab, Tap};
use finwait::view::{Close, Connection, EventRecord};
use tcp_common::{End, Flags};
use testkit::frames::{frame, segment};

#[test]
#[ignore = "needs root"]
fn each_direction_has_its_own_tags() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let tap = lab.server.run(|| Tap::create("tap0")).expect("namespace").expect("a TAP interface");
    call(&lab.server, "ip", &["link", "set", "tap0", "up"]);
    let agent = Agent::start(&lab, "vlan", &["-i", "tap0"]);
    let watch = Watch::start(&agent, "vlan");
    let send = |sender, tags: &[u8], flags, seq, ack| {
        let mut frame = frame(sender, &segment(flags, seq, ack, 0));
        frame.splice(12..12, tags.iter().flat_map(|&id| [0x81, 0, 0, id]));
        tap.send(&frame).expect("sending");
    };
    send(End::A, &[100, 10], Flags::SYN, 1_000, 0);
    send(End::B, &[20], Flags::SYN | Flags::ACK, 5_000, 1_001);
    let vlans = |connection: &Connection| (connection.client.vlan.clone(), connection.server.vlan.clone());
    let tags = (Some(vec![100, 10]), Some(vec![20]));
    let listed: Vec<_> = agent.connections().iter().map(vlans).collect();
    assert_eq!(listed, std::slice::from_ref(&tags));
    send(End::B, &[20], Flags::RST | Flags::ACK, 5_001, 1_001);
    let closes = || -> Vec<Close> {
        let close = |event| if let EventRecord::Close(close) = event { Some(*close) } else { None };
        watch.events().into_iter().filter_map(close).collect()
    };
    until("the close is reported", || !closes().is_empty());
    let [listed] = &agent.connections()[..] else { panic!("one connection") };
    let [close] = &closes()[..] else { panic!("one close") };
    assert_eq!(vlans(&close.connection), tags);
    assert_eq!(close.connection.id, listed.id, "the same connection");
}
