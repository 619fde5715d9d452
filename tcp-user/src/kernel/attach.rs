//! Attaches programs to interfaces. Never replaces what another program has attached.

use std::fmt;

use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, TcAttachType, XdpMode, tc};

use super::chain::{EgressChain, Place};
use super::error::{chain, errno};
use super::{Kernel, KernelError, ProgramName};

/// The hook that an operator chose for incoming packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Ingress {
    /// Native XDP if the driver supports it and no other program is attached, otherwise TC.
    #[default]
    Auto,
    /// Native XDP or an error.
    Xdp,
    /// TC only.
    Tc,
}

impl Ingress {
    /// Returns whether native XDP is tried on an interface.
    pub fn tries_xdp(self, physical: bool) -> bool {
        match self {
            Ingress::Xdp => true,
            Ingress::Auto => physical,
            Ingress::Tc => false,
        }
    }
}

/// A direction of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// Packets that the interface receives.
    Ingress,
    /// Packets that the interface sends.
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        })
    }
}

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// XDP in the driver.
    XdpNative,
    /// TC by a TCX link (Linux 6.6 and later).
    Tcx,
    /// TC by a filter of the clsact qdisc.
    Clsact,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::XdpNative => "xdp-native",
            Mode::Tcx => "tcx",
            Mode::Clsact => "clsact",
        })
    }
}

/// The programs on one interface. Dropping it detaches them.
#[derive(Debug)]
pub struct Attachment {
    /// Name of the interface when the programs were attached.
    pub interface: String,
    /// Index of the interface.
    pub index: u32,
    /// How the ingress program is attached.
    pub ingress: Mode,
    /// How the egress program is attached.
    pub egress: Mode,
    pub(super) link_layer: LinkLayer,
    pub(super) inbound: Option<IngressLink>,
    pub(super) outbound: SchedClassifierLink,
    pub(super) chain: EgressChain,
}

impl Attachment {
    /// Place of the egress program among those of others.
    pub fn place(&self) -> Place {
        self.chain.place
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop")]
pub(super) enum IngressLink {
    Xdp(FdLink),
    Tc(SchedClassifierLink),
}

/// What packets of an interface begin with, and so which entry programs read them.
#[derive(Clone, Copy, Debug)]
pub(super) enum LinkLayer {
    Ethernet,
    /// None (tun, WireGuard).
    Ip,
}

impl LinkLayer {
    /// The entry program of TC, ingress.
    pub(super) fn ingress(self) -> ProgramName {
        match self {
            LinkLayer::Ethernet => ProgramName::In,
            LinkLayer::Ip => ProgramName::InIp,
        }
    }

    /// The entry programs of TC, egress: in general, and in the last place behind programs of others.
    pub(super) fn egress(self) -> [ProgramName; 2] {
        match self {
            LinkLayer::Ethernet => [ProgramName::Out, ProgramName::Last],
            LinkLayer::Ip => [ProgramName::OutIp, ProgramName::LastIp],
        }
    }
}

/// Why programs cannot be attached to an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Another XDP program is attached.
    #[error("{interface}: XDP is taken by {owner}; finwait does not replace it. Use --ingress tc")]
    XdpTaken {
        /// Name of the interface.
        interface: String,
        /// The other program.
        owner: String,
    },
    /// The driver has no native XDP.
    #[error("{interface}: its driver has no native XDP ({reason}). Use --ingress tc")]
    XdpUnsupported {
        /// Name of the interface.
        interface: String,
        /// Error of the system call.
        reason: String,
    },
    /// The interface does not exist.
    #[error("{interface}: no such interface; `ip link` lists those there are")]
    Gone {
        /// Name of the interface.
        interface: String,
    },
    /// The kernel refused the attachment for another reason.
    #[error("{interface}: cannot attach to {hook}: {reason}")]
    Failed {
        /// Name of the interface.
        interface: String,
        /// Direction of the hook.
        hook: Hook,
        /// Error of the system call.
        reason: String,
    },
    /// The programs cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Kernel {
    /// Attaches programs to both directions of an interface.
    ///
    /// `ethernet` says whether the interface has link-layer headers, `physical` whether it belongs to a
    /// device. Together with `ingress` they decide whether native XDP is tried first.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses a program, or native XDP if `ingress` demands it. Nothing stays attached
    /// then.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        ethernet: bool,
        ingress: Ingress,
        physical: bool,
    ) -> Result<Attachment, AttachError> {
        let xdp = if ingress.tries_xdp(physical && ethernet) {
            Some(self.attach_xdp(interface, index))
        } else {
            None
        };
        let link_layer = if ethernet { LinkLayer::Ethernet } else { LinkLayer::Ip };
        let (inbound, ingress_mode) = match (xdp, ingress) {
            (Some(Ok(link)), _) => (IngressLink::Xdp(link), Mode::XdpNative),
            (Some(Err(error)), Ingress::Xdp) => return Err(error),
            (Some(Err(_)) | None, _) => {
                let name = link_layer.ingress();
                let (link, mode) = self.attach_tc(interface, name, Hook::Ingress, LinkOrder::first())?;
                (IngressLink::Tc(link), mode)
            }
        };
        let [name, _] = link_layer.egress();
        let (outbound, egress_mode) = self.attach_tc(interface, name, Hook::Egress, LinkOrder::last())?;
        let mut attachment = Attachment {
            interface: interface.into(),
            index,
            ingress: ingress_mode,
            egress: egress_mode,
            link_layer,
            inbound: Some(inbound),
            outbound,
            chain: EgressChain::default(),
        };
        self.keep_places(&mut attachment, None)?;
        Ok(attachment)
    }

    fn attach_xdp(&mut self, interface: &str, index: u32) -> Result<FdLink, AttachError> {
        let interface = interface.to_owned();
        let xdp = self.xdp(ProgramName::Xdp)?;
        let id = xdp.attach_to_if_index(index, XdpMode::Driver).map_err(|error| match errno(&error) {
            Some(libc::EBUSY | libc::EEXIST) => {
                AttachError::XdpTaken { interface: interface.clone(), owner: "another program".into() }
            }
            Some(libc::ENODEV) => AttachError::Gone { interface: interface.clone() },
            _ => AttachError::XdpUnsupported { interface: interface.clone(), reason: chain(&error) },
        })?;
        let link: XdpLink = xdp.take_link(id).map_err(|error| AttachError::Failed {
            interface: interface.clone(),
            hook: Hook::Ingress,
            reason: error.to_string(),
        })?;
        // Without BPF links, the attachment would outlive the agent.
        FdLink::try_from(link)
            .map_err(|error| AttachError::XdpUnsupported { interface, reason: error.to_string() })
    }

    /// Attaches a program by a TCX link at a place of the chain, or by a clsact filter on kernels without TCX.
    pub(super) fn attach_tc(
        &mut self,
        interface: &str,
        name: ProgramName,
        hook: Hook,
        place: LinkOrder,
    ) -> Result<(SchedClassifierLink, Mode), AttachError> {
        let kind = match hook {
            Hook::Ingress => TcAttachType::Ingress,
            Hook::Egress => TcAttachType::Egress,
        };
        let failed = |error: ProgramError| match errno(&error) {
            Some(libc::ENODEV) => AttachError::Gone { interface: interface.into() },
            _ => AttachError::Failed { interface: interface.into(), hook, reason: chain(&error) },
        };
        let program = self.classifier(name)?;
        // The attempt shows whether the kernel has TCX.
        let place = TcAttachOptions::TcxOrder(place);
        let (id, mode) = match program.attach_with_options(interface, kind, place) {
            Ok(id) => (id, Mode::Tcx),
            Err(error) if matches!(errno(&error), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                // The clsact qdisc may exist already. Other errors recur when the filter is added.
                let _ = tc::qdisc_add_clsact(interface);
                let options =
                    NlOptions { priority: PRIORITY, handle: TcHandle::new(0, HANDLE), classid: None };
                let id = program
                    .attach_with_options(interface, kind, TcAttachOptions::Netlink(options))
                    .map_err(failed)?;
                (id, Mode::Clsact)
            }
            Err(error) => return Err(failed(error)),
        };
        let link = program.take_link(id).map_err(failed)?;
        Ok((link, mode))
    }
}

/// Removes the clsact filters of an agent that was killed. The kernel has already removed its links.
///
/// The filters are found by the names of the programs. On a kernel without TCX this would also remove the
/// filters of another agent in the same network namespace.
pub fn remove_stale_filters(interface: &str) {
    let hooks = [
        (TcAttachType::Ingress, [ProgramName::In, ProgramName::InIp]),
        (TcAttachType::Egress, [ProgramName::Out, ProgramName::OutIp]),
    ];
    for (hook, programs) in hooks {
        for program in programs {
            // An error means that there is no such filter.
            if tc::qdisc_detach_program(interface, hook, program.name()).is_ok() {
                tracing::info!("{interface}: removed filter {} of an earlier agent", program.name());
            }
        }
    }
}

/// Priority and handle of our clsact filters. Other programs use 1 or 49152 by default.
const PRIORITY: u16 = 0xf19;
const HANDLE: u16 = 0xf19;
