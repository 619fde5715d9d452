//! `finwait run --dry-run`: determines without attaching anything what would be attached where, and why.

use std::io::{self, Write as _};

use super::error::AgentError;
use super::interfaces::{Attachments, Interface};
use super::{load_programs, netdev};
use crate::kernel::{AttachError, Ingress, Mode, describe_program, has_tcx};
use crate::options::Options;
use crate::output::{Palette, TextTable};

/// Loads the programs, because only the kernel can verify them, unloads them and prints a line for each
/// selected interface. Fails where the agent would.
pub(super) fn run(
    options: &Options,
    attachments: &Attachments,
    present: &[Interface],
) -> Result<(), AgentError> {
    drop(load_programs(options)?);
    let plans: Vec<_> = present
        .iter()
        .filter(|interface| attachments.is_selected(interface))
        .map(|interface| (interface, plan(interface, attachments.ingress_of(interface))))
        .collect();
    let mut table = TextTable::new(["INTERFACE", "INGRESS", "EGRESS", "WHY"]);
    for (interface, plan) in &plans {
        let (ingress, egress, why) = match plan {
            Ok((mode, why)) => (mode.to_string(), tc_mode(interface).to_string(), why.clone()),
            Err(refusal) => ("-".into(), "-".into(), refusal.to_string()),
        };
        table.row([interface.name.clone(), ingress, egress, why]);
    }
    let mut out = io::stdout().lock();
    let printed = table
        .write(&mut out, Palette::for_stdout())
        .and_then(|()| writeln!(out, "\nThe programs load here. Nothing was attached."));
    printed.map_err(AgentError::system("writing the plan"))?;
    match plans.into_iter().map(|(_, plan)| plan).reduce(Result::or) {
        Some(plan) => plan.map(drop).map_err(AgentError::NothingWatchable),
        None => Err(AgentError::NothingUp),
    }
}

/// Ingress mode of an interface, and the reason for it.
fn plan(interface: &Interface, ingress: Ingress) -> Result<(Mode, String), AttachError> {
    let by_tc = |why: &str| Ok((tc_mode(interface), why.to_owned()));
    if !ingress.tries_xdp(interface.physical) {
        return by_tc(match ingress {
            Ingress::Tc if interface.physical => "TC as requested",
            _ => "virtual: TC costs less there than XDP",
        });
    }
    let refusal = match (interface.xdp_program, netdev::has_native_xdp(interface.index)) {
        (Some(id), _) => {
            AttachError::XdpTaken { interface: interface.name.clone(), owner: describe_program(id) }
        }
        (None, Ok(false)) => AttachError::XdpUnsupported {
            interface: interface.name.clone(),
            reason: "NETDEV_XDP_ACT_BASIC is not set".into(),
        },
        (None, Ok(true)) => {
            return Ok((
                Mode::XdpNative,
                "the driver has native XDP, and no other program is attached".into(),
            ));
        }
        (None, Err(_)) => {
            return Ok((
                Mode::XdpNative,
                "no other program is attached; whether the driver has native XDP shows at the start".into(),
            ));
        }
    };
    match (ingress, &refusal) {
        (Ingress::Xdp, _) => Err(refusal),
        (_, AttachError::XdpTaken { owner, .. }) => by_tc(&format!("XDP is taken by {owner}")),
        _ => by_tc("the driver has no native XDP"),
    }
}

fn tc_mode(interface: &Interface) -> Mode {
    if has_tcx(&interface.name) { Mode::Tcx } else { Mode::Clsact }
}
