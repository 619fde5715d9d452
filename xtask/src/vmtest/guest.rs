//! The files of a guest: the plan's programs with their libraries, at the same paths as here, and busybox.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::debian_kernel::DebianKernel;
use crate::command::{call, target_dir};

/// The last line of output of a guest in which everything succeeded.
pub(crate) const SUCCESS: &str = "vmtest: everything passed";

/// The programs that tests call by name.
const TOOLS: &[&str] = &["/bin/ip", "/sbin/tc"];

/// finwait and test programs, by their names.
pub(crate) struct Programs(BTreeMap<String, PathBuf>);

/// The part of cargo's messages that names programs.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

impl Programs {
    /// Builds what the plan names.
    pub(crate) fn build(plan: &[&[&str]]) -> Result<Programs> {
        let mut names: Vec<_> = plan.iter().filter_map(|line| line.first().copied()).collect();
        names.sort_unstable();
        names.dedup();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics", "--package", "tcp-user"]);
        for name in &names {
            cargo.args([if *name == "finwait" { "--bin" } else { "--test" }, name]);
        }
        let output = cargo.stderr(Stdio::inherit()).output().context("starting cargo")?;
        if !output.status.success() {
            bail!("building the tests: {}", output.status);
        }
        let messages = output.stdout.split(|&octet| octet == b'\n');
        let built = messages.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
        let mut programs: BTreeMap<_, _> =
            built.filter_map(|message| Some((message.target?.name, message.executable?))).collect();
        // The tests find the binary at this path. The test program of finwait's own functions has the same
        // name.
        let finwait = std::path::absolute(target_dir()).context("the target folder")?.join("debug/finwait");
        programs.insert("finwait".into(), finwait);
        Ok(Programs(programs))
    }

    fn path(&self, name: &str) -> Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| format!("cargo has built no {name}"))
    }
}

/// Packs the files of a guest as the kernel unpacks them at boot.
pub(crate) fn image(
    folder: &Path,
    kernel: &DebianKernel,
    programs: &Programs,
    plan: &[&[&str]],
) -> Result<PathBuf> {
    let root = Root::new(folder.join("root"))?;
    root.add(Path::new("/bin/busybox"), Path::new("/bin/busybox"))?;
    for tool in TOOLS {
        root.add_program(
            Path::new(tool),
            &Path::new("/bin").join(Path::new(tool).file_name().unwrap_or_default()),
        )?;
    }
    for program in programs.0.values() {
        root.add_program(program, program)?;
        call(Command::new("strip").arg(root.inside(program)))?;
    }
    root.write("/init", include_str!("init.sh"))?;
    call(Command::new("chmod").arg("755").arg(root.inside(Path::new("/init"))))?;
    root.write("/plan", &spell(plan, programs)?)?;
    let mut order = String::new();
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default();
        root.add(module, &Path::new("/modules").join(name))?;
        order += &format!("{}\n", name.display());
    }
    root.write("/modules/order", &order)?;
    root.pack(&folder.join("image.cpio"))
}

/// The plan as lines of a shell.
fn spell(plan: &[&[&str]], programs: &Programs) -> Result<String> {
    let mut text = String::new();
    for line in plan {
        let [name, arguments @ ..] = *line else { bail!("an empty line in the plan") };
        text += &programs.path(name)?.display().to_string();
        if *name != "finwait" {
            text += " --include-ignored --test-threads 1 --nocapture";
        }
        for argument in arguments {
            text += &format!(" '{argument}'");
        }
        text += "\n";
    }
    Ok(text)
}

/// The root of a guest's file system, in a folder that is removed when dropped.
struct Root(PathBuf);

impl Root {
    fn new(folder: PathBuf) -> Result<Root> {
        let _ = fs::remove_dir_all(&folder);
        let tests_write_here = std::path::absolute(target_dir()).context("the target folder")?.join("tmp");
        let root = Root(folder);
        for mounted in ["/dev", "/proc", "/sys", "/tmp", "/run", "/etc"].map(Path::new) {
            root.make(mounted)?;
        }
        root.make(&tests_write_here)?;
        Ok(root)
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn make(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(self.inside(folder)).with_context(|| format!("making {}", folder.display()))
    }

    fn add(&self, file: &Path, at: &Path) -> Result<()> {
        self.make(at.parent().unwrap_or(at))?;
        fs::copy(file, self.inside(at)).with_context(|| format!("copying {}", file.display()))?;
        Ok(())
    }

    /// Adds a program with the libraries that it loads.
    fn add_program(&self, program: &Path, at: &Path) -> Result<()> {
        self.add(program, at)?;
        let output = Command::new("ldd").arg(program).output().context("starting ldd")?;
        let text = String::from_utf8_lossy(&output.stdout);
        for library in text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
            if !self.inside(library).exists() {
                self.add(library, library)?;
            }
        }
        Ok(())
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(self.inside(Path::new(path)), text).with_context(|| format!("writing {path}"))
    }

    /// Packs the files into an archive, with root as their owner.
    fn pack(&self, archive: &Path) -> Result<PathBuf> {
        let file = fs::File::create(archive).with_context(|| format!("writing {}", archive.display()))?;
        let find = Command::new("find").arg(".").current_dir(&self.0).stdout(Stdio::piped()).spawn();
        let names = find.context("starting find")?.stdout.take().context("what find lists")?;
        call(
            Command::new("cpio")
                .args(["--create", "--format=newc", "--owner=0:0", "--quiet"])
                .current_dir(&self.0)
                .stdin(names)
                .stdout(file),
        )?;
        Ok(archive.to_owned())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
