//! A VLAN device and its card, as two interfaces of a host: this process adds and removes the tags, so that a
//! kernel without 8021q has them too.
//!
//! The host's addresses are on the VLAN device. What the host sends there gets its tags and is sent by the
//! card. What arrives at the card loses its tags and arrives at the VLAN device. So both interfaces show every
//! packet, and only the card shows the tags.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use finwait::lab::Tap;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// The two interfaces of one host.
pub(crate) struct TaggedPort {
    device: Tap,
    card: Tap,
    /// Sends frames by the card, as the host does.
    sender: Socket,
    /// VLAN ids of the frames that the host sends, outermost first.
    ids: &'static [u16],
}

impl TaggedPort {
    /// Joins the interfaces. `card_index` is the index of the card. Must be called in the host's namespace.
    pub(crate) fn new(
        device: Tap,
        card: Tap,
        card_index: u32,
        ids: &'static [u16],
    ) -> io::Result<TaggedPort> {
        // Protocol 0: the socket receives nothing.
        let sender = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        sender.bind(&packet_address(card_index))?;
        Ok(TaggedPort { device, card, sender, ids })
    }

    pub(crate) fn files(&self) -> [BorrowedFd<'_>; 2] {
        [self.device.as_fd(), self.card.as_fd()]
    }

    /// Passes on what the VLAN device has sent, and reads the next frame that the card has sent.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        while let Some(length) = self.device.receive(buffer)? {
            self.sender.send(&tagged(&buffer[..length], self.ids))?;
        }
        self.card.receive(buffer)
    }

    /// Delivers a frame to the card, and without its tags to the VLAN device.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.card.send(frame)?;
        self.device.send(&untagged(frame))
    }
}

impl std::fmt::Debug for TaggedPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaggedPort({}, {:?})", self.sender.as_raw_fd(), self.ids)
    }
}

/// The frame with a tag of IEEE 802.1Q for each VLAN id.
fn tagged(frame: &[u8], ids: &[u16]) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    let tags = ids.iter().flat_map(|id| {
        let [high, low] = id.to_be_bytes();
        [ETHERTYPE_VLAN[0], ETHERTYPE_VLAN[1], high, low]
    });
    tagged.splice(ETHERTYPE_AT..ETHERTYPE_AT, tags);
    tagged
}

/// The frame without its tags.
fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    while frame[ETHERTYPE_AT..].starts_with(&ETHERTYPE_VLAN) {
        frame.drain(ETHERTYPE_AT..ETHERTYPE_AT + TAG_LEN);
    }
    frame
}

/// The address of an interface for packet sockets.
fn packet_address(index: u32) -> SockAddr {
    // SAFETY: all zero is an address of no interface.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is larger than any socket address, and aligned for each.
    unsafe { *storage.view_as::<libc::sockaddr_ll>() = address };
    // SAFETY: the storage has an address of this length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Destination and source address.
const ETHERTYPE_AT: usize = 12;
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0];
const TAG_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_added_and_removed() {
        let frame: Vec<u8> = (0..12).chain([8, 0, 0x45]).collect();
        let expected: Vec<u8> = (0..12).chain([0x81, 0, 0, 20, 0x81, 0, 1, 44, 8, 0, 0x45]).collect();
        assert_eq!(tagged(&frame, &[20, 300]), expected);
        assert_eq!(untagged(&expected), frame);
        assert_eq!(untagged(&frame), frame);
    }
}
