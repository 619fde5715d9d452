//! The kernel side as the agent sees it: the only module that names aya.
//!
//! `table` is the flow tables in shared memory (one of its two `part`s a family), `attach` puts programs on interfaces, `probe`
//! looks what is there, `events` drains the rings, `diagnostics` the programs' log, `clock` relates the kernel's clocks; `program` and `error`
//! are their names.

mod attach;
mod clock;
mod diagnostics;
mod error;
mod events;
mod family_table;
mod mapped;
mod probe;
mod program;
mod table;

pub use attach::{AttachError, Attachment, Hook, Ingress, Mode, remove_stale_filters};
pub use diagnostics::Diagnostics;
pub use error::KernelError;
pub use events::Events;
pub use probe::{describe_program, has_tcx};
pub use program::{ProgramName, ProgramRuns};
pub use table::{Entry, SlotGuard, Table, class};

use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use aya_log::EbpfLogger;
use tcp_common::record::{Clocks, Counters, Settings};
use tcp_common::table::slots_for;
use tcp_common::{Rules, Secret};

use error::{classify, other};
use family_table::FamilyTable;

/// The committed object, built from `tcp-ebpf/` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/finwait.bpf.o");

/// How the programs are to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Rules of the state machine.
    pub rules: Rules,
    /// Flows of IPv4 that all find a slot; the table has four slots for three.
    pub max_flows: u32,
    /// The same of IPv6.
    pub max_flows_v6: u32,
    /// Memory of all rings of events, in bytes. Each CPU that there may ever be has one, of the same number of events: a
    /// power of two, at least 1024.
    pub ring_bytes: u32,
    /// Whether the programs tell the log, at debug level, of packets that they do not follow; [`Diagnostics`].
    pub diagnostics: bool,
    /// What decides where a flow lies in the table, which must not be guessable from outside: random, but for a test that
    /// wants the same slots every time.
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
    counters: PerCpuArray<MapData, PodCounters>,
    clocks: Array<MapData, PodClocks>,
    events: Option<Events>,
    diagnostics: Option<Diagnostics>,
    // The kernel empties a program array when its last holder is gone.
    _machines: [ProgramArray<MapData>; 2],
    instructions: Vec<(&'static str, u32)>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSettings(Settings);
// SAFETY: `#[repr(C)]` integers without padding (asserted by its size in tcp-common).
unsafe impl Pod for PodSettings {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodCounters(Counters);
// SAFETY: `#[repr(C)]`, only `u64`.
unsafe impl Pod for PodCounters {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodClocks(Clocks);
// SAFETY: `#[repr(C)]`, only `u64`.
unsafe impl Pod for PodClocks {}

impl Kernel {
    /// Loads every program. Nothing is attached yet.
    pub fn load(options: &LoadOptions) -> Result<Kernel, KernelError> {
        let rated = [options.max_flows, options.max_flows_v6];
        let [v4, v6] = rated.map(slots_for);
        let cpus = nr_cpus().map_err(|(what, error)| other(what)(error))? as u32;
        let ring_len = events::ring_len(options.ring_bytes, cpus);
        let log_level = if options.diagnostics { aya_log::Level::Debug as u8 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries("FLOWS_V4", v4)
            .map_max_entries("FLOWS_V6", v6)
            .map_max_entries("RECORDS_V4", v4)
            .map_max_entries("RECORDS_V6", v6)
            .map_max_entries("DIRECTORY_V4", v4)
            .map_max_entries("DIRECTORY_V6", v6)
            .map_max_entries("EVENTS", cpus * ring_len)
            .map_max_entries("RINGS", cpus)
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(OBJECT)
            .map_err(classify)?;
        let mut instructions = Vec::new();
        for program in ProgramName::ALL {
            instructions.push((program.name(), load_program(&mut ebpf, program)?));
        }
        let machines = [
            chain(&mut ebpf, "MACHINE_XDP", &[ProgramName::MachineXdp])?,
            chain(
                &mut ebpf,
                "MACHINE_TC",
                &[ProgramName::MachineTc, ProgramName::CopiedTc, ProgramName::FollowTc],
            )?,
        ];
        let secret = options.secret;
        let part_v4 = FamilyTable::map(&mut ebpf, ["FLOWS_V4", "RECORDS_V4", "DIRECTORY_V4"], v4)?;
        let part_v6 = FamilyTable::map(&mut ebpf, ["FLOWS_V6", "RECORDS_V6", "DIRECTORY_V6"], v6)?;
        let table = Arc::new(Table::new(part_v4, part_v6, rated, secret));
        let settings = Array::try_from(take(&mut ebpf, ".data")?).map_err(other("opening the settings"))?;
        let clocks = Array::try_from(take(&mut ebpf, "CLOCKS")?).map_err(other("opening the clocks"))?;
        let counters =
            PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(other("opening the counters"))?;
        let events = Events::map(take(&mut ebpf, "RINGS")?, take(&mut ebpf, "EVENTS")?, cpus, ring_len)?;
        let diagnostics = options.diagnostics.then(|| EbpfLogger::init(&mut ebpf));
        let diagnostics = diagnostics.transpose().map_err(other("opening the programs' log"))?;
        let current =
            Settings { rules: options.rules, secret, slots_v4: v4, slots_v6: v6, ring_len, ..Settings::NONE };
        let mut kernel = Kernel {
            ebpf,
            table,
            settings,
            current,
            counters,
            clocks,
            events: Some(events),
            diagnostics: diagnostics.map(Diagnostics::new),
            _machines: machines,
            instructions,
        };
        kernel.relate_clocks()?;
        Ok(kernel)
    }

    /// The flow table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.current.rules
    }

    /// Changes the rules of the state machine.
    pub fn set_rules(&mut self, rules: Rules) -> Result<(), KernelError> {
        self.current.rules = rules;
        self.apply_settings()
    }

    /// Replaces the kernel's clock, for tests; 0 gives it back.
    pub fn set_clock_ns(&mut self, clock_ns: u64) -> Result<(), KernelError> {
        self.current.clock_ns = clock_ns;
        self.apply_settings()
    }

    fn apply_settings(&mut self) -> Result<(), KernelError> {
        self.current.steady_silence_ns = self.current.rules.steady_silence_ns();
        let mut settings = self.current;
        if settings.clock_ns != 0 {
            settings.jiffy_ns = 0;
        }
        self.settings.set(0, PodSettings(settings), 0).map_err(other("writing the settings"))
    }

    /// The counters, summed over the CPUs.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let per_cpu = self.counters.get(&0, 0).map_err(other("reading the counters"))?;
        Ok(table::sum(per_cpu.iter().map(|cpu| &cpu.0)))
    }

    /// The rings of events; once.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// What the programs say, if they were loaded to say it; once.
    pub fn take_diagnostics(&mut self) -> Option<Diagnostics> {
        self.diagnostics.take()
    }

    /// How many instructions the verifier walked for each program.
    pub fn verified_instructions(&self) -> &[(&'static str, u32)] {
        &self.instructions
    }

    /// How often each program ran and how long that took: the kernel counts it while the sysctl
    /// `kernel.bpf_stats_enabled` is 1.
    pub fn program_runs(&self) -> Result<Vec<ProgramRuns>, KernelError> {
        let info = |name: &ProgramName| {
            let info = match self.ebpf.program(name.name()) {
                Some(Program::Xdp(xdp)) => xdp.info(),
                Some(Program::SchedClassifier(tc)) => tc.info(),
                _ => return Err(KernelError::NotSupported(format!("no program {}", name.name()))),
            }
            .map_err(other("asking for a program's runs"))?;
            Ok(ProgramRuns { program: name.name(), runs: info.run_count(), duration: info.run_time() })
        };
        ProgramName::ALL.iter().map(info).collect()
    }

    /// Runs a program over one frame (`BPF_PROG_TEST_RUN`), `repeat` times. Returns its verdict and the kernel's mean
    /// duration of a run.
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
            _ => return Err(KernelError::NotSupported(format!("no program {}", program.name()))),
        }
        .map_err(other("running a program on a frame"))?;
        Ok((result.return_value, result.duration))
    }

    fn xdp(&mut self, name: ProgramName) -> Result<&mut Xdp, KernelError> {
        program(&mut self.ebpf, name)?.try_into().map_err(other("finding an XDP program"))
    }

    fn classifier(&mut self, name: ProgramName) -> Result<&mut SchedClassifier, KernelError> {
        program(&mut self.ebpf, name)?.try_into().map_err(other("finding a TC program"))
    }
}

fn program(ebpf: &mut Ebpf, name: ProgramName) -> Result<&mut Program, KernelError> {
    ebpf.program_mut(name.name())
        .ok_or_else(|| KernelError::NotSupported(format!("the object has no program {}", name.name())))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(name).ok_or_else(|| KernelError::NotSupported(format!("the object has no map {name}")))
}

/// Puts programs behind the entry programs, where their tail calls look for them.
fn chain(
    ebpf: &mut Ebpf,
    map: &'static str,
    behind: &[ProgramName],
) -> Result<ProgramArray<MapData>, KernelError> {
    let mut programs = ProgramArray::try_from(take(ebpf, map)?).map_err(other("opening a program array"))?;
    for (index, &name) in (0..).zip(behind) {
        let fd = match program(ebpf, name)? {
            Program::Xdp(xdp) => xdp.fd(),
            Program::SchedClassifier(tc) => tc.fd(),
            _ => return Err(KernelError::NotSupported(format!("{} is of an unknown kind", name.name()))),
        };
        let fd = fd.map_err(other("finding a program"))?;
        programs.set(index, fd, 0).map_err(other("putting a program behind the others"))?;
    }
    Ok(programs)
}

/// Loads one program, returns the verifier's instruction count.
fn load_program(ebpf: &mut Ebpf, name: ProgramName) -> Result<u32, KernelError> {
    let loaded = match program(ebpf, name)? {
        Program::Xdp(xdp) => xdp.load().and_then(|()| xdp.info()),
        Program::SchedClassifier(tc) => tc.load().and_then(|()| tc.info()),
        _ => return Err(KernelError::NotSupported(format!("{} is of an unknown kind", name.name()))),
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
        Err(error) => Err(other("loading a program")(error)),
    }
}

fn random_secret() -> Secret {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's keys come from the system's random source.
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish() as u32;
    Secret([[(); 2]; 5].map(|pair| pair.map(|()| random())))
}
