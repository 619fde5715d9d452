//! What can be wrong with a capture, in words that say what to do next.

use std::io;

use crate::kernel::KernelError;

/// What is wrong with an input.
#[derive(Debug, thiserror::Error)]
#[error("{name} {fault}")]
pub struct ReplayError {
    /// The file, or "standard input".
    pub name: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl ReplayError {
    /// Whether the reader of the records went away, which is no news for anybody.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(&self.fault, Fault::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether this user, or this kernel, may not: the file is another user's, or the programs cannot be loaded.
    pub fn is_denied(&self) -> bool {
        match &self.fault {
            Fault::Open(error) => error.kind() == io::ErrorKind::PermissionDenied,
            Fault::Kernel(_) => true,
            _ => false,
        }
    }
}

/// The ways in which an input can be wrong. The texts go on after the input's name.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not there.
    #[error("does not exist. Check the path; `finwait replay -` reads standard input.")]
    Missing,
    /// It cannot be opened.
    #[error(
        "cannot be opened: {0}. If another user may read it, pipe it: `sudo cat FILE | finwait replay -`."
    )]
    Open(io::Error),
    /// It is a directory.
    #[error("is a directory. Name one capture file in it.")]
    Directory,
    /// Standard input is a keyboard.
    #[error("is a terminal. Pipe a capture into it, such as `tcpdump -U -w - | finwait replay -`.")]
    Terminal,
    /// Nothing is in it.
    #[error(
        "is empty: not even the header of a capture is there. The program that wrote it may not have flushed yet \
         (tcpdump does with -U), or was not permitted to capture."
    )]
    Empty,
    /// It is of another kind.
    #[error(
        "is no capture: it begins with {}. Give a pcap or pcapng file, as `tcpdump -w` and Wireshark write them, plain \
         or compressed by gzip or zstd{}.", magic(.0), advice(.0)
    )]
    NotACapture(Vec<u8>),
    /// The frames are of a kind nobody here can read.
    #[error(
        "has frames of link type {0}, which finwait does not read. It reads Ethernet (1), raw IP (101, 228, 229), Linux \
         cooked (113, 276), BSD loopback (0, 108) and PPP (9, 50): capture again on such an interface, or with \
         `tcpdump -i any`."
    )]
    LinkType(u16),
    /// It ends too early.
    #[error(
        "ends in the middle of a record that begins at {0}. Everything before it was read; the rest is missing because \
         the capture was cut short while it was written or copied: copy it again, or go on with what is shown."
    )]
    Truncated(Offset),
    /// What it says contradicts itself.
    #[error(
        "is damaged at {0}: {1}. Everything before it was read; copy the file again, or cut it before that place \
         (`editcap -r` keeps the frames that are whole)."
    )]
    Damaged(Offset, String),
    /// The disk, the pipe or the decompression failed.
    #[error("cannot be read on from {0}: {1}. Everything before it was read.")]
    Read(Offset, io::Error),
    /// The kernel programs cannot be run over it.
    #[error("cannot be replayed in the kernel: {0}. Without --kernel it needs no root.")]
    Kernel(KernelError),
    /// The records cannot be written.
    #[error("was read, but its records cannot be written: {0}.")]
    Output(io::Error),
}

/// A place in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Octets before it.
    pub bytes: u64,
    /// Whether they are counted after decompression.
    pub decompressed: bool,
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = if self.decompressed { " of the decompressed stream" } else { "" };
        write!(f, "byte {}{of}", self.bytes)
    }
}

fn magic(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let printable = bytes.iter().take(4).all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    match printable {
        true => format!("{} (\"{}\")", hex.join(" "), String::from_utf8_lossy(&bytes[..bytes.len().min(4)])),
        false => hex.join(" "),
    }
}

fn advice(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xfd, b'7', b'z', b'X', ..] => "; this one is packed by xz: `xz -dc FILE | finwait replay -`",
        [b'B', b'Z', b'h', ..] => "; this one is packed by bzip2: `bzip2 -dc FILE | finwait replay -`",
        [0x04, 0x22, 0x4d, 0x18, ..] => "; this one is packed by lz4: `lz4 -dc FILE | finwait replay -`",
        [b'P', b'K', 3, 4, ..] => "; this one is packed by zip: `unzip -p FILE | finwait replay -`",
        _ => "",
    }
}
