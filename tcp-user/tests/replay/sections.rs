//! Sections and packet blocks of pcapng.

use super::*;

/// Whether the connection of scenario S001 was read to its end.
fn assert_closed(replayed: &Replayed, what: &str) {
    assert_eq!(replayed.statistics.tracked, 11, "{what}");
    let [connection] = &replayed.connections[..] else { panic!("{what}: {:?}", replayed.connections) };
    assert_eq!(connection.close_word(), "fin_4seg", "{what}");
    assert_eq!(connection.time_wait.as_ref().map(|wait| wait.holder), Some(Roles::Client), "{what}");
}

/// The frames of S001, split in the middle of the connection, 10 ms apart.
fn halves() -> [Vec<Captured>; 2] {
    let frames: Vec<Captured> = all_steps(&scenario("S001"))
        .into_iter()
        .filter(|captured| captured.frame[12..14] == [8, 0])
        .enumerate()
        .map(|(index, captured)| Captured { at_ns: 100 * SECOND_NS + index as u64 * 10 * MS, ..captured })
        .collect();
    let (first, second) = frames.split_at(5);
    [first.to_vec(), second.to_vec()]
}

fn at_interface(index: usize, frames: &[Captured]) -> Vec<(usize, Captured)> {
    frames.iter().cloned().map(|frame| (index, frame)).collect()
}

const FOREIGN: Interface = Interface { link: 147, name: "unused", ..Interface::ETHERNET };
const ETH9: Interface = Interface { name: "eth9", ..Interface::ETHERNET };

#[test]
fn obsolete_packet_blocks_are_read_alone_and_among_others() {
    let [first, second] = halves();
    let frames = at_interface(0, &[first, second].concat());
    for order in [Order::Little, Order::Big] {
        for kept in [0, 1, 7, 11] {
            let file = into_packet_blocks(order, pcapng(order, &[Interface::ETHERNET], &frames), kept);
            assert_closed(&replay(file, Rules::RFC), &format!("{order:?}, {kept} enhanced packet blocks"));
        }
    }
}

#[test]
fn the_interface_of_an_obsolete_packet_block_has_sixteen_bits() {
    let frames = at_interface(1, &halves().concat());
    let nano = Interface { resolution: Some((9, SECOND_NS)), ..ETH9 };
    let file = pcapng(Order::Big, &[Interface::ETHERNET, nano], &frames);
    let replayed = replay(into_packet_blocks(Order::Big, file, 0), Rules::RFC);
    assert_closed(&replayed, "the second interface");
    assert_eq!(replayed.connections[0].interface.as_deref(), Some("eth9"));
    assert_eq!(replayed.ended_at.as_millisecond(), 100_100, "its timestamps are in ns");
}

/// As in `cat a.pcapng b.pcapng`: each section has its own byte order, interfaces and timestamps.
#[test]
fn a_connection_goes_on_in_the_next_section() {
    let [first, second] = halves();
    let (eth0, nano) = (Interface::ETHERNET, Interface { resolution: Some((9, SECOND_NS)), ..ETH9 });
    let cooked = Interface { link: 276, resolution: Some((9, SECOND_NS)), name: "any", offset_s: 5 };
    // A cooked header names another capture point, to which a direction may move after a pause.
    let later = |c: &Captured| Captured { at_ns: c.at_ns + 2 * SECOND_NS, frame: relink(&c.frame, 276) };
    let relinked: Vec<_> = second.iter().map(later).collect();
    let second_sections = [
        (&[eth0][..], 0, &second),
        // As many interfaces, more and fewer of them; renamed, renumbered and of another link type.
        (&[FOREIGN, ETH9], 1, &second),
        (&[ETH9, eth0], 1, &second),
        (&[nano], 0, &second),
        (&[FOREIGN, FOREIGN, cooked], 2, &relinked),
    ];
    for first_interfaces in [&[eth0][..], &[eth0, FOREIGN], &[FOREIGN, eth0]] {
        let index = first_interfaces.iter().position(|interface| interface.name == "eth0").expect("there");
        for (interfaces, number, frames) in second_sections {
            for orders in [[Order::Little; 2], [Order::Big, Order::Little], [Order::Little, Order::Big]] {
                let file = [
                    pcapng(orders[0], first_interfaces, &at_interface(index, &first)),
                    pcapng(orders[1], interfaces, &at_interface(number, frames)),
                ]
                .concat();
                let names: Vec<_> = interfaces.iter().map(|interface| interface.name).collect();
                let replayed = replay(file, Rules::RFC);
                assert_closed(&replayed, &format!("interface {index}, then {names:?} {orders:?}"));
                assert_eq!(replayed.connections[0].interface.as_deref(), Some("eth0"));
                assert!(replayed.warnings.is_empty(), "sections are part of the format");
            }
        }
    }
}

#[test]
fn a_copy_is_recognised_after_the_interfaces_changed_places() {
    let [first, second] = halves();
    let doubled = |frames: &[Captured]| -> Vec<(usize, Captured)> {
        frames.iter().flat_map(|frame| [(0, frame.clone()), (1, frame.clone())]).collect()
    };
    let exchanged =
        second.iter().flat_map(|frame| [(1, frame.clone()), (0, frame.clone())]).collect::<Vec<_>>();
    let file = [
        pcapng(Order::Little, &[Interface::ETHERNET, ETH9], &doubled(&first)),
        pcapng(Order::Little, &[ETH9, Interface::ETHERNET], &exchanged),
    ]
    .concat();
    let replayed = replay(file, Rules::RFC);
    assert_closed(&replayed, "each frame at two interfaces");
    assert_eq!(replayed.statistics.ignored().collect::<Vec<_>>(), [("duplicate", 11)]);
}

#[test]
fn a_section_of_unsupported_interfaces_is_skipped() {
    let [first, second] = halves();
    let usb = at_interface(0, &[arp(SECOND_NS)]);
    let file = [
        pcapng(Order::Little, &[FOREIGN], &usb),
        pcapng(Order::Little, &[Interface::ETHERNET], &at_interface(0, &first)),
        pcapng(Order::Little, &[FOREIGN], &usb),
        pcapng(Order::Little, &[Interface::ETHERNET], &at_interface(0, &second)),
    ]
    .concat();
    let replayed = replay(file, Rules::RFC);
    assert_closed(&replayed, "between others");
    assert_eq!(replayed.statistics.foreign_link, 2);
}
