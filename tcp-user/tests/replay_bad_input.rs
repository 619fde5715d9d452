//! Captures that are damaged, cut or of another format. The records before the fault are printed, the fault
//! is named, and no false length is allocated. The tests run the program as a user does.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use finwait::replay::{Fault, Input, Options, ReplayReport, run_input};
use tcp_common::{End, Flags, Segment};
use testkit::captures::{Captured, Interface, Order, Unit, pcap, pcapng};
use testkit::frames;

/// The system's allocator, which records the size of the largest requested block.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Watched = Watched;

// SAFETY: passes every call to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Limit of a single allocation while reading, in bytes.
const FAIR: usize = 4 << 20;

/// Makes the SYNs of `count` connections, a millisecond apart.
fn syns(count: u16) -> Vec<Captured> {
    let segment = Segment { seq: 1_000, window: 65_535, flags: Flags(Flags::SYN), ..Segment::default() };
    let syn = |number: u16| {
        let mut frame = frames::frame(End::A, &segment);
        frame[34..36].copy_from_slice(&(40_000 + number).to_be_bytes());
        Captured { at_ns: 1 + u64::from(number) * 1_000_000, frame }
    };
    (0..count).map(syn).collect()
}

fn numbered(frames: &[Captured]) -> Vec<(usize, Captured)> {
    frames.iter().cloned().map(|frame| (0, frame)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

/// A file that is removed after the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Scratch {
        let scratch = Scratch::path(name);
        fs::write(&scratch.0, bytes).expect("a temporary file");
        scratch
    }

    fn path(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("finwait-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.0);
    }
}

/// The result of the program for an input.
#[derive(Debug)]
struct Ran {
    lines: usize,
    code: Option<i32>,
    message: String,
}

fn finwait(path: &Path, stdin: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_finwait"))
        .args(["replay", "-o", "ndjson"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The program may exit before it has read everything.
    let _refused = child.stdin.take().expect("piped").write_all(stdin);
    let output = child.wait_with_output().expect("it ends");
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!message.contains("panicked"), "{message}");
    let lines = output.stdout.iter().filter(|octet| **octet == b'\n').count();
    Ran { lines, code: output.status.code(), message }
}

fn read(file: &[u8]) -> Result<ReplayReport, Fault> {
    let input = Input::new(Cursor::new(file.to_vec()))?;
    run_input(input, &Options::default(), &mut |_| Ok(()))
}

/// Returns the offset at which each record of a file ends. The first offset is the header's end.
fn ends(file: &[u8], is_pcapng: bool) -> Vec<usize> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four")) as usize;
    let mut at = if is_pcapng { 0 } else { 24 };
    let mut ends = vec![at];
    while at < file.len() {
        at += if is_pcapng { word(at + 4) } else { 16 + word(at + 8) };
        ends.push(at);
    }
    ends
}

#[test]
fn a_cut_at_any_byte_loses_only_the_cut_record() {
    let frames = syns(5);
    let files = [
        (pcap(Order::Little, Unit::Micro, 1, &frames), false),
        (pcapng(Order::Little, &[Interface::ETHERNET], &numbered(&frames)), true),
    ];
    for (file, is_pcapng) in &files {
        let ends = ends(file, *is_pcapng);
        let packets: Vec<usize> =
            ends.windows(2).filter(|at| !is_pcapng || file[at[0]] == 6).map(|at| at[1]).collect();
        assert_eq!(packets.len(), 5);
        for len in 0..=file.len() {
            let whole = packets.iter().filter(|end| **end <= len).count() as u64;
            match read(&file[..len]) {
                Ok(report) => {
                    assert_eq!(report.statistics.frames, whole, "cut at {len}");
                    let cut = report.fault.map(|error| error.fault);
                    match ends.contains(&len) {
                        true => assert!(cut.is_none(), "cut at {len}: {cut:?}"),
                        false => {
                            let begin = *ends.iter().rfind(|end| **end < len).expect("a record");
                            assert!(
                                matches!(&cut, Some(Fault::Truncated(at)) if at.bytes == begin as u64),
                                "cut at {len}: {cut:?}"
                            );
                        }
                    }
                }
                Err(Fault::Empty) => assert_eq!(len, 0),
                Err(Fault::NotACapture(_)) => assert!(len < 4, "cut at {len}"),
                Err(Fault::Truncated(_)) => assert!(len < 24 && !is_pcapng, "cut at {len}"),
                Err(other) => panic!("cut at {len}: {other}"),
            }
        }
    }
}

#[test]
fn a_cut_in_a_compressed_file_loses_only_what_follows() {
    let file = pcap(Order::Little, Unit::Micro, 1, &syns(200));
    let zstd = zstd::encode_all(&file[..], 3).expect("into memory");
    for (packed, name) in [(gzip(&file), "gzip"), (zstd, "zstd")] {
        let mut last = 0;
        for len in 0..packed.len() {
            match read(&packed[..len]) {
                Ok(report) => {
                    assert!(report.statistics.frames >= last, "{name} cut at {len}");
                    last = report.statistics.frames;
                    let fault = report.fault.map(|error| error.fault);
                    // Every record may be complete, with only the checksum at the end missing.
                    let whole = last == 200 && fault.is_none();
                    assert!(whole || matches!(fault, Some(Fault::Truncated(_))), "{name} {len}: {fault:?}");
                }
                Err(Fault::Empty | Fault::NotACapture(_) | Fault::Truncated(_)) => {
                    assert_eq!(last, 0, "{name} cut at {len}")
                }
                Err(other) => panic!("{name} cut at {len}: {other}"),
            }
        }
        assert_eq!(read(&packed).expect("whole").statistics.frames, 200, "{name}");
    }
}

#[test]
fn a_false_length_allocates_nothing() {
    for claimed in [66_000_u32, 1 << 20, 15 << 20, 17 << 20, 1 << 31, u32::MAX] {
        let mut file = pcap(Order::Little, Unit::Micro, 1, &syns(3));
        let at = ends(&file, false)[2];
        file[at + 8..at + 12].copy_from_slice(&claimed.to_le_bytes());
        let mut blocks = pcapng(Order::Little, &[Interface::ETHERNET], &numbered(&syns(3)));
        let packet = |blocks: &[u8], wanted: usize| {
            let ends = ends(blocks, true);
            ends.into_iter().filter(|at| blocks.get(*at) == Some(&6)).nth(wanted).expect("a packet")
        };
        let at = packet(&blocks, 2);
        blocks[at + 4..at + 8].copy_from_slice(&claimed.to_le_bytes());
        for (file, kind) in [(file, "pcap"), (blocks, "pcapng")] {
            LARGEST.store(0, Ordering::Relaxed);
            let report = read(&file).expect("two records are fine");
            let largest = LARGEST.load(Ordering::Relaxed);
            assert!(largest < FAIR, "{kind} {claimed}: {largest} octets at once");
            assert_eq!(report.statistics.frames, 2, "{kind} {claimed}");
            let fault = report.fault.expect("a fault").fault;
            let lie = matches!(fault, Fault::Truncated(_) | Fault::Damaged(..));
            assert!(lie, "{kind} {claimed}: {fault}");
        }
    }
    // A packet longer than its block, a block shorter than the minimum, and two different lengths.
    let good = pcapng(Order::Little, &[Interface::ETHERNET], &numbered(&syns(1)));
    let at = ends(&good, true).into_iter().find(|at| good.get(*at) == Some(&6)).expect("a packet");
    for (offset, value) in [(20, u32::MAX), (20, 5_000), (4, 0), (4, 8), (4, 13)] {
        let mut file = good.clone();
        file[at + offset..at + offset + 4].copy_from_slice(&value.to_le_bytes());
        let fault = read(&file).expect("a header").fault.expect("a fault").fault;
        assert!(matches!(fault, Fault::Damaged(..)), "{offset} {value}: {fault}");
    }
}

#[test]
fn records_before_a_fault_are_printed() {
    let file = pcap(Order::Little, Unit::Micro, 1, &syns(3));
    let cut = Scratch::new("cut.pcap", &file[..file.len() - 1]);
    let from_stdin = finwait(Path::new("-"), &file[..file.len() - 1]);
    for ran in [finwait(&cut.0, b""), from_stdin] {
        assert_eq!((ran.lines, ran.code), (2, Some(5)), "{ran:?}");
        assert!(ran.message.contains("ends in the middle of a record that begins at byte 176"), "{ran:?}");
    }
    let garbage = Scratch::new("garbage.pcap", &[&file[..], &[0xff; 64]].concat());
    let ran = finwait(&garbage.0, b"");
    assert_eq!((ran.lines, ran.code), (3, Some(5)), "{ran:?}");
    assert!(ran.message.contains("is damaged at byte 252"), "{ran:?}");
}

#[test]
fn inputs_of_other_formats_are_refused_with_the_next_step() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty", b"", "is empty"),
        ("text", b"hello, world\n", "is not a capture: it begins with 68 65 6c 6c"),
        ("three octets", &[0xd4, 0xc3, 0xb2], "is not a capture"),
        ("a gzip of nothing", &gzip(b""), "is empty"),
        ("a zstd of text", &zstd::encode_all(&b"hello"[..], 1).expect("into memory"), "is not a capture"),
    ];
    for (name, bytes, message) in cases {
        let file = Scratch::new(&name.replace(' ', "-"), bytes);
        for ran in [finwait(&file.0, b""), finwait(Path::new("-"), bytes)] {
            assert_eq!((ran.lines, ran.code), (0, Some(5)), "{name}: {ran:?}");
            assert!(ran.message.contains(message), "{name}: {ran:?}");
            assert_eq!(ran.message.lines().count(), 1, "{name}: {ran:?}");
        }
    }
    let ran = finwait(&std::env::temp_dir(), b"");
    assert!(ran.code == Some(5) && ran.message.contains("is a directory"), "{ran:?}");
    let ran = finwait(Path::new("/no/such/capture.pcap"), b"");
    assert!(ran.code == Some(5) && ran.message.contains("does not exist"), "{ran:?}");
}

#[test]
fn a_fifo_is_read_like_a_file() {
    let file = pcap(Order::Little, Unit::Micro, 1, &syns(3));
    for (kept, lines, code) in [(file.len(), 3, 0), (file.len() - 5, 2, 5), (24, 0, 1), (0, 0, 5)] {
        let fifo = Scratch::path(&format!("fifo-{kept}"));
        let made = Command::new("mkfifo").arg(&fifo.0).status().expect("mkfifo");
        assert!(made.success());
        let (path, bytes) = (fifo.0.clone(), file[..kept].to_vec());
        // Opening waits for the reader.
        let writer = std::thread::spawn(move || fs::write(path, bytes));
        let ran = finwait(&fifo.0, b"");
        writer.join().expect("no panic").expect("written");
        assert_eq!((ran.lines, ran.code), (lines, Some(code)), "{kept} octets: {ran:?}");
    }
}

/// Opens the file in a thread with another user's file permissions, because root may read every file.
#[test]
fn an_unreadable_file_is_refused_with_the_next_step() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = Scratch::new("secret.pcap", &pcap(Order::Little, Unit::Micro, 1, &syns(1)));
    fs::set_permissions(&file.0, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let path = file.0.clone();
    let denied = std::thread::spawn(move || {
        // SAFETY: changes the user of this thread's file accesses only (setfsuid(2)); takes and returns
        // numbers.
        unsafe { libc::setfsuid(65_534) };
        Input::open(&path).err()
    });
    let fault = denied.join().expect("no panic").expect("not permitted");
    assert!(matches!(&fault, Fault::Open(error) if error.kind() == std::io::ErrorKind::PermissionDenied));
    assert!(fault.to_string().contains("sudo cat FILE | finwait replay -"), "{fault}");
}

#[test]
fn zeek_output_and_events_exclude_each_other() {
    let output = Command::new(env!("CARGO_BIN_EXE_finwait"))
        .args(["replay", "-o", "zeek", "--events", "/dev/null"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
