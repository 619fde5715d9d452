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
    /// Entry program of TC, egress, in the last place behind programs of others.
    Last,
    /// Entry program of TC, egress, in the last place behind programs of others, for interfaces without a
    /// link-layer header.
    LastIp,
    /// Reads a packet and locks its flow, behind the XDP program.
    ReadXdp,
    /// Joins fragments.
    FragmentXdp,
    /// Checks the options of IPv4.
    OptionsXdp,
    /// Locks the flow of what the last two have read.
    LockXdp,
    /// Applies the segment.
    ApplyXdp,
    /// Publishes what the segment did, and unlocks the flow.
    FinishXdp,
    /// Applies ICMP errors.
    IcmpXdp,
    /// Reads a packet and locks its flow, behind the TC programs.
    ReadTc,
    /// Reads packets whose headers are not in their linear part.
    CopyTc,
    /// Joins fragments.
    FragmentTc,
    /// Checks the options of IPv4.
    OptionsTc,
    /// Locks the flow of what the last three have read.
    LockTc,
    /// Applies the segment.
    ApplyTc,
    /// Publishes what the segment did, and unlocks the flow.
    FinishTc,
    /// Applies ICMP errors.
    IcmpTc,
    /// Reads the kernel's clocks when the agent runs it. Never attached.
    Clocks,
}

impl ProgramName {
    /// Every program.
    pub const ALL: [ProgramName; 23] = [
        ProgramName::Xdp,
        ProgramName::In,
        ProgramName::Out,
        ProgramName::InIp,
        ProgramName::OutIp,
        ProgramName::Last,
        ProgramName::LastIp,
        ProgramName::ReadXdp,
        ProgramName::FragmentXdp,
        ProgramName::OptionsXdp,
        ProgramName::LockXdp,
        ProgramName::ApplyXdp,
        ProgramName::FinishXdp,
        ProgramName::IcmpXdp,
        ProgramName::ReadTc,
        ProgramName::CopyTc,
        ProgramName::FragmentTc,
        ProgramName::OptionsTc,
        ProgramName::LockTc,
        ProgramName::ApplyTc,
        ProgramName::FinishTc,
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
            ProgramName::Last => "finwait_last",
            ProgramName::LastIp => "finwait_last_ip",
            ProgramName::ReadXdp => "finwait_read_xdp",
            ProgramName::FragmentXdp => "finwait_fragment_xdp",
            ProgramName::OptionsXdp => "finwait_options_xdp",
            ProgramName::LockXdp => "finwait_lock_xdp",
            ProgramName::ApplyXdp => "finwait_apply_xdp",
            ProgramName::FinishXdp => "finwait_finish_xdp",
            ProgramName::IcmpXdp => "finwait_icmp_xdp",
            ProgramName::ReadTc => "finwait_read_tc",
            ProgramName::CopyTc => "finwait_copy_tc",
            ProgramName::FragmentTc => "finwait_fragment_tc",
            ProgramName::OptionsTc => "finwait_options_tc",
            ProgramName::LockTc => "finwait_lock_tc",
            ProgramName::ApplyTc => "finwait_apply_tc",
            ProgramName::FinishTc => "finwait_finish_tc",
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
