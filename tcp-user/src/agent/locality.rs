//! Which endpoints belong to this host, as its routing tables say, and how link-local addresses are scoped.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::{io, iter};

use tcp_common::{End, Flow};

use super::interfaces::Interface;
use super::nat::Translations;
use crate::kernel::{Kernel, KernelError, Scopes, Table};
use crate::netlink::{Prefix, local_prefixes};
use crate::view::describe::address;

/// Why the locality of endpoints is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum LocalityError {
    /// The routes cannot be read.
    #[error("reading the local routes of this host: {0}")]
    Routes(io::Error),
    /// The maps of the kernel programs cannot be written.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The host's own prefixes, as last read.
#[derive(Default)]
pub struct LocalAddresses {
    prefixes: BTreeSet<Prefix>,
    hosts: HashSet<IpAddr>,
    /// Whether [`reclassify`](Self::reclassify) has left flows out that were locked.
    incomplete: bool,
}

impl LocalAddresses {
    /// Reads the local routes, and writes them and the scopes of link-local addresses to the programs' maps.
    /// Returns whether flows must be classified again.
    pub fn refresh(&mut self, kernel: &mut Kernel, interfaces: &[Interface]) -> Result<bool, LocalityError> {
        let prefixes = local_prefixes().map_err(LocalityError::Routes)?;
        kernel.set_scopes(scopes(interfaces))?;
        if prefixes == self.prefixes {
            return Ok(self.incomplete);
        }
        kernel.set_local_prefixes(prefixes.clone())?;
        self.hosts = prefixes.iter().filter(|prefix| prefix.is_host()).map(|prefix| prefix.address).collect();
        self.prefixes = prefixes;
        Ok(true)
    }

    /// Classifies the endpoints of every flow again. Totals keep what they have counted.
    pub fn reclassify(&mut self, table: &Table, translations: &Translations) {
        self.incomplete = false;
        for entry in table.entries() {
            let translated = translations.locality(&entry.key, |address| self.contains(address));
            let local = translated
                .unwrap_or_else(|| [End::A, End::B].map(|end| self.contains(address(&entry.key, end))));
            if local == [End::A, End::B].map(|end| entry.flow.is_local(end)) {
                continue;
            }
            match table.try_lock(entry.index) {
                Some(mut slot) if slot.key() == entry.key => {
                    set_locality(&mut slot, local);
                }
                Some(_) => {}
                None => self.incomplete = true,
            }
        }
    }

    /// Whether an address belongs to this network namespace.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.hosts.contains(&address)
            || self.prefixes.iter().any(|prefix| !prefix.is_host() && prefix.contains(address))
    }
}

/// Says which ends of a flow are local, A first.
pub(super) fn set_locality(flow: &mut Flow, local: [bool; 2]) {
    for end in [End::A, End::B] {
        flow.set_local(end, local[end as usize]);
    }
}

/// The layer-3 interface of each interface and VLAN id: the master of a port, and the VLAN device of a tag.
fn scopes(interfaces: &[Interface]) -> Scopes {
    let (mut masters, mut vlan_devices) = (HashMap::new(), HashMap::<u32, Vec<_>>::new());
    let vrfs: HashSet<_> = interfaces.iter().filter(|other| other.vrf).map(|vrf| vrf.index).collect();
    for interface in interfaces {
        // A VRF is no link: its ports keep their own link-local addresses.
        if let Some(master) = interface.master.filter(|master| !vrfs.contains(master)) {
            masters.insert(interface.index, master);
        }
        if let Some((below, id)) = interface.vlan {
            vlan_devices.entry(below).or_default().push((id, interface.index));
        }
    }
    // Devices can be stacked, and no deeper than this (`MAX_NEST_DEV`).
    let chain = |index| iter::successors(Some(index), |index| masters.get(index).copied()).take(8);
    let untagged = |index| chain(index).last().unwrap_or(index);
    let mut scopes = Scopes::new();
    for interface in interfaces {
        let index = interface.index;
        if untagged(index) != index {
            scopes.insert((index, 0), untagged(index));
        }
        // The nearest device with the id takes the frame.
        for &(id, device) in chain(index).filter_map(|device| vlan_devices.get(&device)).flatten() {
            scopes.entry((index, id)).or_insert(untagged(device));
        }
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, master: Option<u32>, vlan: Option<(u32, u16)>) -> Interface {
        Interface { index, master, vlan, ..Interface::default() }
    }

    #[test]
    fn link_local_addresses_belong_to_the_layer_3_interface() {
        let interfaces = [
            interface(1, None, None),
            interface(2, Some(9), None),
            interface(3, None, None),
            interface(4, None, Some((3, 10))),
            interface(5, Some(9), Some((3, 20))),
            interface(6, None, Some((9, 30))),
            interface(9, None, None),
            Interface { vrf: true, ..interface(10, None, None) },
            interface(11, Some(10), None),
            interface(12, Some(10), None),
        ];
        for ((index, vlan), scope) in [
            ((1, 0), 1),
            ((2, 0), 9),
            ((2, 30), 6),
            ((2, 7), 9),
            ((3, 0), 3),
            ((3, 10), 4),
            ((3, 20), 9),
            ((4, 0), 4),
            ((5, 0), 9),
            ((6, 0), 6),
            ((11, 0), 11),
            ((12, 0), 12),
        ] {
            let scopes = scopes(&interfaces);
            // As the programs look it up.
            let found = scopes.get(&(index, vlan)).or(scopes.get(&(index, 0))).copied().unwrap_or(index);
            assert_eq!(found, scope, "interface {index}, VLAN {vlan}");
        }
    }
}
