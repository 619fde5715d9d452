//! No test decides by a time: an assertion may read a clock only as a deadline against hanging, and then its message says
//! that something was "waited for in vain".

mod sources;

use std::fs;
use std::path::Path;

use sources::rust_files;

const TESTS: [&str; 5] = ["tcp-common/tests", "tcp-user/tests", "fuzz/tests", "crates", "xtask/src"];
const CLOCKS: [&str; 3] = ["elapsed()", "Instant::now()", "SystemTime::now()"];
const DEADLINE: &str = "in vain";

#[test]
fn assertions_read_a_clock_only_as_a_deadline() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut assertions, mut faults) = (0, Vec::new());
    for folder in TESTS {
        for file in rust_files(&root.join(folder)) {
            let text = fs::read_to_string(&file).expect("a source file");
            for assertion in assertions_of(&text) {
                assertions += 1;
                if decides_by_a_clock(assertion) {
                    faults.push(format!("{}: {assertion}", file.display()));
                }
            }
        }
    }
    assert!(assertions > 500, "only {assertions} assertions were found");
    assert!(faults.is_empty(), "these assertions decide by a clock: {faults:#?}");
}

fn decides_by_a_clock(assertion: &str) -> bool {
    CLOCKS.iter().any(|clock| assertion.contains(clock)) && !assertion.contains(DEADLINE)
}

/// Each text from `assert` to the end of its statement.
fn assertions_of(text: &str) -> impl Iterator<Item = &str> {
    let macros = ["assert!(", "assert_eq!(", "assert_ne!("].into_iter();
    macros.flat_map(|name| text.match_indices(name)).map(|(at, _)| {
        let rest = &text[at..];
        &rest[..rest.find(";\n").unwrap_or(rest.len())]
    })
}

#[test]
fn a_deadline_is_no_decision() {
    assert!(decides_by_a_clock("assert!(begun.elapsed() < LIMIT)"));
    assert!(!decides_by_a_clock("assert!(begun.elapsed() < LIMIT, \"waited in vain for {what}\")"));
    let found: Vec<_> = assertions_of("assert!(a);\nlet b = 1;\nassert_eq!(\n    b,\n    1\n);\n").collect();
    assert_eq!(found, ["assert!(a)", "assert_eq!(\n    b,\n    1\n)"]);
}
