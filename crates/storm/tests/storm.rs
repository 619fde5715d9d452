//! A short socket storm: thousands of real connections over a lossy link, both ends compared with both
//! kernels. `cargo xtask storm` runs a long one.

use std::path::Path;

use storm::{Impairment, Options};

#[test]
#[ignore = "needs root"]
fn every_difference_is_explained() {
    let seed = fastrand::u64(..);
    let options = Options {
        connections: 4_000,
        impairment: Impairment { seed, loss: 1.0, duplicates: 1.0, reorder: 1.0 },
        finwait: storm::built_finwait().expect("finwait"),
        conntrack: true,
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("storm"),
    };
    let report = storm::run(&options, |_| {}).expect("a storm (root needed)");
    println!("seed {seed}\n{report}");
    assert_eq!(report.unexplained(), 0, "seed {seed}, capture in {}:\n{report}", options.folder.display());
    // Too few checks would prove nothing.
    assert!(report.as_planned * 10 > report.connections * 9, "{report}");
    assert!(
        report.local.agreed > report.connections && report.closes.agreed > report.connections,
        "{report}"
    );
    assert!(report.conntrack.as_ref().is_some_and(|checks| checks.agreed > report.connections), "{report}");
}
