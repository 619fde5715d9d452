//! Mutation tests: deliberate faults in the rules, each of which the tests must notice.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::command::{call, root, target_dir};

/// The tests that must notice a fault in the rules. The golden table is not one of them, because it notices
/// every change.
const RULES: [&str; 4] = ["scenarios", "late", "adopted", "properties"];
/// The tests that must notice a fault in the protocol of the flow table. They run every interleaving of a few
/// threads.
const PROTOCOL: [&str; 1] = ["table_model"];

#[derive(Deserialize)]
struct File {
    mutant: Vec<Mutant>,
}

/// One fault: `find`, once in `tcp-common/src/{file}`, becomes `replace`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    id: String,
    fault: String,
    file: String,
    find: String,
    replace: String,
}

/// Puts every fault (or those whose id begins with `only`) into a copy of tcp-common and runs the tests
/// there.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let mutants = load()?;
    let chosen: Vec<_> = mutants.iter().filter(|m| only.is_none_or(|only| m.id.starts_with(only))).collect();
    ensure!(!chosen.is_empty(), "no mutant's id begins so: they are in conformance/mutants.toml");
    let copy = Copy::make()?;
    let tests: BTreeSet<_> = chosen.iter().flat_map(|mutant| mutant.tests()).copied().collect();
    let failing = copy.first_failing(&tests.into_iter().collect::<Vec<_>>())?;
    ensure!(failing.is_none(), "the tests fail without any fault: nothing can be told");
    let mut survivors = Vec::new();
    for mutant in &chosen {
        let faulty = mutant.apply()?;
        copy.write(&mutant.file, &faulty)?;
        let noticed = copy.first_failing(mutant.tests()).with_context(|| format!("mutant {}", mutant.id))?;
        copy.write(&mutant.file, &mutant.source()?)?;
        println!("{:<20}{:<13}{}", mutant.id, noticed.unwrap_or("SURVIVES"), mutant.fault);
        if noticed.is_none() {
            survivors.push(mutant.id.as_str());
        }
    }
    if !survivors.is_empty() {
        bail!("no test notices {survivors:?}: a scenario or a property is missing");
    }
    println!("{} faults, each noticed", chosen.len());
    Ok(())
}

fn load() -> Result<Vec<Mutant>> {
    let path = root().join("conformance/mutants.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(toml::from_str::<File>(&text).context("conformance/mutants.toml")?.mutant)
}

impl Mutant {
    fn tests(&self) -> &'static [&'static str] {
        if self.file.starts_with("table/") { &PROTOCOL } else { &RULES }
    }

    fn source(&self) -> Result<String> {
        let path = root().join("tcp-common/src").join(&self.file);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Returns the faulty source.
    fn apply(&self) -> Result<String> {
        let source = self.source()?;
        let count = source.matches(&self.find).count();
        ensure!(
            count == 1,
            "mutant {}: its text is {count} times in {}, not once: the rule has moved, move the mutant with it",
            self.id,
            self.file
        );
        Ok(source.replace(&self.find, &self.replace))
    }
}

/// A workspace of tcp-common and its test support, under the target folder.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn make() -> Result<Copy> {
        let copy = Copy { folder: root().join(target_dir()).join("mutants") };
        if copy.folder.join("tcp-common").exists() {
            fs::remove_dir_all(copy.folder.join("tcp-common"))?;
        }
        for folder in ["tcp-common", "crates/testkit", "conformance"] {
            copy_folder(&root().join(folder), &copy.folder.join(folder))?;
        }
        let workspace = fs::read_to_string(root().join("Cargo.toml"))?;
        let alone = workspace.lines().map(|line| {
            if line.starts_with("members = ") {
                "members = [\"tcp-common\", \"crates/testkit\"]\n".to_owned()
            } else {
                format!("{line}\n")
            }
        });
        fs::write(copy.folder.join("Cargo.toml"), alone.collect::<String>())?;
        fs::copy(root().join("Cargo.lock"), copy.folder.join("Cargo.lock"))?;
        Ok(copy)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.folder.join("tcp-common/src").join(file), text)
            .with_context(|| format!("writing {file}"))
    }

    /// Returns the first test that fails. A fault that does not compile is an error.
    fn first_failing(&self, tests: &[&'static str]) -> Result<Option<&'static str>> {
        for &test in tests {
            call(self.cargo(test).arg("--no-run")).context("the fault does not compile")?;
            if !self.cargo(test).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
                return Ok(Some(test));
            }
        }
        Ok(None)
    }

    fn cargo(&self, test: &str) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["test", "--quiet", "--package", "tcp-common", "--test", test])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .env("RUSTFLAGS", "--cap-lints allow")
            // One failing case is enough. The shortest one is not needed.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0");
        command
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_still_finds_its_rule() {
        let mutants = load().expect("the list");
        for mutant in &mutants {
            assert_ne!(
                mutant.apply().expect("its text"),
                mutant.source().expect("its file"),
                "{}",
                mutant.id
            );
        }
        for rule in 1..=29 {
            let name = format!("R{rule}");
            let named = |m: &Mutant| m.id == name || m.id.starts_with(&format!("{name}-"));
            assert!(mutants.iter().any(named), "{name} has no mutant");
        }
    }
}
