//! Features of network drivers, read through the `netdev` netlink family (Linux 6.3, `uapi/linux/netdev.h`).

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla as _, NlasIterator, Parseable as _, ParseableParametrized,
    parse_u64,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::netlink::Channel;

/// Whether the driver of an interface of this namespace has native XDP. Fails if the kernel does not report
/// it.
pub(super) fn has_native_xdp(index: u32) -> io::Result<bool> {
    let mut channel = Channel::open(NETLINK_GENERIC)?;
    let family = family(&mut channel)?;
    let mut question =
        GenlMessage::from_payload(Device(vec![DefaultNla::new(IFINDEX, index.to_ne_bytes().to_vec())]));
    question.set_resolved_family_id(family);
    let mut features = None;
    channel.request(question, 0, |reply: GenlMessage<Device>, _| features = reply.payload.xdp_features())?;
    features.map(|features| features & BASIC != 0).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Number of the `netdev` family, which the kernel assigns when it starts.
fn family(channel: &mut Channel) -> io::Result<u16> {
    let question = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(Device::family_name().to_owned())],
    });
    let mut id = None;
    channel.request(question, 0, |reply: GenlMessage<GenlCtrl>, _| {
        id = reply.payload.nlas.iter().find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
    })?;
    id.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Request and reply of `NETDEV_CMD_DEV_GET`.
#[derive(Debug)]
struct Device(Vec<DefaultNla>);

impl Device {
    fn xdp_features(&self) -> Option<u64> {
        let attribute = self.0.iter().find(|attribute| attribute.kind() == XDP_FEATURES)?;
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        parse_u64(&value).ok()
    }
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(buffer: &[u8], _header: GenlHeader) -> Result<Device, DecodeError> {
        let attributes = NlasIterator::new(buffer).map(|nla| nla.and_then(|nla| DefaultNla::parse(&nla)));
        attributes.collect::<Result<_, _>>().map(Device)
    }
}

/// `NETDEV_CMD_DEV_GET`
const DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`
const IFINDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: XDP_PASS, XDP_DROP, XDP_ABORTED and XDP_TX.
const BASIC: u64 = 1;
