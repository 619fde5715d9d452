//! `finwait run --dry-run` reports what the agent would do, and changes nothing.

mod common;
mod foreign;

use std::process::{Command, Output};

use common::{Agent, FINWAIT, Signal};
use finwait::lab::{Host, Lab};
use foreign::{Foreign, attached};

fn dry_run(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Command::new(FINWAIT);
    command.args(["run", "--dry-run", "--max-flows", "1024"]).args(arguments);
    let output = host.run(|| command.output()).expect("entering the namespace").expect("starting it");
    assert_eq!(attached(host, host.interface).iter().filter(|name| name.contains("finwait")).count(), 0);
    output
}

/// Returns the line of an interface: its first three words, and the reason.
fn line(output: &Output, interface: &str) -> ([String; 3], String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.trim_start().starts_with(interface));
    let mut words = line.unwrap_or_else(|| panic!("{interface} in {output:?}")).split_whitespace();
    let modes = std::array::from_fn(|_| words.next().unwrap_or_default().to_owned());
    (modes, words.collect::<Vec<_>>().join(" "))
}

#[test]
#[ignore = "needs root"]
fn the_dry_run_reports_what_the_agent_does() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let server = &lab.server;
    let ours = ["--ingress", "xdp", "-i", server.interface];
    let said = dry_run(server, &ours);
    assert!(said.status.success(), "{said:?}");
    let (modes, why) = line(&said, server.interface);
    assert_eq!(modes, [server.interface, "xdp-native", "tcx"]);
    assert!(why.contains("native XDP"), "{why}");
    let agent = Agent::start(&lab, "dry", &[&ours[..], &["--listen", "127.0.0.1:0"]].concat());
    let status = agent.status();
    let done = status.interfaces.first().expect("an interface");
    assert_eq!(
        [Some(&done.interface), done.ingress.as_ref(), done.egress.as_ref()],
        modes.each_ref().map(Some)
    );
    assert!(agent.stop(Signal::SIGTERM).success());
}

#[test]
#[ignore = "needs root"]
fn an_attached_xdp_program_is_named() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let server = &lab.server;
    let _foreign = Foreign::attach(server);
    let forced = dry_run(server, &["--ingress", "xdp", "-i", server.interface]);
    assert_eq!(forced.status.code(), Some(4), "{forced:?}");
    let (modes, why) = line(&forced, server.interface);
    assert_eq!(modes, [server.interface, "-", "-"]);
    assert!(why.contains("taken by \"foreign\"") && why.contains("--ingress tc"), "{why}");
    let chosen = dry_run(server, &[]);
    assert!(chosen.status.success(), "{chosen:?}");
    for interface in [server.interface, "lo"] {
        assert_eq!(line(&chosen, interface).0, [interface, "tcx", "tcx"]);
    }
    assert_eq!(attached(server, server.interface), ["xdp foreign"]);
}

#[test]
#[ignore = "needs root"]
fn a_driver_without_native_xdp_is_reported() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let said = dry_run(&lab.server, &["--ingress", "xdp", "-i", "lo"]);
    assert_eq!(said.status.code(), Some(4), "{said:?}");
    let (modes, why) = line(&said, "lo");
    assert_eq!(modes, ["lo", "-", "-"]);
    assert!(why.contains("no native XDP"), "{why}");
}

#[test]
#[ignore = "needs root"]
fn without_root_the_missing_capabilities_are_named() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", FINWAIT, "run", "--dry-run"]);
    let said = lab.server.run(|| command.output()).expect("entering the namespace").expect("setpriv");
    assert_eq!(said.status.code(), Some(4), "{said:?}");
    let message = String::from_utf8_lossy(&said.stderr);
    assert!(message.contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON missing"), "{message}");
}
