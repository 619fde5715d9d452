//! Why a packet did not move a flow: every packet is tracked or ends in exactly one of these.

/// The reasons, as in `finwait_packets_ignored_total{reason}`.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Ignored {
    /// Not IPv4 or IPv6 with TCP inside.
    NotTcp = 0,
    /// A later fragment: it carries no ports.
    FragmentLater = 1,
    /// The first fragment of several: its segment's length is not known.
    FragmentFirst = 2,
    /// The frame ends before the headers do.
    Truncated = 3,
    /// Lengths or versions contradict each other.
    Malformed = 4,
    /// More VLAN tags or IPv6 extension headers than are followed.
    Unsupported = 5,
    /// A combination of flags that every stack drops.
    BadFlags = 6,
    /// Belongs to no flow and opens none: a late RST, a late ACK.
    NoFlow = 7,
    /// The same packet was counted at another hook.
    Duplicate = 8,
    /// A socket connected to itself: direction cannot be told.
    SelfConnect = 9,
    /// No room in the flow table and nothing that may be evicted.
    TableFull = 10,
    /// The flow's slot was busy for too long and the ring was full as well.
    Contended = 11,
}

impl Ignored {
    /// How many reasons there are.
    pub const COUNT: usize = 12;

    /// Every reason, in the order of their numbers.
    pub const ALL: [Ignored; Ignored::COUNT] = [
        Ignored::NotTcp,
        Ignored::FragmentLater,
        Ignored::FragmentFirst,
        Ignored::Truncated,
        Ignored::Malformed,
        Ignored::Unsupported,
        Ignored::BadFlags,
        Ignored::NoFlow,
        Ignored::Duplicate,
        Ignored::SelfConnect,
        Ignored::TableFull,
        Ignored::Contended,
    ];

    /// The metric's label value.
    pub const fn name(self) -> &'static str {
        match self {
            Ignored::NotTcp => "not_tcp",
            Ignored::FragmentLater => "fragment_later",
            Ignored::FragmentFirst => "fragment_first",
            Ignored::Truncated => "truncated",
            Ignored::Malformed => "malformed",
            Ignored::Unsupported => "unsupported",
            Ignored::BadFlags => "bad_flags",
            Ignored::NoFlow => "no_flow",
            Ignored::Duplicate => "duplicate",
            Ignored::SelfConnect => "self_connect",
            Ignored::TableFull => "table_full",
            Ignored::Contended => "contended",
        }
    }
}
