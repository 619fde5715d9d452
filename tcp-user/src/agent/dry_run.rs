//! `finwait run --dry-run`: what would be attached where, and why, found out without attaching anything.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use super::interfaces::{Attachments, Interface};
use super::{load_programs, netdev};
use crate::kernel::{AttachError, Ingress, Mode, describe_program, has_tcx};
use crate::options::Options;
use crate::output::{Palette, Table};

/// Loads the programs, since only the kernel can say that it takes them, lets go of them, and prints what would sit where.
/// Fails as the agent would.
pub(super) fn run(options: &Options, attachments: &Attachments, present: &[Interface]) -> Result<()> {
    drop(load_programs(options)?);
    let plans: Vec<_> = present
        .iter()
        .filter(|interface| attachments.is_selected(interface))
        .map(|interface| (interface, plan(interface, attachments.ingress_of(interface))))
        .collect();
    let mut table = Table::new(["INTERFACE", "INGRESS", "EGRESS", "WHY"]);
    for (interface, plan) in &plans {
        let (ingress, egress, why) = match plan {
            Ok((mode, why)) => (mode.to_string(), tc_mode(interface).to_string(), why.clone()),
            Err(refusal) => ("-".into(), "-".into(), refusal.to_string()),
        };
        table.row([interface.name.clone(), ingress, egress, why]);
    }
    let mut out = io::stdout().lock();
    table.write(&mut out, Palette::for_stdout())?;
    writeln!(out, "\nThe programs load here. Nothing was attached.")?;
    match plans.into_iter().map(|(_, plan)| plan).reduce(Result::or) {
        Some(plan) => plan.map(drop).context("no interface can be watched"),
        None => super::nothing_is_up(),
    }
}

/// How ingress would be watched, and why so.
fn plan(interface: &Interface, wish: Ingress) -> Result<(Mode, String), AttachError> {
    let by_tc = |why: &str| Ok((tc_mode(interface), why.to_owned()));
    if !wish.tries_xdp(interface.physical) {
        return by_tc(match wish {
            Ingress::Tc if interface.physical => "TC as asked",
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
            return Ok((Mode::XdpNative, "the driver has native XDP, and nobody sits there".into()));
        }
        (None, Err(_)) => {
            return Ok((
                Mode::XdpNative,
                "nobody sits there; whether the driver has native XDP will show".into(),
            ));
        }
    };
    match (wish, &refusal) {
        (Ingress::Xdp, _) => Err(refusal),
        (_, AttachError::XdpTaken { owner, .. }) => by_tc(&format!("XDP is taken by {owner}")),
        _ => by_tc("the driver has no native XDP"),
    }
}

fn tc_mode(interface: &Interface) -> Mode {
    if has_tcx(&interface.name) { Mode::Tcx } else { Mode::Clsact }
}
