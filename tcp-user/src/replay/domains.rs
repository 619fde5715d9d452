//! What distinguishes connections with equal addresses and ports: the link of link-local addresses, and with
//! `--key vlan` the VLAN tags.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tcp_common::Ignored;
use tcp_common::wire::Packet;

use super::link::Bare;
use super::tracker::Frame;
use crate::options::KeyBy;

/// The numbers that keys have as their domain.
#[derive(Default)]
pub(super) struct Domains {
    /// Domains of the stacks of VLAN tags, if they are part of the key: numbers from 1 in the order in which they were
    /// seen, as the kernel programs give them out.
    stacks: Option<HashMap<u128, u16>>,
    links: HashMap<Viewpoint, u16>,
    /// Name of the interface that showed each link first.
    names: Vec<Option<Arc<str>>>,
    hasher: RandomState,
    /// The latest link-local packet of each pair of hosts.
    latest: HashMap<u64, Sighted>,
}

/// Where frames were captured: the number of the interface in the capture, that in the host, and the VLAN tags.
type Viewpoint = (u32, u64, u128);

/// A link-local packet that was seen.
#[derive(Clone, Copy)]
struct Sighted {
    digest: u64,
    at_ns: u64,
    link: u16,
}

impl Domains {
    /// Sets what distinguishes connections.
    pub(super) fn by(key: KeyBy) -> Domains {
        Domains { stacks: (key == KeyBy::Vlan).then(HashMap::new), ..Domains::default() }
    }

    /// The domain of a packet's flow.
    ///
    /// # Errors
    ///
    /// If as many stacks of VLAN tags as can be distinguished have been seen before.
    pub(super) fn of(
        &mut self,
        now_ns: u64,
        frame: &Frame<'_>,
        bare: &Bare<'_>,
        packet: &Packet,
    ) -> Result<u16, Ignored> {
        let stack = bare.stack(packet);
        if packet.key.is_link_local() {
            return Ok(self.link(now_ns, frame, bare, packet, stack));
        }
        let Some(stacks) = self.stacks.as_mut().filter(|_| stack != 0) else { return Ok(0) };
        let next = u16::try_from(stacks.len() + 1);
        match stacks.entry(stack) {
            Entry::Occupied(entry) => Ok(*entry.get()),
            Entry::Vacant(entry) => Ok(*entry.insert(next.map_err(|_| Ignored::TooManyVlans)?)),
        }
    }

    /// Name of the interface whose link a domain of link-local addresses is, if the capture has it.
    pub(super) fn link_name(&self, domain: u16) -> Option<&Arc<str>> {
        self.names.get(usize::from(domain))?.as_ref()
    }

    /// The link that a packet between link-local addresses passed.
    ///
    /// A capture does not say which of its interfaces belong to one link, as a bridge and its ports do. Those do whose
    /// first packet is one that another interface has just shown.
    fn link(&mut self, now_ns: u64, frame: &Frame<'_>, bare: &Bare<'_>, packet: &Packet, stack: u128) -> u16 {
        let pair = self.hasher.hash_one(packet.key);
        let digest = self.hasher.hash_one((packet.sender as u8, content(bare, packet)));
        let viewpoint = (frame.point, bare.interface(), stack);
        let shown = self
            .latest
            .get(&pair)
            .filter(|shown| shown.digest == digest && now_ns.saturating_sub(shown.at_ns) < COPY_NS);
        let link = match self.links.entry(viewpoint) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => *entry.insert(match shown {
                Some(shown) => shown.link,
                None => {
                    self.names.push(frame.interface.cloned());
                    // More links than there are numbers share the last one.
                    u16::try_from(self.names.len() - 1).unwrap_or(u16::MAX)
                }
            }),
        };
        if self.latest.len() >= MAX_PAIRS {
            self.latest.retain(|_, shown| now_ns.saturating_sub(shown.at_ns) < COPY_NS);
        }
        if self.latest.len() < MAX_PAIRS {
            self.latest.insert(pair, Sighted { digest, at_ns: now_ns, link });
        }
        link
    }
}

/// The bytes of a packet's segment, as far as they were captured.
fn content<'a>(bare: &Bare<'a>, packet: &Packet) -> &'a [u8] {
    bare.packet.bytes.get(packet.datagram.tcp_offset as usize..).unwrap_or_default()
}

/// Time within which two interfaces of one link show a packet, in ns.
const COPY_NS: u64 = 100_000_000;

/// Maximum number of pairs of hosts whose latest packet is kept.
const MAX_PAIRS: usize = 4_096;
