//! The interfaces of this network namespace, and programs on those that are to be watched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkXdp};

use super::lock::lock;
use crate::api::InterfaceStatus;
use crate::kernel::{AttachError, Attachment, Ingress, Kernel, describe_program};

/// One interface as the kernel lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether its packets have link-layer headers.
    pub ethernet: bool,
    /// Whether it is real hardware, as far as the kernel tells: Ethernet, and of no virtual kind.
    pub physical: bool,
    /// The XDP program on it.
    pub xdp_program: Option<u32>,
}

/// A way to ask the kernel for its interfaces and to hear of changes, served by a task of the runtime it is opened in.
pub struct Netlink {
    handle: rtnetlink::Handle,
    changes: BoxStream<'static, ()>,
}

impl Netlink {
    /// Opens it.
    pub fn open() -> Result<Netlink> {
        let (connection, handle, changes) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
            .context("opening a netlink socket")?;
        tokio::spawn(connection);
        Ok(Netlink { handle, changes: changes.map(drop).boxed() })
    }

    /// Comes back when an interface has come, gone or changed since the last call. `false`: there is nothing more to hear,
    /// since changes came faster than they could be told (ENOBUFS); open it anew and list.
    pub async fn changed(&mut self) -> bool {
        let heard = self.changes.next().await.is_some();
        while let Some(Some(_)) = self.changes.next().now_or_never() {}
        heard
    }

    /// Every interface of this namespace.
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
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::LinkInfo(infos) => {
                    let virtual_kind = infos.iter().any(|info| matches!(info, LinkInfo::Kind(_)));
                    interface.physical &= !virtual_kind;
                }
                LinkAttribute::Xdp(xdp) => {
                    interface.xdp_program = xdp.iter().find_map(|attribute| match attribute {
                        LinkXdp::ProgId(id) => Some(*id),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

/// InterfaceNames of interfaces by their index, as they were last seen: a record may outlive its interface.
#[derive(Clone, Default)]
pub struct InterfaceNames(Arc<Mutex<BTreeMap<u32, String>>>);

impl InterfaceNames {
    /// Remembers what is there now.
    pub fn learn(&self, interfaces: &[Interface]) {
        let mut names = lock(&self.0);
        for interface in interfaces {
            names.insert(interface.index, interface.name.clone());
        }
    }

    /// Name of the interface of a hook as events and slots give it.
    pub fn of_hook(&self, hook: u32) -> Option<String> {
        lock(&self.0).get(&(hook >> 1)).cloned()
    }
}

/// Keeps programs on the interfaces that are to be watched.
pub struct Attachments {
    wanted: Vec<String>,
    ingress: Ingress,
    attached: BTreeMap<u32, Result<Attachment, String>>,
}

impl Attachments {
    /// `wanted`: names, or none for every interface that is up.
    pub fn new(wanted: Vec<String>, ingress: Ingress) -> Attachments {
        Attachments { wanted, ingress, attached: BTreeMap::new() }
    }

    /// Whether an interface is to be watched now.
    pub fn is_selected(&self, interface: &Interface) -> bool {
        if self.wanted.is_empty() { interface.up } else { self.wanted.contains(&interface.name) }
    }

    /// How ingress of an interface is to be watched: XDP is asked of virtual ones only by name.
    pub fn ingress_of(&self, interface: &Interface) -> Ingress {
        let named = !self.wanted.is_empty();
        if self.ingress == Ingress::Xdp && !interface.physical && !named { Ingress::Tc } else { self.ingress }
    }

    /// The names asked for that do not exist.
    pub fn missing(&self, interfaces: &[Interface]) -> Vec<String> {
        let exists = |name: &&String| interfaces.iter().any(|interface| interface.name == **name);
        self.wanted.iter().filter(|name| !exists(name)).cloned().collect()
    }

    /// Attaches to what has come, forgets what has gone. Returns the failures that are new.
    pub fn follow(&mut self, kernel: &mut Kernel, interfaces: &[Interface]) -> Vec<AttachError> {
        // A program stays on an interface that is down, and its links vanish with the interface itself.
        self.attached.retain(|&index, _| interfaces.iter().any(|interface| interface.index == index));
        let mut failures = Vec::new();
        for interface in interfaces {
            if !self.is_selected(interface) || self.attached.contains_key(&interface.index) {
                continue;
            }
            match kernel.attach(
                &interface.name,
                interface.index,
                interface.ethernet,
                self.ingress_of(interface),
                interface.physical,
            ) {
                Ok(attachment) => {
                    self.attached.insert(interface.index, Ok(attachment));
                }
                // It went away between the list and the attempt.
                Err(AttachError::Gone { .. }) => {}
                Err(error) => {
                    let error = match (error, interface.xdp_program) {
                        (AttachError::XdpTaken { interface, .. }, Some(id)) => {
                            AttachError::XdpTaken { interface, owner: describe_program(id) }
                        }
                        (error, _) => error,
                    };
                    self.attached.insert(interface.index, Err(error.to_string()));
                    failures.push(error);
                }
            }
        }
        failures
    }

    /// What sits where.
    pub fn watched(&self, names: &InterfaceNames) -> Vec<InterfaceStatus> {
        self.attached
            .iter()
            .map(|(&index, attached)| {
                let name = names.of_hook(index << 1).unwrap_or_else(|| format!("#{index}"));
                match attached {
                    Ok(attachment) => InterfaceStatus {
                        interface: name,
                        ingress: Some(attachment.ingress.to_string()),
                        egress: Some(attachment.egress.to_string()),
                        error: None,
                    },
                    Err(error) => InterfaceStatus {
                        interface: name,
                        ingress: None,
                        egress: None,
                        error: Some(error.clone()),
                    },
                }
            })
            .collect()
    }

    /// How many interfaces are watched.
    pub fn count(&self) -> usize {
        self.attached.values().filter(|attached| attached.is_ok()).count()
    }
}
