//! What the programs look up of the host: which addresses are its own, and the scope of link-local ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData};

use super::error::failed;
use super::{Kernel, KernelError, open};
use crate::netlink::Prefix;

/// The maps, and what is in them.
pub(super) struct HostMaps {
    prefixes: LpmTrie<MapData, [u8; 16], u8>,
    scopes: HashMap<MapData, u64, u32>,
    known_prefixes: BTreeSet<Prefix>,
    known_scopes: Scopes,
}

/// The layer-3 interface of link-local addresses, by interface index and outer VLAN id, where it is not the
/// interface itself. Without an entry for the VLAN id, that for 0 holds.
pub type Scopes = BTreeMap<(u32, u16), u32>;

impl HostMaps {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<HostMaps, KernelError> {
        Ok(HostMaps {
            prefixes: open(ebpf, PREFIXES)?,
            scopes: open(ebpf, SCOPES)?,
            known_prefixes: BTreeSet::new(),
            known_scopes: Scopes::new(),
        })
    }
}

impl Kernel {
    /// Sets which addresses belong to this host. A flow that opens later has its ends classified by them.
    pub fn set_local_prefixes(&mut self, present: BTreeSet<Prefix>) -> Result<(), KernelError> {
        let HostMaps { prefixes, known_prefixes, .. } = &mut self.host;
        for added in present.difference(known_prefixes) {
            prefixes
                .insert(&trie_key(added), 1, 0)
                .map_err(|error| failed(format!("writing map {PREFIXES}"), error))?;
        }
        for gone in known_prefixes.difference(&present) {
            prefixes
                .remove(&trie_key(gone))
                .map_err(|error| failed(format!("writing map {PREFIXES}"), error))?;
        }
        *known_prefixes = present;
        Ok(())
    }

    /// Sets the scopes of link-local addresses.
    pub fn set_scopes(&mut self, present: Scopes) -> Result<(), KernelError> {
        let HostMaps { scopes, known_scopes, .. } = &mut self.host;
        let error = |error| failed(format!("writing map {SCOPES}"), error);
        for (&at, &scope) in present.iter().filter(|&(at, scope)| known_scopes.get(at) != Some(scope)) {
            scopes.insert(scope_key(at), scope, 0).map_err(error)?;
        }
        for &at in known_scopes.keys().filter(|&at| !present.contains_key(at)) {
            scopes.remove(&scope_key(at)).map_err(error)?;
        }
        *known_scopes = present;
        Ok(())
    }
}

/// IPv4 as `::ffff:a.b.c.d`, as in the key of a flow.
fn trie_key(prefix: &Prefix) -> Key<[u8; 16]> {
    let (octets, before) = match prefix.address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 96),
        IpAddr::V6(v6) => (v6.octets(), 0),
    };
    Key::new(before + u32::from(prefix.len), octets)
}

fn scope_key((interface, vlan): (u32, u16)) -> u64 {
    u64::from(interface) | u64::from(vlan) << 32
}

const PREFIXES: &str = "LOCAL_PREFIXES";
const SCOPES: &str = "SCOPES";
