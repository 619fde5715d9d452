//! Local ports that run out.

use std::time::Duration;

use super::{DoctorFinding, FindingKind, Likelihood, PER_KIND};
use crate::output::duration;
use crate::view::{PortBudget, Ports};

/// The destinations for which ports run out soon, or are nearly all taken.
pub(super) fn findings(ports: &Ports) -> Vec<DoctorFinding> {
    let soon = |budget: &PortBudget| budget.exhausted_in_ms.filter(|&ms| ms < SOON.as_millis() as u64);
    let few = |budget: &PortBudget| budget.free * FEW_PART <= budget.capacity();
    let mut short: Vec<_> =
        ports.destinations.iter().filter(|budget| soon(budget).is_some() || few(budget)).collect();
    short.sort_by_key(|budget| (soon(budget).unwrap_or(u64::MAX), budget.free));
    short.truncate(PER_KIND);
    short.into_iter().map(|budget| finding(ports, budget, soon(budget))).collect()
}

fn finding(ports: &Ports, budget: &PortBudget, left_ms: Option<u64>) -> DoctorFinding {
    let at_most = if ports.bound_complete { "" } else { "at most " };
    let left = left_ms.map_or_else(String::new, |ms| format!(", which suffice for {}", duration(ms as f64)));
    let summary = format!(
        "{} has {at_most}{} of {} local ports left for {}{left}",
        budget.local_address,
        budget.free,
        budget.capacity(),
        budget.remote()
    );
    let evidence = vec![
        format!("{} ports of open connections, {} in TIME-WAIT", budget.live, budget.time_wait),
        format!(
            "{:.1} connections opened a second, {:.1} ports given back by TIME-WAIT",
            budget.opening_per_second, budget.expiring_per_second
        ),
        format!(
            "ip_local_port_range {} to {}: {} reserved, {} bound",
            ports.first, ports.last, ports.reserved, ports.bound
        ),
    ];
    let confidence = if left_ms.is_some() { Likelihood::High } else { Likelihood::Medium };
    DoctorFinding::new(FindingKind::PortExhaustion, confidence, summary, evidence)
}

/// Within this time a person should do something.
const SOON: Duration = Duration::from_secs(3600);
/// A tenth of the ports is few.
const FEW_PART: u32 = 10;
