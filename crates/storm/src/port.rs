//! A host's side of the link: one cable, several, or one with VLAN tags.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use finwait::lab::Tap;

use crate::vlan::TaggedPort;

/// Where the link reads and writes the frames of one host.
pub(crate) enum Port {
    /// Interfaces of the host, one for each cable.
    Cables {
        /// The interfaces.
        taps: Vec<Tap>,
        /// The cable that is read next.
        next: usize,
    },
    /// A VLAN device and its card.
    Tagged(TaggedPort),
}

/// Index of a cable.
pub(crate) type Cable = usize;

impl Port {
    pub(crate) fn cables(taps: Vec<Tap>) -> Port {
        Port::Cables { taps, next: 0 }
    }

    /// The files that are readable when the host has sent a frame.
    pub(crate) fn files(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Port::Cables { taps, .. } => taps.iter().map(|tap| tap.as_fd()).collect(),
            Port::Tagged(port) => port.files().into(),
        }
    }

    /// Reads the next frame that the host has sent, from each cable in turn. Returns its cable and its length.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(Cable, usize)>> {
        match self {
            Port::Cables { taps, next } => {
                for _ in 0..taps.len() {
                    let cable = *next;
                    *next = (cable + 1) % taps.len();
                    if let Some(length) = taps[cable].receive(buffer)? {
                        return Ok(Some((cable, length)));
                    }
                }
                Ok(None)
            }
            Port::Tagged(port) => Ok(port.receive(buffer)?.map(|length| (0, length))),
        }
    }

    /// Delivers a frame that arrives over this cable.
    pub(crate) fn send(&self, cable: Cable, frame: &[u8]) -> io::Result<()> {
        match self {
            Port::Cables { taps, .. } => taps[cable].send(frame),
            Port::Tagged(port) => port.send(frame),
        }
    }
}
