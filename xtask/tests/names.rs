//! Checks that no two types of the product crates share a name, except a module's `Error` and `Options`.

mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sources::rust_files;

const PRODUCT: [&str; 3] = ["tcp-common/src", "tcp-ebpf/src", "tcp-user/src"];
const MAY_REPEAT: [&str; 2] = ["Error", "Options"];

#[test]
fn no_two_types_share_a_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in PRODUCT {
        for file in rust_files(&root.join(folder)) {
            let text = fs::read_to_string(&file).expect("a source file");
            for (number, line) in (1..).zip(text.lines()) {
                if let Some(name) = declared_type(line) {
                    let place = file.strip_prefix(&root).expect("below the project").display();
                    types.entry(name.to_owned()).or_default().push(format!("{place}:{number}"));
                }
            }
        }
    }
    assert!(types.len() > 200, "only {} types were found", types.len());
    types.retain(|name, places| places.len() > 1 && !MAY_REPEAT.contains(&name.as_str()));
    assert!(types.is_empty(), "types that share a name: {types:#?}");
}

/// Returns the name of the type that an unindented line declares. Types inside functions, and associated
/// types, are indented.
fn declared_type(line: &str) -> Option<&str> {
    let mut words = line.split([' ', '<', '(', '{', ';', ':', '=']).filter(|word| !word.is_empty());
    if line.starts_with([' ', '/', '#']) {
        return None;
    }
    let mut word = words.next()?;
    while matches!(word, "pub" | "crate)" | "super)" | "crate" | "super" | "unsafe") {
        word = words.next()?;
    }
    if matches!(word, "struct" | "enum" | "union" | "trait" | "type") { words.next() } else { None }
}

#[test]
fn declarations_are_found() {
    assert_eq!(declared_type("pub(crate) struct Slot<K> {"), Some("Slot"));
    assert_eq!(declared_type("type Pair = (u8, u8);"), Some("Pair"));
    assert_eq!(declared_type("    type Key = u8;"), None);
    assert_eq!(declared_type("pub fn struct_of() {}"), None);
}
