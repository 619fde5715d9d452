//! Which endpoints belong to this host, as its routing tables say, and how link-local addresses are scoped.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;

use tcp_common::{End, FlowKey};

use super::interfaces::Interface;
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
}

impl LocalAddresses {
    /// Reads the local routes, and writes them and the scopes of link-local addresses to the programs' maps.
    /// Returns whether a prefix has come or gone.
    pub fn refresh(&mut self, kernel: &mut Kernel, interfaces: &[Interface]) -> Result<bool, LocalityError> {
        let prefixes = local_prefixes().map_err(LocalityError::Routes)?;
        kernel.set_scopes(scopes(interfaces))?;
        if prefixes == self.prefixes {
            return Ok(false);
        }
        kernel.set_local_prefixes(prefixes.clone())?;
        self.hosts = prefixes.iter().filter(|prefix| prefix.is_host()).map(|prefix| prefix.address).collect();
        self.prefixes = prefixes;
        Ok(true)
    }

    /// Classifies the endpoints of every flow again. Totals keep what they have counted.
    pub fn reclassify(&self, table: &Table) {
        for entry in table.entries() {
            let local = [End::A, End::B].map(|end| self.is_local(&entry.key, end));
            if local == [End::A, End::B].map(|end| entry.flow.is_local(end)) {
                continue;
            }
            if let Some(mut slot) = table.try_lock(entry.index).filter(|slot| slot.key() == entry.key) {
                slot.set_local(End::A, local[0]);
                slot.set_local(End::B, local[1]);
            }
        }
    }

    fn is_local(&self, key: &FlowKey, end: End) -> bool {
        let address = address(key, end);
        self.hosts.contains(&address)
            || self.prefixes.iter().any(|prefix| !prefix.is_host() && prefix.contains(address))
    }
}

/// The layer-3 interface of each interface and VLAN id: the master of a port, and the VLAN device of a tag.
fn scopes(interfaces: &[Interface]) -> Scopes {
    let mut scopes = Scopes::new();
    for interface in interfaces {
        let index = interface.index;
        let untagged = layer_3(interfaces, index, 0);
        if untagged != index {
            scopes.insert((index, 0), untagged);
        }
        for vlan in interfaces.iter().filter_map(|device| Some(device.vlan?.1)) {
            let scope = layer_3(interfaces, index, vlan);
            // A tag without a device of its own has the scope of an untagged frame.
            if scope != untagged {
                scopes.insert((index, vlan), scope);
            }
        }
    }
    scopes
}

fn layer_3(interfaces: &[Interface], index: u32, vlan: u16) -> u32 {
    let (mut index, mut vlan) = (index, vlan);
    // Devices can be stacked, and no deeper than this (`MAX_NEST_DEV`).
    for _ in 0..8 {
        let device = interfaces.iter().find(|device| vlan != 0 && device.vlan == Some((index, vlan)));
        let master = || interfaces.iter().find(|port| port.index == index).and_then(|port| port.master);
        (index, vlan) = match (device, master()) {
            (Some(device), _) => (device.index, 0),
            (None, Some(master)) => (master, vlan),
            (None, None) => break,
        };
    }
    index
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
        ] {
            let scopes = scopes(&interfaces);
            // As the programs look it up.
            let found = scopes.get(&(index, vlan)).or(scopes.get(&(index, 0))).copied().unwrap_or(index);
            assert_eq!(found, scope, "interface {index}, VLAN {vlan}");
        }
    }
}
