//! The project's own chores: `cargo xtask test`, `demo`, `build-ebpf`, `package`, `vmtest`.

mod build_ebpf;
mod command;
mod debian;
mod fuzz;
mod mutants;
mod package;
mod run;
mod same_names;
mod vmtest;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The project's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every test; as root the kernel tests too. Installs the Debian packages that the tests need.
    Test,
    /// Builds finwait and runs its demonstration, as root.
    Demo {
        /// Passed on to `finwait demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the kernel object from `tcp-ebpf/`, installing the toolchain it needs.
    BuildEbpf {
        /// Only proves that the committed object is what the sources give.
        #[arg(long)]
        check: bool,
    },
    /// Records anew the closes that `finwait demo` shows where it may not run (root needed).
    RecordDemo,
    /// Measures what a packet costs, beside bare programs and nf_conntrack, and what the agent costs (root needed).
    Bench {
        /// `--quick`: fewer and shorter rounds, fewer connections; `--only packets|growth|opens|steps|flood|traffic|agent`;
        /// `--gate`: only whether a packet of an established connection keeps to its short way.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Puts deliberate faults into the rules, one at a time, and demands that the tests notice each (minutes).
    Mutants {
        /// Only those whose id begins so, such as `R12`.
        only: Option<String>,
    },
    /// Fuzzes one target with libFuzzer: parser, machine, endpoints, capture, filter or config.
    Fuzz {
        /// Which.
        target: String,
        /// How long.
        #[arg(default_value_t = 60)]
        seconds: u64,
    },
    /// Makes 100,000 real connections over a bad cable and compares both ends with both kernels (root needed).
    Storm {
        /// `--connections N`, `--seed S`, `--loss PERCENT`, `--duplicates PERCENT`, `--reorder PERCENT`, `--conntrack`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the Debian package; as root also installs, uses and purges it on a copy-on-write image of this system.
    Package,
    /// Boots kernels of Debian 12 in qemu, without KVM, and runs finwait and its kernel tests there (no root needed).
    Vmtest {
        /// Which; all of them unless named.
        kernels: Vec<vmtest::Version>,
        /// Only what begins so in the plan, such as `kernel_scenarios` or `finwait`.
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> Result<()> {
    if same_names::called_as_rustc() {
        return same_names::be_rustc();
    }
    match Arguments::parse().chore {
        Chore::Test => run::test(),
        Chore::Demo { arguments } => run::demo(&arguments),
        Chore::BuildEbpf { check } => build_ebpf::build(check),
        Chore::RecordDemo => run::record_demo(),
        Chore::Bench { arguments } => run::bench(&arguments),
        Chore::Mutants { only } => mutants::run(only.as_deref()),
        Chore::Fuzz { target, seconds } => fuzz::fuzz(&target, seconds),
        Chore::Storm { arguments } => run::storm(&arguments),
        Chore::Package => package::package(),
        Chore::Vmtest { kernels, only } => vmtest::run(&kernels, only.as_deref()),
    }
}
