//! The kernel side as the agent sees it. No other module names aya.
//!
//! - `table` is the flow tables in shared memory, made of one `family_table` per address family, on top of
//!   `mapped`.
//! - `events` drains the event rings, and `diagnostics` the programs' log.
//! - `attach` puts programs on interfaces, `chain` keeps their place among those of others,
//!   `notices` reports loaded programs, and `probe` inspects what is attached.
//! - `reset_reasons` has what the kernel says of its RSTs; `btf` reads where the kernel has what that takes.
//! - `clock` relates the kernel's two clocks, `fragments` ends the wait of fragments, `foreign` has
//!   segments of other networks.
//! - `program` and `error` have the names of programs and errors.

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "finwait supports x86-64 only. The kernel programs order their plain loads and stores as x86-64 does; \
     another architecture needs acquire loads and release stores there"
);

mod attach;
mod btf;
mod chain;
mod clock;
mod diagnostics;
mod error;
mod events;
mod family_table;
mod foreign;
mod fragments;
mod host;
mod mapped;
mod notices;
mod probe;
mod program;
mod reset_reasons;
mod table;

pub use attach::{AttachError, Attachment, Hook, Ingress, Mode, remove_stale_filters};
pub use chain::Place;
pub use diagnostics::Diagnostics;
pub use error::KernelError;
pub use events::Events;
pub use notices::ProgramNotices;
pub use probe::{describe_program, has_tcx};
pub use program::{ProgramName, ProgramRuns};
pub use reset_reasons::ResetReasons;
pub use table::{Entry, SlotGuard, Table, class};

use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use aya_log::EbpfLogger;
use tcp_common::record::{Clocks, Counters, Settings, tail_call};
use tcp_common::table::slots_for;
use tcp_common::{Rules, Secret};

pub use crate::netlink::Prefix;
use chain::Reached;
use clock::Jiffies;
use error::{classify, failed};
use family_table::FamilyTable;
use foreign::ForeignSegments;
use fragments::Fragments;
use host::HostMaps;
pub use host::Scopes;
use reset_reasons::ResetTracepoint;

/// The committed object, built from `tcp-ebpf/` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/finwait.bpf.o");

/// Options of [`Kernel::load`].
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Rules of the state machine.
    pub rules: Rules,
    /// Capacity of the IPv4 table, in flows. The table has four slots for three flows.
    pub max_flows: u32,
    /// Capacity of the IPv6 table, in flows.
    pub max_flows_v6: u32,
    /// Memory of all event rings, in bytes. Each possible CPU has a ring. All rings hold the same number of
    /// events, which is a power of two and at least 1024.
    pub ring_bytes: u32,
    /// Whether the programs log packets that they ignore, at debug level ([`Diagnostics`]).
    pub diagnostics: bool,
    /// Whether the VLAN tags of a packet are part of its connection's key.
    pub key_by_vlan: bool,
    /// Whether the kernel is asked for the reasons of its RSTs, if it has them ([`Kernel::take_reset_reasons`]).
    pub reset_reasons: bool,
    /// Key of the hash that selects a flow's home slot. Random by default, so that no sender can choose
    /// connections that collide.
    pub secret: Secret,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            rules: Rules::AGENT,
            max_flows: 1 << 16,
            max_flows_v6: 1 << 15,
            ring_bytes: 16 << 20,
            diagnostics: false,
            key_by_vlan: false,
            reset_reasons: false,
            secret: random_secret(),
        }
    }
}

/// The loaded programs and their maps.
pub struct Kernel {
    ebpf: Ebpf,
    table: Arc<Table>,
    settings: Array<MapData, PodSettings>,
    current: Settings,
    /// The relation of the two clocks in the settings, if there is one.
    jiffies: Option<Jiffies>,
    counters: PerCpuArray<MapData, PodCounters>,
    clocks: Array<MapData, PodClocks>,
    host: HostMaps,
    fragments: Fragments,
    foreign: ForeignSegments,
    reached: Reached,
    reset_reasons: Result<ResetReasons, String>,
    events: Option<Events>,
    diagnostics: Option<Diagnostics>,
    // The kernel empties a program array when its last file descriptor is closed.
    chains: [ProgramArray<MapData>; 2],
    instructions: Vec<(&'static str, u32)>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSettings(Settings);
// SAFETY: `#[repr(C)]` integers without padding, as its asserted size in tcp-common shows.
unsafe impl Pod for PodSettings {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodCounters(Counters);
// SAFETY: `#[repr(C)]`, and all fields are made of `u64`.
unsafe impl Pod for PodCounters {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodClocks(Clocks);
// SAFETY: `#[repr(C)]`, and all fields are made of `u64`.
unsafe impl Pod for PodClocks {}

impl Kernel {
    /// Loads every program and attaches none.
    ///
    /// # Errors
    ///
    /// Fails if the process may not load programs, or the kernel does not support or accept them.
    pub fn load(options: &LoadOptions) -> Result<Kernel, KernelError> {
        let rated = [options.max_flows, options.max_flows_v6];
        let [v4, v6] = rated.map(slots_for);
        let cpus = nr_cpus().map_err(|(path, error)| failed(format!("reading {path}"), error))? as u32;
        let ring_len = events::ring_len(options.ring_bytes, cpus);
        let log_level = if options.diagnostics { aya_log::Level::Debug as u8 } else { 0 };
        let tracepoint = match options.reset_reasons {
            true => ResetTracepoint::of_kernel(),
            false => Err("the agent does not ask for them".into()),
        };
        let mut loader = EbpfLoader::new();
        if let Ok(tracepoint) = &tracepoint {
            loader.override_global(reset_reasons::OFFSETS, &tracepoint.offsets, true);
        }
        let mut ebpf = loader
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries("FLOWS_V4", v4)
            .map_max_entries("FLOWS_V6", v6)
            .map_max_entries("RECORDS_V4", v4)
            .map_max_entries("RECORDS_V6", v6)
            .map_max_entries("DIRECTORY_V4", v4)
            .map_max_entries("DIRECTORY_V6", v6)
            .map_max_entries("EVENTS", cpus * ring_len)
            .map_max_entries("RINGS", cpus)
            .map_max_entries(reset_reasons::MAP, if tracepoint.is_ok() { MAX_RESET_REASONS } else { 1 })
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(OBJECT)
            .map_err(classify)?;
        let mut instructions = Vec::new();
        for program in ProgramName::ALL {
            instructions.push((program.name(), load_program(&mut ebpf, program)?));
        }
        let chains = [("CHAIN_XDP", XDP_CHAIN), ("CHAIN_TC", TC_CHAIN)];
        let chains = [tail_calls(&mut ebpf, chains[0])?, tail_calls(&mut ebpf, chains[1])?];
        let secret = options.secret;
        let table_v4 = FamilyTable::map(&mut ebpf, ["FLOWS_V4", "RECORDS_V4", "DIRECTORY_V4"], v4)?;
        let table_v6 = FamilyTable::map(&mut ebpf, ["FLOWS_V6", "RECORDS_V6", "DIRECTORY_V6"], v6)?;
        let table = Arc::new(Table::new(table_v4, table_v6, rated, secret));
        let settings = open(&mut ebpf, SETTINGS)?;
        let clocks = open(&mut ebpf, CLOCKS)?;
        let counters = open(&mut ebpf, COUNTERS)?;
        let host = HostMaps::open(&mut ebpf)?;
        let fragments = Fragments::open(&mut ebpf)?;
        let foreign = ForeignSegments::open(&mut ebpf)?;
        let reached = Reached::open(&mut ebpf)?;
        let reset_reasons = tracepoint.and_then(|tracepoint| tracepoint.attach(&mut ebpf));
        let events = Events::map(&mut ebpf, cpus, ring_len)?;
        let diagnostics = options.diagnostics.then(|| EbpfLogger::init(&mut ebpf)).transpose();
        let diagnostics = diagnostics.map_err(|error| failed("opening the log of the programs", error))?;
        let key_by_vlan = options.key_by_vlan.into();
        let current = Settings {
            rules: options.rules,
            secret,
            slots_v4: v4,
            slots_v6: v6,
            key_by_vlan,
            ring_len,
            ..Settings::NONE
        };
        let mut kernel = Kernel {
            ebpf,
            table,
            settings,
            current,
            jiffies: None,
            counters,
            clocks,
            host,
            fragments,
            foreign,
            reached,
            reset_reasons,
            events: Some(events),
            diagnostics: diagnostics.map(Diagnostics::new),
            chains,
            instructions,
        };
        kernel.relate_clocks()?;
        Ok(kernel)
    }

    /// Returns the flow table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Returns the current rules of the state machine.
    pub fn rules(&self) -> &Rules {
        &self.current.rules
    }

    /// Changes the rules of the state machine.
    pub fn set_rules(&mut self, rules: Rules) -> Result<(), KernelError> {
        self.current.rules = rules;
        self.apply_settings()
    }

    /// Replaces the programs' clock by a fixed time, for tests. 0 restores the kernel's clock.
    pub fn set_clock_ns(&mut self, clock_ns: u64) -> Result<(), KernelError> {
        self.current.clock_ns = clock_ns;
        self.apply_settings()
    }

    fn apply_settings(&mut self) -> Result<(), KernelError> {
        // With VLAN tags in the key every segment needs its tags read, so nothing is predicted.
        let predicts = self.current.key_by_vlan == 0;
        self.current.steady_silence_ns = if predicts { self.current.rules.steady_silence_ns() } else { 0 };
        let mut settings = self.current;
        if settings.clock_ns != 0 {
            settings.jiffy_ns = 0;
        }
        self.settings
            .set(0, PodSettings(settings), 0)
            .map_err(|error| failed(format!("writing map {SETTINGS}"), error))
    }

    /// Reads the counters, summed over the CPUs.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let per_cpu =
            self.counters.get(&0, 0).map_err(|error| failed(format!("reading map {COUNTERS}"), error))?;
        let mut counters = table::sum(per_cpu.iter().map(|cpu| &cpu.0));
        self.fragments.add_to(&mut counters);
        Ok(counters)
    }

    /// Returns the event rings. `None` after the first call.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// Returns the programs' log. `None` after the first call, or without [`LoadOptions::diagnostics`].
    pub fn take_diagnostics(&mut self) -> Option<Diagnostics> {
        self.diagnostics.take()
    }

    /// Returns the number of instructions that the verifier processed for each program.
    pub fn verified_instructions(&self) -> &[(&'static str, u32)] {
        &self.instructions
    }

    /// Returns how often and for how long each program ran. The kernel counts runs while the sysctl
    /// `kernel.bpf_stats_enabled` is 1.
    pub fn program_runs(&self) -> Result<Vec<ProgramRuns>, KernelError> {
        let runs = |&program: &ProgramName| {
            let name = program.name();
            let info = match self.ebpf.program(name) {
                Some(Program::Xdp(xdp)) => xdp.info(),
                Some(Program::SchedClassifier(tc)) => tc.info(),
                _ => return Err(missing(program)),
            }
            .map_err(|error| failed(format!("reading the run count of program {name}"), error))?;
            Ok(ProgramRuns { program: name, runs: info.run_count(), duration: info.run_time() })
        };
        ProgramName::ALL.iter().map(runs).collect()
    }

    /// Runs a program on one frame `repeat` times (`BPF_PROG_TEST_RUN`). Returns its return value and the
    /// mean duration of a run, as measured by the kernel.
    pub fn test_run(
        &self,
        program: ProgramName,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(u32, Duration), KernelError> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = match self.ebpf.program(program.name()) {
            Some(Program::Xdp(xdp)) => xdp.test_run(options),
            Some(Program::SchedClassifier(tc)) => tc.test_run(options),
            _ => return Err(missing(program)),
        }
        .map_err(|error| failed(format!("running program {} on a frame", program.name()), error))?;
        Ok((result.return_value, result.duration))
    }

    /// Empties the program arrays, for tests. Every tail call fails from then on.
    pub fn clear_chains(&mut self) -> Result<(), KernelError> {
        for (chain, programs) in self.chains.iter_mut().zip([XDP_CHAIN, TC_CHAIN]) {
            for (index, _) in programs {
                chain
                    .clear_index(index)
                    .map_err(|error| failed("removing a program from a tail-call map", error))?;
            }
        }
        Ok(())
    }

    fn xdp(&mut self, name: ProgramName) -> Result<&mut Xdp, KernelError> {
        let program = program_mut(&mut self.ebpf, name)?;
        program
            .try_into()
            .map_err(|error: ProgramError| failed(format!("using {} for XDP", name.name()), error))
    }

    fn classifier(&mut self, name: ProgramName) -> Result<&mut SchedClassifier, KernelError> {
        let program = program_mut(&mut self.ebpf, name)?;
        program
            .try_into()
            .map_err(|error: ProgramError| failed(format!("using {} for TC", name.name()), error))
    }
}

fn program_mut(ebpf: &mut Ebpf, name: ProgramName) -> Result<&mut Program, KernelError> {
    ebpf.program_mut(name.name()).ok_or_else(|| missing(name))
}

/// The error for a program that the object does not have as an XDP or TC program.
fn missing(program: ProgramName) -> KernelError {
    KernelError::NotSupported(format!("the object has no XDP or TC program {}", program.name()))
}

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or_else(|| KernelError::NotSupported(format!("the object has no map {name}")))
}

/// Takes a map out of the object, as a map of its type.
fn open<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, KernelError> {
    M::try_from(take_map(ebpf, name)?).map_err(|error| failed(format!("opening map {name}"), error))
}

/// Fills a program array, through which programs reach the next one of their chain by tail calls.
fn tail_calls(
    ebpf: &mut Ebpf,
    (map, programs): (&'static str, &[(u32, ProgramName)]),
) -> Result<ProgramArray<MapData>, KernelError> {
    let mut array: ProgramArray<MapData> = open(ebpf, map)?;
    for &(index, name) in programs {
        let adding = || format!("adding program {} to the tail-call map {map}", name.name());
        let fd = match program_mut(ebpf, name)? {
            Program::Xdp(xdp) => xdp.fd(),
            Program::SchedClassifier(tc) => tc.fd(),
            _ => return Err(missing(name)),
        };
        let fd = fd.map_err(|error| failed(adding(), error))?;
        array.set(index, fd, 0).map_err(|error| failed(adding(), error))?;
    }
    Ok(array)
}

/// Loads one program. Returns the number of instructions that the verifier processed.
fn load_program(ebpf: &mut Ebpf, name: ProgramName) -> Result<u32, KernelError> {
    let loaded = match program_mut(ebpf, name)? {
        Program::Xdp(xdp) => xdp.load().and_then(|()| xdp.info()),
        Program::SchedClassifier(tc) => tc.load().and_then(|()| tc.info()),
        _ => return Err(missing(name)),
    };
    match loaded {
        Ok(info) => Ok(info.verified_instruction_count().unwrap_or(0)),
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            if io_error.raw_os_error() == Some(libc::EPERM) && !log.contains("processed") {
                return Err(KernelError::NotPermitted(io_error.to_string()));
            }
            let tail = log.lines().rev().take(12).collect::<Vec<_>>();
            let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            Err(KernelError::Refused { program: name.name(), reason: io_error.to_string(), log })
        }
        Err(error) => Err(failed(format!("loading program {}", name.name()), error)),
    }
}

fn random_secret() -> Secret {
    let random = || getrandom::u32().expect("Linux has getrandom(2) since 3.17");
    Secret([[(); 2]; 5].map(|pair| pair.map(|()| random())))
}

/// The section of the object with the programs' settings. It becomes a map when the object is loaded.
const SETTINGS: &str = ".data";
/// The programs behind the XDP entry program.
const XDP_CHAIN: &[(u32, ProgramName)] = &[
    (tail_call::READ, ProgramName::ReadXdp),
    (tail_call::FRAGMENT, ProgramName::FragmentXdp),
    (tail_call::OPTIONS, ProgramName::OptionsXdp),
    (tail_call::LOCK, ProgramName::LockXdp),
    (tail_call::APPLY, ProgramName::ApplyXdp),
    (tail_call::FINISH, ProgramName::FinishXdp),
    (tail_call::ICMP, ProgramName::IcmpXdp),
];
/// The programs behind the TC entry programs.
const TC_CHAIN: &[(u32, ProgramName)] = &[
    (tail_call::READ, ProgramName::ReadTc),
    (tail_call::COPY, ProgramName::CopyTc),
    (tail_call::FRAGMENT, ProgramName::FragmentTc),
    (tail_call::OPTIONS, ProgramName::OptionsTc),
    (tail_call::LOCK, ProgramName::LockTc),
    (tail_call::APPLY, ProgramName::ApplyTc),
    (tail_call::FINISH, ProgramName::FinishTc),
    (tail_call::ICMP, ProgramName::IcmpTc),
];
/// The agent asks for a reason milliseconds after the RST, and again when a person does.
const MAX_RESET_REASONS: u32 = 16_384;
const COUNTERS: &str = "COUNTERS";
const CLOCKS: &str = "CLOCKS";
