//! A kernel from a Debian package: its image, and the modules that the tests need.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::command::call;

/// The kernels that Debian 12 has.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Version {
    #[value(name = "6.1")]
    V6_1,
    /// With PREEMPT_RT.
    #[value(name = "6.1-rt")]
    V6_1Rt,
    #[value(name = "6.12")]
    V6_12,
    /// With PREEMPT_RT.
    #[value(name = "6.12-rt")]
    V6_12Rt,
}

impl Version {
    pub(crate) const ALL: &[Version] = &[Version::V6_1, Version::V6_1Rt, Version::V6_12, Version::V6_12Rt];

    /// The package that depends on the newest of its kind.
    fn meta_package(self) -> &'static str {
        match self {
            Version::V6_1 => "linux-image-cloud-amd64",
            Version::V6_1Rt => "linux-image-rt-amd64",
            Version::V6_12 => "linux-image-6.12-cloud-amd64",
            Version::V6_12Rt => "linux-image-6.12-rt-amd64",
        }
    }

    /// Returns the beginning of the package's name.
    fn beginning(self) -> &'static str {
        match self {
            Version::V6_1 | Version::V6_1Rt => "linux-image-6.1.",
            Version::V6_12 | Version::V6_12Rt => "linux-image-6.12.",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// A kernel that can be booted.
pub(crate) struct DebianKernel {
    /// Name of the package.
    pub(crate) package: String,
    /// The image.
    pub(crate) kernel: PathBuf,
    /// The modules, in the order of loading.
    pub(crate) modules: Vec<PathBuf>,
}

impl DebianKernel {
    /// Fetches the kernel, unless that was done before.
    pub(crate) fn fetch(version: Version, folder: &Path) -> Result<DebianKernel> {
        let package = package(version)?;
        let folder = folder.join(&package);
        if !folder.join(KERNEL).exists() {
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            unpack(&package, &folder)?;
        }
        let modules = MODULES.iter().map(|name| folder.join(format!("{name}.ko"))).collect();
        Ok(DebianKernel { package, kernel: folder.join(KERNEL), modules })
    }
}

/// Returns the newest package of that version in apt's lists.
fn package(version: Version) -> Result<String> {
    let output = Command::new("apt-cache").args(["depends", version.meta_package()]).output();
    let output = output.context("starting apt-cache: kernels come from Debian's packages")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.split_whitespace().find(|word| word.starts_with(version.beginning()));
    found.map(str::to_owned).with_context(|| {
        let meta = version.meta_package();
        format!(
            "apt knows no {meta} of {version}: it takes the lists of Debian 12 (bookworm and bookworm-backports, \
             bookworm-security), and `apt-get update`"
        )
    })
}

/// Unpacks only the image and the modules, because whole packages have up to 400 MB.
fn unpack(package: &str, folder: &Path) -> Result<()> {
    println!("fetching {package}");
    call(
        Command::new("apt-get")
            .args(["download", "--quiet", package])
            .current_dir(folder)
            .stdout(Stdio::null()),
    )?;
    let Some(archive) = ending(folder, ".deb")?.pop() else { bail!("apt-get left no package of {package}") };
    let mut files = Command::new("dpkg-deb");
    let mut files = files
        .arg("--fsys-tarfile")
        .arg(&archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting dpkg-deb")?;
    let members = files.stdout.take().context("the package's files")?;
    let wanted = MODULES.iter().map(|module| format!("*/{module}.ko*"));
    call(
        Command::new("tar")
            .args(["--extract", "--transform", "s,.*/,,", "--wildcards", "./boot/vmlinuz-*"])
            .args(wanted)
            .current_dir(folder)
            .stdin(members),
    )?;
    files.wait().context("waiting for dpkg-deb")?;
    fs::remove_file(&archive).context("removing the package")?;
    let packed = ending(folder, ".xz")?;
    if !packed.is_empty() {
        call(Command::new("xz").arg("--decompress").args(packed))?;
    }
    let image = fs::read_dir(folder)?
        .flatten()
        .find(|file| file.file_name().to_string_lossy().starts_with("vmlinuz-"));
    fs::rename(image.context("the package has no kernel")?.path(), folder.join(KERNEL))
        .context("naming the kernel")
}

fn ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = files.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).collect())
}

/// Modules for the lab's link, for clsact and its filters, and for socket diagnostics.
const MODULES: &[&str] = &["veth", "sch_ingress", "cls_bpf", "inet_diag", "tcp_diag"];
const KERNEL: &str = "kernel";
