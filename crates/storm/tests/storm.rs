//! Short socket storms, one in each world: real connections over a lossy link, both ends compared with both
//! kernels. `cargo xtask storm` runs long ones.

use std::path::Path;

use storm::{Impairment, Options, Report, World};

/// Runs a storm, and checks that every difference is explained and that few connections failed.
fn storm(world: World, connections: u64, conntrack: bool) -> Report {
    let seed = fastrand::u64(..);
    let options = Options {
        world,
        connections,
        impairment: Impairment { seed, loss: 1.0, duplicates: 1.0, reorder: 1.0 },
        finwait: storm::built_finwait().expect("finwait"),
        conntrack,
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join(world.name()),
    };
    let report = storm::run(&options, |_| {}).expect("a storm (root needed)");
    println!("{} seed {seed}\n{report}", world.name());
    assert_eq!(report.unexplained(), 0, "seed {seed}, capture in {}:\n{report}", options.folder.display());
    // Too few checks would prove nothing.
    assert!(report.as_planned * 10 > report.connections * 9, "{report}");
    assert!(
        report.local.agreed > report.connections && report.closes.agreed > report.connections,
        "{report}"
    );
    report
}

/// Runs a storm whose hosts send over both cables.
fn storm_over_two_cables(world: World) {
    let [first, second] = storm(world, FEW, false).cables;
    assert!(first > FEW && second > FEW, "{first} and {second} segments");
}

/// Runs a storm with an agent on a third host.
fn storm_with_a_third_host(world: World) -> Report {
    let report = storm(world, FEW, false);
    assert!(report.near.agreed > FEW && report.far.agreed > FEW, "{report}");
    report
}

#[test]
#[ignore = "needs root"]
fn cable() {
    let report = storm(World::Cable, 4_000, true);
    assert!(report.conntrack.as_ref().is_some_and(|checks| checks.agreed > report.connections), "{report}");
}

#[test]
#[ignore = "needs root"]
fn two_cables() {
    storm_over_two_cables(World::TwoCables);
}

#[test]
#[ignore = "needs root"]
fn moving_route() {
    storm_over_two_cables(World::MovingRoute);
}

#[test]
#[ignore = "needs root"]
fn vlan() {
    storm(World::Vlan, FEW, false);
}

#[test]
#[ignore = "needs root"]
fn nat() {
    storm_with_a_third_host(World::Nat);
}

#[test]
#[ignore = "needs root"]
fn drops_resets() {
    let report = storm_with_a_third_host(World::DropsResets);
    let [_, lost, ..] = report.frames;
    assert!(lost > FEW, "the RSTs of a third of the connections, answers to retransmissions: {report}");
}

#[test]
#[ignore = "needs root"]
fn fragments() {
    assert!(storm_with_a_third_host(World::Fragments).fragments > FEW);
}

#[test]
#[ignore = "needs root"]
fn lossy_tap() {
    storm_with_a_third_host(World::LossyTap);
}

/// Connections of a storm that takes seconds.
const FEW: u64 = 250;
