//! Lists the scenario files, so that they are embedded in the tests that use them.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/scenarios");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("conformance/scenarios is part of the project")
        .filter_map(|entry| entry.expect("a file").file_name().into_string().ok())
        .filter(|name| name.ends_with(".pkt"))
        .collect();
    names.sort();
    let mut list =
        "/// Name and text of every scenario file.\npub const FILES: &[(&str, &str)] = &[\n".to_owned();
    for name in names {
        _ = writeln!(list, "    ({name:?}, include_str!({:?})),", folder.join(&name));
    }
    list.push_str("];\n");
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("scenario_files.rs");
    fs::write(out, list).expect("writing the list");
}
