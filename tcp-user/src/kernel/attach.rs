//! Putting programs on interfaces, politely: nothing that another program attached is ever replaced.

use std::fmt;

use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, TcAttachType, XdpMode, tc};

use super::{Kernel, KernelError, ProgramName};

/// The hook that an operator chose for incoming packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Ingress {
    /// Native XDP if the driver supports it and no other program is attached, otherwise TC.
    #[default]
    Auto,
    /// Native XDP or an error.
    Xdp,
    /// TC.
    Tc,
}

impl Ingress {
    /// Whether native XDP is tried on an interface.
    pub fn tries_xdp(self, physical: bool) -> bool {
        match self {
            Ingress::Xdp => true,
            Ingress::Auto => physical,
            Ingress::Tc => false,
        }
    }
}

/// One end of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the two directions of DESIGN's words")]
pub enum Hook {
    Ingress,
    Egress,
}

/// How a program sits on a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Mode {
    XdpNative,
    Tcx,
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

/// Programs on one interface. Dropping it detaches them.
#[derive(Debug)]
pub struct Attachment {
    /// Name when it was attached.
    pub interface: String,
    /// Index of the interface.
    pub index: u32,
    /// How ingress is watched.
    pub ingress: Mode,
    /// How egress is watched.
    pub egress: Mode,
    _links: (IngressLink, SchedClassifierLink),
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop")]
enum IngressLink {
    Xdp(FdLink),
    Tc(SchedClassifierLink),
}

/// Why an interface cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's XDP program is there.
    #[error("{interface}: XDP is taken by {owner}; finwait does not replace it. Use --ingress tc")]
    XdpTaken {
        /// Where.
        interface: String,
        /// By whom.
        owner: String,
    },
    /// The driver has no native XDP.
    #[error("{interface}: its driver has no native XDP ({reason}). Use --ingress tc")]
    XdpUnsupported {
        /// Where.
        interface: String,
        /// The kernel's answer.
        reason: String,
    },
    /// The interface went away meanwhile.
    #[error("{interface}: no such interface; `ip link` lists those there are")]
    Gone {
        /// Which.
        interface: String,
    },
    /// Anything else.
    #[error("{interface}: cannot attach to {hook:?}: {reason}")]
    Failed {
        /// Where.
        interface: String,
        /// Which hook.
        hook: Hook,
        /// The kernel's answer.
        reason: String,
    },
    /// The programs are not there.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Kernel {
    /// Watches both directions of an interface. `ethernet`: it has link-layer headers. `xdp`: try native XDP first.
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
        let (inbound, ingress_mode) = match (xdp, ingress) {
            (Some(Ok(link)), _) => (IngressLink::Xdp(link), Mode::XdpNative),
            (Some(Err(error)), Ingress::Xdp) => return Err(error),
            (Some(Err(_)) | None, _) => {
                let name = if ethernet { ProgramName::In } else { ProgramName::InIp };
                let (link, mode) = self.attach_tc(interface, name, Hook::Ingress)?;
                (IngressLink::Tc(link), mode)
            }
        };
        let name = if ethernet { ProgramName::Out } else { ProgramName::OutIp };
        let (outbound, egress_mode) = self.attach_tc(interface, name, Hook::Egress)?;
        Ok(Attachment {
            interface: interface.into(),
            index,
            ingress: ingress_mode,
            egress: egress_mode,
            _links: (inbound, outbound),
        })
    }

    fn attach_xdp(&mut self, interface: &str, index: u32) -> Result<FdLink, AttachError> {
        let interface = interface.to_owned();
        let xdp = self.xdp(ProgramName::Xdp)?;
        let id = xdp.attach_to_if_index(index, XdpMode::Driver).map_err(|error| match errno(&error) {
            Some(libc::EBUSY | libc::EEXIST) => {
                AttachError::XdpTaken { interface: interface.clone(), owner: "another program".into() }
            }
            Some(libc::ENODEV) => AttachError::Gone { interface: interface.clone() },
            _ => AttachError::XdpUnsupported { interface: interface.clone(), reason: reason(&error) },
        })?;
        let link: XdpLink = xdp.take_link(id).map_err(|error| AttachError::Failed {
            interface: interface.clone(),
            hook: Hook::Ingress,
            reason: error.to_string(),
        })?;
        // A netlink attachment would outlive us: not taken.
        FdLink::try_from(link)
            .map_err(|error| AttachError::XdpUnsupported { interface, reason: error.to_string() })
    }

    fn attach_tc(
        &mut self,
        interface: &str,
        name: ProgramName,
        hook: Hook,
    ) -> Result<(SchedClassifierLink, Mode), AttachError> {
        let kind = match hook {
            Hook::Ingress => TcAttachType::Ingress,
            Hook::Egress => TcAttachType::Egress,
        };
        let failed = |error: ProgramError| match errno(&error) {
            Some(libc::ENODEV) => AttachError::Gone { interface: interface.into() },
            _ => AttachError::Failed { interface: interface.into(), hook, reason: reason(&error) },
        };
        let program = self.classifier(name)?;
        // First in the chain: others may end it. Tried, never judged by the kernel's version.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let (id, mode) = match program.attach_with_options(interface, kind, order) {
            Ok(id) => (id, Mode::Tcx),
            Err(error) if matches!(errno(&error), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                // An existing clsact is fine; any other trouble shows when the filter is added.
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

/// Takes away the filters that an agent left on clsact when it was killed; its links went with it. They are known by the
/// names of the programs: another agent in the same namespace, on a kernel without TCX, would lose its own.
pub fn remove_stale_filters(interface: &str) {
    let hooks = [
        (TcAttachType::Ingress, [ProgramName::In, ProgramName::InIp]),
        (TcAttachType::Egress, [ProgramName::Out, ProgramName::OutIp]),
    ];
    for (hook, programs) in hooks {
        for program in programs {
            // An error means that there is none.
            if tc::qdisc_detach_program(interface, hook, program.name()).is_ok() {
                tracing::info!("{interface}: removed {} of an agent that was killed", program.name());
            }
        }
    }
}

pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        source = cause.source();
    }
    None
}

fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Our place among legacy filters: neither 1 nor 49152, where others are by default.
const PRIORITY: u16 = 0xf19;
const HANDLE: u16 = 0xf19;
