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
    /// The machine behind the next two programs.
    ApplyXdp,
    /// Joins fragments.
    FragmentXdp,
    /// Checks the options of IPv4.
    OptionsXdp,
    /// Applies ICMP errors.
    IcmpXdp,
    /// The machine behind the TC programs.
    MachineTc,
    /// Reads packets whose headers are not in their linear part.
    CopyTc,
    /// The machine behind `CopyTc` and the next two programs.
    ApplyTc,
    /// Joins fragments.
    FragmentTc,
    /// Checks the options of IPv4.
    OptionsTc,
    /// Applies ICMP errors.
    IcmpTc,
    /// Reads the kernel's clocks when the agent runs it. Never attached.
    Clocks,
}

impl ProgramName {
    /// Every program.
    pub const ALL: [ProgramName; 17] = [
        ProgramName::Xdp,
        ProgramName::In,
        ProgramName::Out,
        ProgramName::InIp,
        ProgramName::OutIp,
        ProgramName::MachineXdp,
        ProgramName::ApplyXdp,
        ProgramName::FragmentXdp,
        ProgramName::OptionsXdp,
        ProgramName::IcmpXdp,
        ProgramName::MachineTc,
        ProgramName::CopyTc,
        ProgramName::ApplyTc,
        ProgramName::FragmentTc,
        ProgramName::OptionsTc,
        ProgramName::IcmpTc,
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
            ProgramName::ApplyXdp => "finwait_apply_xdp",
            ProgramName::FragmentXdp => "finwait_fragment_xdp",
            ProgramName::OptionsXdp => "finwait_options_xdp",
            ProgramName::IcmpXdp => "finwait_icmp_xdp",
            ProgramName::MachineTc => "finwait_machine_tc",
            ProgramName::CopyTc => "finwait_copy_tc",
            ProgramName::ApplyTc => "finwait_apply_tc",
            ProgramName::FragmentTc => "finwait_fragment_tc",
            ProgramName::OptionsTc => "finwait_options_tc",
            ProgramName::IcmpTc => "finwait_icmp_tc",
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
