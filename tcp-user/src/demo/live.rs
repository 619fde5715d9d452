//! The live demonstration: two hosts on one link, the kernel programs, and connections closed in every way.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use tcp_common::flow::Closer;
use tcp_common::{End, Endpoint, Flow, FlowKey};

use super::table::{self, Observation, Row};
use crate::agent::privileges;
use crate::clock::monotonic_ns;
use crate::kernel::{Attachment, Ingress, Kernel, LoadOptions};
use crate::lab::{Lab, Played, Scenario};
use crate::view::describe::client_end;

/// Runs the demonstration. Returns whether every row agrees.
pub(super) fn run(ingress: Ingress, progress: &ProgressBar) -> Result<bool> {
    progress.enable_steady_tick(Duration::from_millis(100));
    progress.set_message("creating two network namespaces");
    let lab = Lab::new().context("creating two network namespaces")?;
    progress.set_message("loading the kernel programs (the verifier takes some seconds)");
    let mut kernel = Kernel::load(&LoadOptions::default()).map_err(privileges::explain)?;
    let attachment = attach(&lab, &mut kernel, ingress)?;
    let started = Instant::now();
    let mut disagreements = 0;
    for family in lab.families() {
        progress.set_message(format!("opening and closing {} connections", table::name(family)));
        let played = Scenario::perform_all(&lab, family).into_iter().collect::<Result<Vec<_>, _>>()?;
        let rows = compare(&lab, &kernel, &played)?;
        disagreements += rows.iter().filter(|row| !row.agrees()).count();
        let source = format!(
            "observed on {} ({} on ingress, {} on egress)",
            attachment.interface, attachment.ingress, attachment.egress
        );
        progress.suspend(|| table::print(family, &source, &rows))?;
    }
    progress.finish_and_clear();
    let counters = kernel.counters()?;
    let ignored: u64 = counters.ignored.iter().sum();
    let verdict = match disagreements {
        0 => "all states agree with both kernels".to_owned(),
        count => format!("{count} rows DISAGREE"),
    };
    let seconds = started.elapsed().as_secs_f32();
    anstream::println!(
        "{} packets seen = {} tracked + {ignored} ignored, {seconds:.1} s, {verdict}",
        counters.packets_seen(),
        counters.packets_tracked()
    );
    Ok(disagreements == 0)
}

fn attach(lab: &Lab, kernel: &mut Kernel, ingress: Ingress) -> Result<Attachment> {
    let interface = lab.server.interface;
    Ok(lab.server.run(|| {
        let index = nix::net::if_::if_nametoindex(interface).unwrap_or(0);
        kernel.attach(interface, index, true, ingress, true)
    })??)
}

/// Compares finwait with both kernels, repeatedly until all rows agree or five seconds have passed.
fn compare(lab: &Lab, kernel: &Kernel, played: &[Played]) -> Result<Vec<Row>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut rows = Vec::new();
        for play in played {
            rows.push(Row {
                scenario: play.scenario,
                observed: find(kernel, play.client, play.server),
                kernel: lab.states(play.client, play.server)?,
            });
        }
        if rows.iter().all(Row::agrees) || Instant::now() > deadline {
            return Ok(rows);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn find(kernel: &Kernel, client: SocketAddr, server: SocketAddr) -> Option<Observation> {
    let family = if client.is_ipv4() { 4 } else { 6 };
    let (key, client_is) = FlowKey::new(endpoint(client), endpoint(server), 0, family);
    let mut flow: Flow = kernel.table().entries().find(|entry| entry.key == key)?.flow;
    flow.tick(monotonic_ns(), kernel.rules());
    let name = |end: End| if end == client_end(&key, &flow) { "client" } else { "server" };
    Some(Observation {
        client: flow.state(client_is),
        server: flow.state(client_is.peer()),
        kind: flow.close_kind().name(),
        closer: match flow.closer() {
            Closer::None => "none",
            Closer::One(end) => name(end),
            Closer::Both => "both",
        },
        incarnation: flow.incarnation(),
    })
}

fn endpoint(address: SocketAddr) -> Endpoint {
    match address.ip() {
        IpAddr::V4(v4) => Endpoint::v4(v4.octets(), address.port()),
        IpAddr::V6(v6) => Endpoint::v6(v6.octets(), address.port()),
    }
}
