//! The programs by name.

use std::time::Duration;

/// The programs of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramName {
    /// XDP, ingress.
    Xdp,
    /// TC ingress.
    In,
    /// TC egress.
    Out,
    /// TC ingress of an interface without link-layer header.
    InIp,
    /// TC egress of such an interface.
    OutIp,
    /// The machine behind the XDP program.
    MachineXdp,
    /// The machine behind the TC programs.
    MachineTc,
    /// Reads packets whose headers are not in their linear part.
    CopiedTc,
    /// The machine behind that one.
    FollowTc,
    /// Reads the kernel's clocks, on request.
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
        ProgramName::CopiedTc,
        ProgramName::FollowTc,
        ProgramName::Clocks,
    ];

    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            ProgramName::Xdp => "finwait_xdp",
            ProgramName::In => "finwait_in",
            ProgramName::Out => "finwait_out",
            ProgramName::InIp => "finwait_in_ip",
            ProgramName::OutIp => "finwait_out_ip",
            ProgramName::MachineXdp => "finwait_machine_xdp",
            ProgramName::MachineTc => "finwait_machine_tc",
            ProgramName::CopiedTc => "finwait_copied_tc",
            ProgramName::FollowTc => "finwait_follow_tc",
            ProgramName::Clocks => "finwait_clocks",
        }
    }
}

/// How often a program ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramRuns {
    /// Its name.
    pub program: &'static str,
    /// Runs; a program that an entry program called by tail call runs as part of that one.
    pub runs: u64,
    /// All of them together.
    pub duration: Duration,
}
