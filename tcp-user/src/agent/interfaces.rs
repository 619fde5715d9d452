//! The interfaces of this network namespace, and the kernel programs attached to the selected ones.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkXdp,
};

use tcp_common::FlowKey;

use super::descriptors;
use crate::api::{EgressPlace, InterfaceStatus};
use crate::kernel::{AttachError, Attachment, Ingress, Kernel, Place, describe_program};
use crate::view::describe::Location;

/// An interface as the kernel lists it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Whether the interface is up.
    pub up: bool,
    /// Whether packets have link-layer headers.
    pub ethernet: bool,
    /// Whether the interface is hardware, as far as the kernel shows: Ethernet, and not of a virtual kind.
    pub physical: bool,
    /// Number of the XDP program attached to the interface.
    pub xdp_program: Option<u32>,
    /// Index of the bridge, bond or VRF of which the interface is a port.
    pub master: Option<u32>,
    /// Whether the interface is a VRF.
    pub vrf: bool,
    /// Whether the interface is one of a pair (veth, netkit) whose other one is in another network namespace.
    pub peer_elsewhere: bool,
    /// Index of the interface below a VLAN device, and the device's VLAN id.
    pub vlan: Option<(u32, u16)>,
    /// Number of packets that the interface has sent.
    pub sent: u64,
}

/// A netlink socket that lists interfaces and reports changes of them and of their addresses. A task of the runtime that opened it serves
/// it.
pub struct Netlink {
    handle: rtnetlink::Handle,
    changes: BoxStream<'static, ()>,
}

impl Netlink {
    /// Opens the socket. Must be called inside a runtime.
    pub fn open() -> io::Result<Netlink> {
        let (connection, handle, changes) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        tokio::spawn(connection);
        Ok(Netlink { handle, changes: changes.map(drop).boxed() })
    }

    /// Returns when an interface or an address has come, gone or changed since the last call. Returns `false` if the socket
    /// has overflowed (ENOBUFS) and reports no more changes: open another one and list the interfaces again.
    pub async fn changed(&mut self) -> bool {
        let more = self.changes.next().await.is_some();
        while let Some(Some(_)) = self.changes.next().now_or_never() {}
        more
    }

    /// Every interface of this network namespace.
    pub async fn list(&self) -> Result<Vec<Interface>, rtnetlink::Error> {
        list(&self.handle).await
    }
}

async fn list(handle: &rtnetlink::Handle) -> Result<Vec<Interface>, rtnetlink::Error> {
    let mut links = handle.link().get().execute();
    let mut interfaces = Vec::new();
    while let Some(message) = links.try_next().await? {
        let mut interface = Interface {
            index: message.header.index,
            name: String::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            ethernet: matches!(
                message.header.link_layer_type,
                LinkLayerType::Ether | LinkLayerType::Loopback
            ),
            physical: message.header.link_layer_type == LinkLayerType::Ether,
            xdp_program: None,
            master: None,
            vrf: false,
            peer_elsewhere: false,
            vlan: None,
            sent: 0,
        };
        let (mut below, mut vlan_id) = (None, None);
        let (mut is_pair, mut peer_namespace) = (false, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::LinkInfo(infos) => {
                    let virtual_kind = infos.iter().any(|info| matches!(info, LinkInfo::Kind(_)));
                    interface.physical &= !virtual_kind;
                    interface.vrf = infos.contains(&LinkInfo::Kind(InfoKind::Vrf));
                    vlan_id = infos.iter().find_map(vlan_id_of);
                    is_pair = infos.iter().any(is_pair_kind);
                }
                LinkAttribute::Xdp(xdp) => {
                    interface.xdp_program = xdp.iter().find_map(|attribute| match attribute {
                        LinkXdp::ProgId(id) => Some(*id),
                        _ => None,
                    });
                }
                LinkAttribute::Controller(index) => interface.master = Some(index),
                LinkAttribute::Link(index) => below = Some(index),
                LinkAttribute::LinkNetNsId(id) => peer_namespace = Some(id),
                LinkAttribute::Stats64(stats) => interface.sent = stats.tx_packets,
                _ => {}
            }
        }
        interface.vlan = below.zip(vlan_id);
        interface.peer_elsewhere = is_pair && peer_namespace.is_some();
        interfaces.push(interface);
    }
    Ok(interfaces)
}

fn is_pair_kind(info: &LinkInfo) -> bool {
    matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit))
}

fn vlan_id_of(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

/// Names of interfaces by their index, as last seen: a record may outlive its interface.
#[derive(Clone, Default)]
pub struct InterfaceNames(Arc<Mutex<BTreeMap<u32, String>>>);

impl InterfaceNames {
    /// Records the present names.
    pub fn learn(&self, interfaces: &[Interface]) {
        let mut names = self.0.lock();
        for interface in interfaces {
            names.insert(interface.index, interface.name.clone());
        }
    }

    /// Where a flow was seen: at which hook, as events and slots encode it, and with which VLAN tags.
    pub fn location(&self, key: &FlowKey, hook: u32, tags: [u32; 2]) -> Location {
        let scope = self.of_scope(key);
        Location { interface: self.0.lock().get(&(hook >> 1)).cloned(), tags, scope }
    }

    /// Name of the interface whose link the addresses of a flow belong to, if they are link-local.
    pub fn of_scope(&self, key: &FlowKey) -> Option<String> {
        let names = self.0.lock();
        // A key has room for the lower half of the index.
        let of_domain = || names.iter().find(|&(&index, _)| index as u16 == key.domain);
        key.is_link_local().then(of_domain).flatten().map(|(_, name)| name.clone())
    }
}

/// The kernel programs attached to the selected interfaces.
pub struct Attachments {
    selected: Vec<String>,
    ingress: Ingress,
    by_index: BTreeMap<u32, Attached>,
}

/// An interface to which the programs are attached, or could not be.
struct Attached {
    name: String,
    outcome: Result<Attachment, String>,
    /// Whether it was left out for want of descriptors: it is tried again when there are some.
    waits: bool,
}

/// What happened to a selected interface.
#[derive(Debug)]
pub enum InterfaceChange {
    /// The programs were attached.
    Attached(InterfaceStatus),
    /// The programs could not be attached.
    Failed(AttachError),
    /// The limit of open files leaves no descriptors for these interfaces.
    OutOfDescriptors {
        /// The limit.
        limit: u64,
        /// Names of the interfaces.
        interfaces: Vec<String>,
    },
    /// The programs were moved to another place among those of others.
    Moved(InterfaceStatus),
    /// A watched interface has another name.
    Renamed {
        /// Previous name.
        from: String,
        /// Present name.
        to: String,
    },
    /// A watched interface does not exist any more.
    Gone(String),
}

impl InterfaceChange {
    /// Writes the change to the log.
    pub fn log(&self) {
        match self {
            InterfaceChange::Attached(InterfaceStatus { interface, ingress, egress, .. }) => {
                let hook = |hook: &Option<String>| hook.clone().unwrap_or_else(|| "none".into());
                tracing::info!("attached to {interface}: ingress {}, egress {}", hook(ingress), hook(egress));
            }
            InterfaceChange::Moved(InterfaceStatus { interface, egress_place, .. }) => match egress_place {
                Some(place) => tracing::info!("moved on {interface}: {}", place.description()),
                None => tracing::info!("moved on {interface}: no other program is on its egress hook"),
            },
            InterfaceChange::Failed(error) => tracing::warn!("{error}"),
            InterfaceChange::OutOfDescriptors { limit, interfaces } => tracing::warn!(
                "{} not watched: {} (LimitNOFILE, `ulimit -Hn`)",
                interfaces.join(", "),
                out_of_descriptors(*limit)
            ),
            InterfaceChange::Renamed { from, to } => tracing::info!("interface {from} is now named {to}"),
            InterfaceChange::Gone(interface) => tracing::info!("interface {interface} is gone"),
        }
    }
}

fn out_of_descriptors(limit: u64) -> String {
    format!("the limit of {limit} open files leaves no descriptors for more interfaces")
}

impl Attached {
    fn status(&self) -> InterfaceStatus {
        let attachment = self.outcome.as_ref().ok();
        InterfaceStatus {
            interface: self.name.clone(),
            ingress: attachment.map(|attachment| attachment.ingress.to_string()),
            egress: attachment.map(|attachment| attachment.egress.to_string()),
            egress_place: attachment.and_then(|attachment| match attachment.place() {
                Place::Alone => None,
                Place::Last => Some(EgressPlace::Last),
                Place::First => Some(EgressPlace::First),
            }),
            error: self.outcome.as_ref().err().cloned(),
        }
    }
}

impl Attachments {
    /// `selected` are the names of interfaces; none selects every interface that is up.
    pub fn new(selected: Vec<String>, ingress: Ingress) -> Attachments {
        Attachments { selected, ingress, by_index: BTreeMap::new() }
    }

    /// Whether an interface is selected at present.
    pub fn is_selected(&self, interface: &Interface) -> bool {
        if self.selected.is_empty() { interface.up } else { self.selected.contains(&interface.name) }
    }

    /// Ingress mode for an interface. `--ingress xdp` applies to a virtual interface only if it is selected
    /// by name.
    pub fn ingress_of(&self, interface: &Interface) -> Ingress {
        let named = !self.selected.is_empty();
        if self.ingress == Ingress::Xdp && !interface.physical && !named { Ingress::Tc } else { self.ingress }
    }

    /// Selected names that do not exist.
    pub fn missing(&self, interfaces: &[Interface]) -> Vec<String> {
        let exists = |name: &&String| interfaces.iter().any(|interface| interface.name == **name);
        self.selected.iter().filter(|name| !exists(name)).cloned().collect()
    }

    /// Attaches to interfaces that have come and forgets those that have gone. Returns what has changed.
    pub fn follow(&mut self, kernel: &mut Kernel, interfaces: &[Interface]) -> Vec<InterfaceChange> {
        let mut changes = Vec::new();
        self.by_index.retain(|&index, attached| {
            // A program stays on an interface that is down, and its links vanish with the interface itself.
            let present = interfaces.iter().find(|interface| interface.index == index);
            match present {
                None if attached.outcome.is_ok() => {
                    changes.push(InterfaceChange::Gone(attached.name.clone()))
                }
                Some(interface) if interface.name != attached.name => {
                    let from = std::mem::replace(&mut attached.name, interface.name.clone());
                    changes.push(InterfaceChange::Renamed { from, to: interface.name.clone() });
                }
                _ => {}
            }
            present.is_some()
        });
        let (mut available, mut left_out) = (descriptors::available(), Vec::new());
        for interface in interfaces {
            let known = self.by_index.get(&interface.index);
            let waits = known.is_some_and(|attached| attached.waits);
            if !self.is_selected(interface) || (known.is_some() && !waits) {
                continue;
            }
            if available < descriptors::PER_INTERFACE {
                let name = interface.name.clone();
                if !waits {
                    left_out.push(name.clone());
                    let outcome = Err(out_of_descriptors(descriptors::limit()));
                    self.by_index.insert(interface.index, Attached { name, outcome, waits: true });
                }
                continue;
            }
            available -= descriptors::PER_INTERFACE;
            let outcome = self.attach(kernel, interface);
            // The interface went away after it was listed.
            if let Err(AttachError::Gone { .. }) = outcome {
                continue;
            }
            let (outcome, failure) = match outcome {
                Ok(attachment) => (Ok(attachment), None),
                Err(error) => (Err(error.to_string()), Some(error)),
            };
            let attached = Attached { name: interface.name.clone(), outcome, waits: false };
            changes.push(
                failure.map_or_else(|| InterfaceChange::Attached(attached.status()), InterfaceChange::Failed),
            );
            self.by_index.insert(interface.index, attached);
        }
        if !left_out.is_empty() {
            let limit = descriptors::limit();
            changes.push(InterfaceChange::OutOfDescriptors { limit, interfaces: left_out });
        }
        changes
    }

    /// Keeps the programs in their place among those of others. `interfaces` has the numbers of sent packets;
    /// it is empty if they are not to be judged. Returns what has changed.
    pub fn keep_places(&mut self, kernel: &mut Kernel, interfaces: &[Interface]) -> Vec<InterfaceChange> {
        let mut changes = Vec::new();
        for (index, attached) in &mut self.by_index {
            let Ok(attachment) = &mut attached.outcome else { continue };
            let sent = interfaces.iter().find(|interface| interface.index == *index);
            match kernel.keep_places(attachment, sent.map(|interface| interface.sent)) {
                Ok(false) => {}
                Ok(true) => changes.push(InterfaceChange::Moved(attached.status())),
                // Its end is reported by netlink.
                Err(AttachError::Gone { .. }) => {}
                Err(error) => {
                    attached.outcome = Err(error.to_string());
                    changes.push(InterfaceChange::Failed(error));
                }
            }
        }
        changes
    }

    fn attach(&self, kernel: &mut Kernel, interface: &Interface) -> Result<Attachment, AttachError> {
        let Interface { index, ref name, ethernet, physical, xdp_program, .. } = *interface;
        let attached = kernel.attach(name, index, ethernet, self.ingress_of(interface), physical);
        attached.map_err(|error| match (error, xdp_program) {
            (AttachError::XdpTaken { interface, .. }, Some(id)) => {
                AttachError::XdpTaken { interface, owner: describe_program(id) }
            }
            (error, _) => error,
        })
    }

    /// Whether the egress program of any interface is behind programs of others.
    pub fn any_last(&self) -> bool {
        let mut attachments = self.by_index.values().filter_map(|attached| attached.outcome.as_ref().ok());
        attachments.any(|attachment| attachment.place() == Place::Last)
    }

    /// State of every interface that is watched or could not be.
    pub fn status(&self) -> Vec<InterfaceStatus> {
        self.by_index.values().map(Attached::status).collect()
    }

    /// Number of watched interfaces.
    pub fn count(&self) -> usize {
        self.by_index.values().filter(|attached| attached.outcome.is_ok()).count()
    }
}
