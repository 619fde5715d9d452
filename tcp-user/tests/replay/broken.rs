//! Captures that are cut, damaged, empty or none.

use super::formats::gzip;
use super::*;

#[test]
fn a_capture_may_be_cut_at_every_byte() {
    let frames = all_steps(&scenario("S001"));
    let numbered: Vec<_> = frames.iter().cloned().map(|frame| (0, frame)).collect();
    let plain = pcap(Order::Little, Unit::Micro, 1, &frames);
    let files = [
        plain.clone(),
        pcapng(Order::Big, &[Interface::ETHERNET], &numbered),
        gzip(&plain),
        zstd::encode_all(&plain[..], 3).expect("into memory"),
    ];
    for (number, file) in files.iter().enumerate() {
        let (mut whole, mut last_frames) = (0, 0);
        for len in 0..file.len() {
            let Ok(input) = Input::new(Cursor::new(file[..len].to_vec())) else { continue };
            let Ok(report) = run_input(input, &Options::default(), &mut |_| Ok(())) else { continue };
            assert!(
                report.statistics.frames >= last_frames,
                "file {number}: what came before the cut is read"
            );
            last_frames = report.statistics.frames;
            match report.fault.map(|error| error.fault) {
                None => whole += 1,
                Some(Fault::Truncated(offset)) => assert!(number > 1 || offset.bytes <= len as u64),
                Some(other) => panic!("file {number} cut at {len}: {other:?}"),
            }
        }
        assert!(number > 1 || whole >= frames.len(), "file {number}: a cut between records is no fault");
    }
}

#[test]
fn the_offset_of_a_cut_is_that_of_the_record() {
    let file = pcap(Order::Little, Unit::Micro, 1, &[arp(1), arp(2)]);
    let report = {
        let input = Input::new(Cursor::new(file[..file.len() - 1].to_vec())).expect("opens");
        run_input(input, &Options::default(), &mut |_| Ok(())).expect("a capture")
    };
    assert_eq!(report.statistics.frames, 1);
    let message = report.fault.expect("a fault").to_string();
    assert!(message.contains("begins at byte 100."), "{message}");
}

#[test]
fn any_byte_may_be_wrong() {
    let frames = &all_steps(&scenario("S001"))[..4];
    let numbered: Vec<_> = frames.iter().cloned().map(|frame| (0, frame)).collect();
    let interface = Interface { resolution: Some((9, SECOND_NS)), ..Interface::ETHERNET };
    let files = [
        pcap(Order::Little, Unit::Micro, 1, frames),
        pcap(Order::Big, Unit::Nano, 276, frames),
        pcap(Order::Big, Unit::Nano, 113, frames),
        pcapng(Order::Big, &[interface], &numbered),
        pcapng(Order::Little, &[interface], &numbered),
        into_packet_blocks(Order::Big, pcapng(Order::Big, &[interface], &numbered), 1),
        [pcap(Order::Big, Unit::Micro, 1, frames), pcapng(Order::Big, &[interface], &numbered)].concat(),
        [pcapng(Order::Little, &[interface], &numbered), pcap(Order::Little, Unit::Nano, 1, frames)].concat(),
    ];
    for file in files {
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, !file[at]] {
                let mut file = file.clone();
                file[at] = value;
                if let Ok(input) = Input::new(Cursor::new(file)) {
                    // The result may be wrong, but the program must not panic.
                    let _ = run_input(input, &Options::default(), &mut |_| Ok(()));
                }
            }
        }
    }
}

#[test]
fn inputs_of_other_formats_are_recognised() {
    assert!(matches!(fault(Vec::new()), Fault::Empty));
    let message = fault(b"%PDF-1.7".to_vec()).to_string();
    assert!(message.contains("25 50 44 46 (\"%PDF\")"), "{message}");
    let message = fault(vec![0xfd, b'7', b'z', b'X', b'Z', 0]).to_string();
    assert!(message.contains("xz -dc FILE | finwait replay -"), "{message}");
    assert!(matches!(fault(gzip(b"hello, world")), Fault::NotACapture(_)));
    assert!(matches!(fault(gzip(b"")), Fault::Empty));
    let open =
        |path: &str| run(Path::new(path), &Options::default(), &mut |_| Ok(())).expect_err("no capture");
    assert!(open("/").to_string().starts_with("/ is a directory."));
    assert!(open("/no/such.pcap").to_string().starts_with("/no/such.pcap does not exist."));
}

#[test]
fn a_capture_without_frames_has_no_connections() {
    let report = replay(pcap(Order::Little, Unit::Micro, 1, &[]), Rules::AGENT);
    assert!(report.connections.is_empty() && report.statistics.frames == 0);
}
