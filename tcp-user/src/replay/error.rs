//! Errors of a replay. Each text says what to do next.

use std::io;

use crate::kernel::KernelError;

/// An input and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{name} {fault}")]
pub struct ReplayError {
    /// The file, or "standard input".
    pub name: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl ReplayError {
    /// Whether the reader of the records has closed its end of the pipe, which is not worth a message.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(&self.fault, Fault::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether permission is missing: the file is another user's, or the kernel programs cannot be loaded.
    pub fn is_denied(&self) -> bool {
        match &self.fault {
            Fault::Open(error) => error.kind() == io::ErrorKind::PermissionDenied,
            Fault::Kernel(_) => true,
            _ => false,
        }
    }
}

/// What can be wrong with an input. The texts continue after the input's name.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no such file.
    #[error("does not exist. Check the path; `finwait replay -` reads standard input")]
    Missing,
    /// The file cannot be opened.
    #[error(
        "cannot be opened: {0}. If another user can read it, pipe it: `sudo cat FILE | finwait replay -`"
    )]
    Open(io::Error),
    /// The path is a directory.
    #[error("is a directory. Name a capture file in it")]
    Directory,
    /// Standard input is a terminal.
    #[error("is a terminal. Pipe a capture into it, such as `tcpdump -U -w - | finwait replay -`")]
    Terminal,
    /// The input is empty.
    #[error(
        "is empty: it lacks even the header of a capture. The program that wrote it may not have flushed \
         yet (tcpdump does with -U), or was not permitted to capture"
    )]
    Empty,
    /// The input is of another format.
    #[error(
        "is not a capture: it begins with {}. Give a pcap or pcapng file, as `tcpdump -w` and Wireshark \
         write them, plain or compressed by gzip or zstd{}", magic(.0), advice(.0)
    )]
    NotACapture(Vec<u8>),
    /// The frames are of a link type that finwait does not read.
    #[error(
        "has frames of link type {0}, which finwait does not read. It reads Ethernet (1), raw IP (101, \
         228, 229), Linux cooked (113, 276), BSD loopback (0, 108), PPP (9, 50), HDLC (104) and NFLOG (239). \
         Capture on such an interface, or with `tcpdump -i any`"
    )]
    LinkType(u16),
    /// The input ends in the middle of a record.
    #[error(
        "ends in the middle of a record that begins at {0}. Everything before it was read. The capture \
         was cut short when it was written or copied: copy it again, or use what is shown"
    )]
    Truncated(Offset),
    /// A record contradicts itself.
    #[error(
        "is damaged at {0}: {1}. Everything before it was read. Copy the file again, or cut it before \
         that byte (`editcap -r` keeps the frames that are whole)"
    )]
    Damaged(Offset, String),
    /// The disk, the pipe or the decompression failed.
    #[error("cannot be read at {0}: {1}. Everything before it was read")]
    Read(Offset, io::Error),
    /// The kernel programs cannot be run on the input.
    #[error("cannot be replayed in the kernel: {0}. Without --kernel it needs no root")]
    Kernel(KernelError),
    /// The records cannot be written.
    #[error("was read, but its records cannot be written: {0}")]
    Output(io::Error),
}

/// A position in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Bytes before it.
    pub bytes: u64,
    /// Whether they are counted in the decompressed stream.
    pub decompressed: bool,
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = if self.decompressed { " of the decompressed stream" } else { "" };
        write!(f, "byte {}{of}", self.bytes)
    }
}

/// The first four bytes as hexadecimal numbers, and as text if they are printable.
fn magic(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let printable = bytes.iter().take(4).all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    match printable {
        true => format!("{} (\"{}\")", hex.join(" "), String::from_utf8_lossy(&bytes[..bytes.len().min(4)])),
        false => hex.join(" "),
    }
}

/// How to unpack an input that was compressed by another program; empty for anything else.
fn advice(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xfd, b'7', b'z', b'X', ..] => "; this one is packed by xz: `xz -dc FILE | finwait replay -`",
        [b'B', b'Z', b'h', ..] => "; this one is packed by bzip2: `bzip2 -dc FILE | finwait replay -`",
        [0x04, 0x22, 0x4d, 0x18, ..] => "; this one is packed by lz4: `lz4 -dc FILE | finwait replay -`",
        [b'P', b'K', 3, 4, ..] => "; this one is packed by zip: `unzip -p FILE | finwait replay -`",
        _ => "",
    }
}
