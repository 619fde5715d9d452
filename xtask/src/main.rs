//! The project's tasks: `cargo xtask --help` lists them.

mod bless;
mod build_ebpf;
mod command;
mod debian;
mod fresh;
mod fuzz;
mod lint;
mod mutants;
mod package;
mod run;
mod rustc_wrapper;
mod vmtest;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The project's tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test. As root this includes the tests that load kernel programs, and installs the Debian
    /// packages they need.
    Test {
        /// Name missing Debian packages instead of installing them.
        #[arg(long)]
        no_install: bool,
        /// Arguments for each test program, such as `--skip NAME`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Rewrite every golden file and snapshot from what the code does now; read the difference afterwards.
    Bless,
    /// Check format and lints of every crate, the kernel programs included.
    Lint,
    /// Run both README commands in a new minimal Debian 12 (root needed), to find a hidden installation step.
    Fresh {
        /// Keep the system's folder afterwards.
        #[arg(long)]
        keep: bool,
    },
    /// Build finwait and run its demonstration as root.
    Demo {
        /// Arguments for `finwait demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the kernel object from `tcp-ebpf/`, installing the toolchain it needs.
    BuildEbpf {
        /// Compare a fresh build with the committed object and change nothing.
        #[arg(long)]
        check: bool,
    },
    /// Record the closes that `finwait demo` shows where it lacks permission (root needed).
    RecordDemo,
    /// Measure the cost of a packet beside bare programs and nf_conntrack, and the cost of the agent (root
    /// needed).
    Bench {
        /// `--quick`: fewer and shorter rounds, fewer connections;
        /// `--only packets|growth|opens|steps|flood|traffic|agent`; `--gate`: compare an established packet
        /// with a bare parse, and nothing else.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Put deliberate faults into the rules, one at a time, and require that the tests notice each (10
    /// minutes).
    Mutants {
        /// Prefix of the ids to run, such as `R12`; default all.
        only: Option<String>,
    },
    /// Fuzz one target with libFuzzer.
    Fuzz {
        /// The target: a folder of `fuzz/corpus`.
        target: String,
        /// Duration in seconds.
        #[arg(default_value_t = 60)]
        seconds: u64,
    },
    /// Make 100,000 real connections over an impaired link and compare both ends with both kernels (root
    /// needed).
    Storm {
        /// `--world NAME`, `--connections N`, `--seed S`, `--loss PERCENT`, `--duplicates PERCENT`, `--reorder PERCENT`,
        /// `--conntrack`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the Debian package. As root, also install, use and purge it on a copy-on-write image of this
    /// system.
    Package,
    /// Boot kernels of Debian 12 in qemu, without KVM, and run finwait and its kernel tests there (no root
    /// needed).
    Vmtest {
        /// Kernels to boot; default all.
        kernels: Vec<vmtest::Version>,
        /// Name of the test program to run, such as `kernel_scenarios` or `finwait`; default all.
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> Result<()> {
    if rustc_wrapper::is_active() {
        return rustc_wrapper::run();
    }
    match Arguments::parse().task {
        Task::Test { no_install, arguments } => run::test(!no_install, &arguments),
        Task::Bless => bless::bless(),
        Task::Lint => lint::lint(),
        Task::Fresh { keep } => fresh::fresh(keep),
        Task::Demo { arguments } => run::demo(&arguments),
        Task::BuildEbpf { check } => build_ebpf::build(check),
        Task::RecordDemo => run::record_demo(),
        Task::Bench { arguments } => run::bench(&arguments),
        Task::Mutants { only } => mutants::run(only.as_deref()),
        Task::Fuzz { target, seconds } => fuzz::fuzz(&target, seconds),
        Task::Storm { arguments } => run::storm(&arguments),
        Task::Package => package::package(),
        Task::Vmtest { kernels, only } => vmtest::run(&kernels, only.as_deref()),
    }
}
