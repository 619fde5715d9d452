//! `finwait demo`: real connections between two hosts on one cable, closed in many ways; our states beside the kernels'.

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use comfy_table::{ContentArrangement, Table as TextTable, presets};
use tcp_common::flow::Closer;
use tcp_common::{CloseKind, End, Endpoint, Flow, FlowKey, State};

use crate::describe::{client_end, monotonic_ns};
use crate::kernel::{Ingress, Kernel, LoadOptions};
use crate::lab::{Family, Lab, Played, Scenario};

/// One row of the table.
struct Row {
    scenario: &'static Scenario,
    ours: Option<Seen>,
    kernel: (State, State),
}

struct Seen {
    client: State,
    server: State,
    kind: CloseKind,
    closer: &'static str,
    incarnation: u32,
}

impl Row {
    fn agrees(&self) -> bool {
        self.ours.as_ref().is_some_and(|ours| {
            socket_state(ours.client) == self.kernel.0
                && socket_state(ours.server) == self.kernel.1
                && ours.kind.name() == self.scenario.kind
                && ours.closer == self.scenario.closer
                && ours.incarnation == self.scenario.incarnation
        })
    }
}

/// Runs it. Returns whether everything agreed.
pub fn run(ingress: Ingress) -> Result<bool> {
    let progress = std::io::stderr().is_terminal();
    let say = |text: &str| {
        if progress {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        }
    };
    say("making two hosts and a cable ...");
    let lab = Lab::new().context("making two network namespaces")?;
    say("loading the kernel programs ...");
    let mut kernel = Kernel::load(&LoadOptions::default())?;
    let interface = lab.server.interface;
    let attachment = lab.server.run(|| {
        let index = nix::net::if_::if_nametoindex(interface).unwrap_or(0);
        kernel.attach(interface, index, true, ingress, true)
    })??;
    say("opening connections and closing them in every way, IPv4 and IPv6 ...");
    let started = Instant::now();
    let mut disagreements = 0;
    let mut families = vec![Family::Ipv4];
    families.extend(lab.supports(Family::Ipv6).then_some(Family::Ipv6));
    let mut out = anstream::stdout().lock();
    for &family in &families {
        let played = Scenario::perform_all(&lab, family).into_iter().collect::<Result<Vec<_>, _>>()?;
        let rows = compare(&lab, &kernel, &played)?;
        say("");
        disagreements += rows.iter().filter(|row| !row.agrees()).count();
        let name = if family == Family::Ipv4 { "IPv4" } else { "IPv6" };
        writeln!(
            out,
            "{name}, seen at {} ({} on ingress, {} on egress)\n",
            interface, attachment.ingress, attachment.egress
        )?;
        writeln!(out, "{}\n", table(&rows))?;
    }
    let counters = kernel.counters()?;
    let ignored: u64 = counters.ignored.iter().sum();
    writeln!(
        out,
        "{} packets seen = {} tracked + {} ignored, {:.1} s, {}",
        counters.seen,
        counters.tracked,
        ignored,
        started.elapsed().as_secs_f32(),
        if disagreements == 0 {
            "both ends agree with their kernels everywhere".to_owned()
        } else {
            format!("{disagreements} DISAGREE")
        }
    )?;
    Ok(disagreements == 0)
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
        kind: flow.close_kind(),
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

/// What a kernel's socket table shows for this state: a listener's part in an open that nobody answered is no socket of
/// the connection.
fn socket_state(state: State) -> State {
    if state == State::Listen { State::Closed } else { state }
}

fn table(rows: &[Row]) -> TextTable {
    let mut table = TextTable::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "",
        "CLOSE",
        "CLOSER",
        "CLIENT",
        "ITS KERNEL",
        "SERVER",
        "ITS KERNEL",
        "WHAT HAPPENED",
    ]);
    for row in rows {
        let mark = if row.agrees() { "ok" } else { "NO" };
        let (client, server, kind, closer) = match &row.ours {
            Some(ours) => (ours.client.rfc_name(), ours.server.rfc_name(), ours.kind.name(), ours.closer),
            None => ("not seen", "not seen", "-", "-"),
        };
        let (their_client, their_server) = (row.kernel.0.rfc_name(), row.kernel.1.rfc_name());
        table.add_row([mark, kind, closer, client, their_client, server, their_server, row.scenario.summary]);
    }
    table
}
