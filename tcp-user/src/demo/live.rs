//! The demonstration itself: two hosts, a cable, the kernel programs, and connections closed in every way.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use tcp_common::flow::Closer;
use tcp_common::{End, Endpoint, Flow, FlowKey};

use super::table::{self, Row, Seen};
use crate::agent::privileges;
use crate::clock::monotonic_ns;
use crate::kernel::{Attachment, Ingress, Kernel, LoadOptions};
use crate::lab::{Family, Lab, Played, Scenario};
use crate::view::describe::client_end;

/// Performs it. Returns whether everything agreed.
pub(super) fn run(ingress: Ingress) -> Result<bool> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    progress.set_message("making two hosts and a cable");
    let lab = Lab::new().context("making two network namespaces")?;
    progress.set_message("loading the kernel programs: the verifier walks every path through them");
    let mut kernel = Kernel::load(&LoadOptions::default()).map_err(privileges::explain)?;
    let attachment = attach(&lab, &mut kernel, ingress)?;
    let started = Instant::now();
    let mut disagreements = 0;
    for family in Family::ALL.into_iter().filter(|&family| lab.supports(family)) {
        progress.set_message(format!(
            "opening connections and closing them in every way, {}",
            table::name(family)
        ));
        let played = Scenario::perform_all(&lab, family).into_iter().collect::<Result<Vec<_>, _>>()?;
        let rows = compare(&lab, &kernel, &played)?;
        disagreements += rows.iter().filter(|row| !row.agrees()).count();
        let place = format!(
            "seen at {} ({} on ingress, {} on egress)",
            attachment.interface, attachment.ingress, attachment.egress
        );
        progress.suspend(|| table::print(family, &place, &rows))?;
    }
    progress.finish_and_clear();
    let counters = kernel.counters()?;
    let ignored: u64 = counters.ignored.iter().sum();
    let verdict = match disagreements {
        0 => "both ends agree with their kernels everywhere".to_owned(),
        count => format!("{count} DISAGREE"),
    };
    let seconds = started.elapsed().as_secs_f32();
    anstream::println!(
        "{} packets seen = {} tracked + {ignored} ignored, {seconds:.1} s, {verdict}",
        counters.seen,
        counters.tracked
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

/// Our states beside the kernels', read again while anything is still in motion.
fn compare(lab: &Lab, kernel: &Kernel, played: &[Played]) -> Result<Vec<Row>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut rows = Vec::new();
        for play in played {
            rows.push(Row {
                scenario: play.scenario,
                ours: find(kernel, play.client, play.server),
                kernel: lab.states(play.client, play.server)?,
            });
        }
        if rows.iter().all(Row::agrees) || Instant::now() > deadline {
            return Ok(rows);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn find(kernel: &Kernel, client: SocketAddr, server: SocketAddr) -> Option<Seen> {
    let family = if client.is_ipv4() { 4 } else { 6 };
    let (key, client_is) = FlowKey::new(endpoint(client), endpoint(server), 0, family);
    let mut flow: Flow = kernel.table().entries().find(|entry| entry.key == key)?.flow;
    flow.tick(monotonic_ns(), kernel.rules());
    let name = |end: End| if end == client_end(&key, &flow) { "client" } else { "server" };
    Some(Seen {
        client: flow.state(client_is),
        server: flow.state(client_is.peer()),
        kind: flow.close_kind().name(),
        closer: match flow.closer() {
            Closer::None => "none",
            Closer::One(end) => name(end),
            Closer::Both => "both",
        },
        incarnation: flow.incarnation,
    })
}

fn endpoint(address: SocketAddr) -> Endpoint {
    match address.ip() {
        IpAddr::V4(v4) => Endpoint::v4(v4.octets(), address.port()),
        IpAddr::V6(v6) => Endpoint::v6(v6.octets(), address.port()),
    }
}
