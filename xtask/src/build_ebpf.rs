//! The kernel object: committed, so that a user needs no BPF toolchain; rebuilt here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{call, exists, is_root, root};
use crate::{debian, rustc_wrapper};

/// Debian's packages of the compiler for the kernel programs.
const TOOLCHAIN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const OBJECT: &str = "tcp-user/bpf/finwait.bpf.o";
const SOURCES: &str = "tcp-user/bpf/finwait.bpf.sources";
const TARGET: &str = "tcp-ebpf/target/object";
const BUILT: &str = "tcp-ebpf/target/object/bpfel-unknown-none/release/finwait-ebpf";

/// Builds the object, or with `check` compares a fresh build with the committed one.
pub(crate) fn build(check: bool) -> Result<()> {
    debian::install(&[&TOOLCHAIN[..], &["llvm-22-dev", "llvm-22"]].concat())?;
    if !exists("bpf-linker") {
        call(
            Command::new(env!("CARGO"))
                .args(["install", "bpf-linker", "--version", "0.13.0", "--locked"])
                .args(["--no-default-features", "--features", "llvm-22"])
                .env("LLVM_PREFIX", "/usr/lib/llvm-22"),
        )?;
    }
    call(cargo("/usr/bin/cargo")?.args(["build", "--release", "-Z", "build-std=core"]))?;
    // BTF stays: maps and line information need it. Debug sections go.
    let stripped = root().join("tcp-ebpf/target/finwait.bpf.o");
    call(
        Command::new("/usr/lib/llvm-22/bin/llvm-objcopy")
            .args(["--strip-debug"])
            .args([root().join(BUILT), stripped.clone()]),
    )?;
    if check {
        if fs::read(&stripped)? != fs::read(root().join(OBJECT))? {
            bail!("{OBJECT} is not what the sources give: run `cargo xtask build-ebpf` and commit it");
        }
        println!("{OBJECT} is what the sources give, byte for byte");
        return Ok(());
    }
    fs::copy(&stripped, root().join(OBJECT)).context("writing the object")?;
    fs::write(root().join(SOURCES), sources_checksum()?).context("writing the checksum of the sources")?;
    println!("wrote {OBJECT}");
    Ok(())
}

/// Checks the format of tcp-ebpf, which is outside the workspace.
pub(crate) fn check_format() -> Result<()> {
    let manifest = root().join("tcp-ebpf/Cargo.toml");
    call(Command::new(env!("CARGO")).args(["fmt", "--check", "--manifest-path"]).arg(manifest))
}

/// Runs clippy on tcp-ebpf, with the toolchain that builds it. A warning is a failure. As root it installs
/// the packages.
///
/// # Errors
///
/// Fails without root if a package of the toolchain is missing, and names the packages to install.
pub(crate) fn clippy() -> Result<()> {
    let packages = [&TOOLCHAIN[..], &["rust-web-clippy"]].concat();
    if is_root() {
        debian::install(&packages)?;
    }
    let missing = debian::missing(&packages);
    if !missing.is_empty() {
        bail!("clippy for the kernel programs needs Debian packages: apt install {}", missing.join(" "));
    }
    // Called by its path, because cargo would search for its subcommands in rustup's directory first.
    let mut clippy = cargo("/usr/bin/cargo-clippy")?;
    clippy.env("CARGO", "/usr/bin/cargo").args(["clippy", "--quiet", "--release", "-Z", "build-std=core"]);
    call(clippy.args(["--", "--deny", "warnings"]))
}

/// Returns a command of the toolchain for the kernel programs, to run in tcp-ebpf.
fn cargo(program: &str) -> Result<Command> {
    let here = root().display().to_string();
    let home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    let folder = root().join("tcp-ebpf");
    // The folder of a registry has a name that depends on how cargo reaches it. The object must not contain
    // the name. The folder exists after a fetch.
    call(Command::new(env!("CARGO")).args(["fetch", "--locked"]).current_dir(&folder))?;
    let registries =
        fs::read_dir(Path::new(&home).join("registry/src")).context("reading cargo's registry")?;
    let registries =
        registries.map(|entry| Ok(format!("--remap-path-prefix={}=registry", entry?.path().display())));
    let mut flags = [
        "-Clink-arg=--btf",
        // With this pass, every memset of a flow would be a call of a loop over bytes.
        "-Clink-arg=--disable-expand-memcpy-in-order",
        "-Cdebuginfo=2",
        "-Ctarget-cpu=v3",
        "--cfg=bpf_target_arch=\"x86_64\"",
        "-Clinker=bpf-linker",
        &format!("--remap-path-prefix={here}=finwait"),
    ]
    .map(str::to_owned)
    .to_vec();
    flags.extend(registries.collect::<Result<Vec<_>>>()?);
    let mut command = Command::new(program);
    rustc_wrapper::wrap(&mut command)?
        .current_dir(folder)
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", root().join(TARGET))
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    Ok(command)
}

/// Fails when the sources have changed since the object was built.
pub(crate) fn sources_match() -> Result<()> {
    let recorded = fs::read_to_string(root().join(SOURCES)).context("reading the checksum of the sources")?;
    if recorded != sources_checksum()? {
        bail!("the kernel sources have changed since {OBJECT} was built: run `cargo xtask build-ebpf`");
    }
    Ok(())
}

/// A checksum of everything that goes into the object. It guards against forgetting, not against malice.
fn sources_checksum() -> Result<String> {
    let mut files = Vec::new();
    for folder in ["tcp-ebpf/src", "tcp-common/src"] {
        collect(&root().join(folder), &mut files)?;
    }
    for file in
        ["tcp-ebpf/Cargo.toml", "tcp-ebpf/Cargo.lock", "tcp-ebpf/.cargo/config.toml", "tcp-common/Cargo.toml"]
    {
        files.push(root().join(file));
    }
    files.sort();
    let mut checksum = crc32fast::Hasher::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap_or(&file).to_string_lossy().into_owned();
        let text = fs::read(&file).with_context(|| format!("reading {name}"))?;
        for part in [name.as_bytes(), &text] {
            checksum.update(&part.len().to_le_bytes());
            checksum.update(part);
        }
    }
    Ok(format!("{:08x}\n", checksum.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
