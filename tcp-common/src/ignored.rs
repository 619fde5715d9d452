//! The reasons for which a packet belongs to no flow. Every packet is tracked or counted under exactly one
//! of these.

use strum::{IntoStaticStr, VariantArray};

/// Why a packet belongs to no flow: the label `reason` of `finwait_packets_ignored_total`.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Ignored {
    /// Not IPv4 or IPv6 with TCP inside.
    NotTcp = 0,
    /// A later fragment: it carries no ports.
    FragmentLater = 1,
    /// The first fragment of several: the length of its segment is unknown.
    FragmentFirst = 2,
    /// The frame ends inside the headers.
    Truncated = 3,
    /// Lengths or versions contradict each other.
    Malformed = 4,
    /// More VLAN tags or IPv6 extension headers than finwait reads.
    Unsupported = 5,
    /// A combination of flags that every stack drops.
    BadFlags = 6,
    /// A segment that belongs to no flow and begins none, such as a late RST.
    NoFlow = 7,
    /// The same packet was counted at another hook.
    Duplicate = 8,
    /// A socket connected to itself: the direction is unknown.
    SelfConnect = 9,
    /// No room in the flow table and nothing that may be evicted.
    TableFull = 10,
    /// The flow's slot was busy for too long and the ring was full as well.
    Contended = 11,
    /// The tail call found no program.
    NoProgram = 12,
    /// A segment with the addresses and ports of a flow in another VLAN or at another hook, whose numbers do
    /// not belong to that flow.
    OtherNetwork = 13,
}

impl Ignored {
    /// How many reasons there are; reasons index arrays of this length.
    pub const COUNT: usize = Ignored::VARIANTS.len();

    /// Every reason, in the order of their numbers.
    pub const ALL: [Ignored; Ignored::COUNT] = match Ignored::VARIANTS.first_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    };

    /// The metric's label value: `fragment_later`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
