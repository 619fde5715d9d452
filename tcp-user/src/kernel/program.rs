//! The names of the programs.

use std::time::Duration;

/// The programs of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramName {
    /// Entry program of XDP, ingress.
    Xdp,
    /// Entry program of TC, ingress.
    In,
    /// Entry program of TC, egress.
    Out,
    /// Entry program of TC, ingress, for interfaces without a link-layer header.
    InIp,
    /// Entry program of TC, egress, for interfaces without a link-layer header.
    OutIp,
    /// The machine behind the XDP program.
    MachineXdp,
    /// The machine behind the TC programs.
    MachineTc,
    /// Reads packets whose headers are not in their linear part.
    MachineTcCopy,
    /// The machine behind `MachineTcCopy`.
    MachineTcApply,
    /// Reads the kernel's clocks when the agent runs it. Never attached.
    Clocks,
}

impl ProgramName {
    /// Every program.
    pub const ALL: [ProgramName; 10] = [
        ProgramName::Xdp,
        ProgramName::In,
        ProgramName::Out,
        ProgramName::InIp,
        ProgramName::OutIp,
        ProgramName::MachineXdp,
        ProgramName::MachineTc,
        ProgramName::MachineTcCopy,
        ProgramName::MachineTcApply,
        ProgramName::Clocks,
    ];

    /// Returns the name of the program in the object.
    pub const fn name(self) -> &'static str {
        match self {
            ProgramName::Xdp => "finwait_xdp",
            ProgramName::In => "finwait_in",
            ProgramName::Out => "finwait_out",
            ProgramName::InIp => "finwait_in_ip",
            ProgramName::OutIp => "finwait_out_ip",
            ProgramName::MachineXdp => "finwait_machine_xdp",
            ProgramName::MachineTc => "finwait_machine_tc",
            ProgramName::MachineTcCopy => "finwait_machine_tc_copy",
            ProgramName::MachineTcApply => "finwait_machine_tc_apply",
            ProgramName::Clocks => "finwait_clocks",
        }
    }
}

/// How often and for how long a program ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramRuns {
    /// Name of the program.
    pub program: &'static str,
    /// Number of runs. The kernel counts a program behind a tail call as part of its entry program.
    pub runs: u64,
    /// Total duration of all runs.
    pub duration: Duration,
}
