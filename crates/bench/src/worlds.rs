//! Pairs of hosts that differ only in the tracker of the server's connections.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use finwait::lab::Lab;
use nix::sys::signal::Signal;

use crate::agent::Agent;
use crate::bare;
use crate::bpf::ProgramType;
use crate::hosts;
use crate::size::MSL;

/// Two hosts on one link, with a tracker on the server.
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) lab: Lab,
    agent: Option<Agent>,
    _link: Option<OwnedFd>,
}

/// The baseline, and the reference for finwait.
pub(crate) const NOTHING: &str = "no tracker";
pub(crate) const CONNTRACK: &str = "nf_conntrack";

impl World {
    /// Creates a pair without a tracker, and pairs with finwait on TC, an XDP program that only passes,
    /// finwait on XDP, nf_conntrack.
    pub(crate) fn all(finwait: &Path) -> Result<Vec<World>> {
        let agent = |lab: &Lab, ingress| -> Result<Option<Agent>> {
            let interface = lab.server.interface;
            let agent =
                lab.server.run(|| Agent::start(finwait, interface, ingress, CONNECTIONS, MSL, &[]))??;
            agent.process().signal(Signal::SIGSTOP)?;
            Ok(Some(agent))
        };
        let world = |name, ingress: Option<&'static str>| -> Result<World> {
            let lab = Lab::new()?;
            for host in [&lab.client, &lab.server] {
                host.run(|| SETTINGS.iter().try_for_each(|(path, value)| fs::write(path, value)))?
                    .context("making room for connections")?;
            }
            let agent = ingress.map(|ingress| agent(&lab, ingress)).transpose()?.flatten();
            Ok(World { name, lab, agent, _link: None })
        };
        let pass = bare::pass(ProgramType::Xdp)?;
        let mut passing = world("XDP pass only", None)?;
        let server = &passing.lab.server;
        passing._link =
            Some(server.run(|| pass.attach_xdp(nix::net::if_::if_nametoindex(server.interface)?))??);
        let worlds = vec![
            world(NOTHING, None)?,
            world("finwait TC", Some("tc"))?,
            passing,
            world("finwait XDP", Some("xdp"))?,
            world(CONNTRACK, None)?,
        ];
        let tracked = worlds.last().context("five worlds")?;
        tracked.lab.server.run(|| hosts::nft(TRACKED).and_then(|()| hosts::cheapest()))??;
        Ok(worlds)
    }

    /// Lets the agent run during `work`. Returns its CPU time in ns, 0 without an agent.
    pub(crate) fn watched<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
        let Some(agent) = &self.agent else { return Ok((work()?, 0.0)) };
        agent.process().signal(Signal::SIGCONT)?;
        // The agent handles its overdue timers first.
        std::thread::sleep(REST);
        let before = agent.process().cpu_ns()?;
        let result = work()?;
        std::thread::sleep(REST);
        let cpu = agent.process().cpu_ns()? - before;
        agent.process().signal(Signal::SIGSTOP)?;
        Ok((result, cpu))
    }
}

/// Long enough to read all events.
const REST: Duration = Duration::from_millis(200);
/// Capacity of the agents' tables.
const CONNECTIONS: u32 = 1 << 18;
const SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000"),
    ("/proc/sys/net/ipv4/tcp_tw_reuse", "1"),
    ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "1000000"),
    ("/proc/sys/net/core/somaxconn", "8192"),
];
const TRACKED: &str = "table ip bench_track {
 chain arrivals {
  type filter hook input priority 0
  ct state invalid counter
 }
}
";
