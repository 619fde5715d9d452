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
    /// A fragment from the middle of a datagram, or one whose datagram did not become whole in 2 s.
    Fragment = 1,
    /// An ICMP error about a TCP segment that ended no connection attempt.
    Icmp = 2,
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
    /// Anything in GRE (RFC 2784).
    Gre = 14,
    /// IPv4 in IPv4 (RFC 2003).
    Ipip = 15,
    /// IPv6 in IPv4 (RFC 4213).
    #[strum(serialize = "6in4")]
    SixInFour = 16,
    /// IPv4 in IPv6 (RFC 2473).
    #[strum(serialize = "4in6")]
    FourInSix = 17,
    /// IPv6 in IPv6 (RFC 2473).
    #[strum(serialize = "6in6")]
    SixInSix = 18,
    /// MPLS (RFC 3032).
    Mpls = 19,
    /// PPPoE (RFC 2516).
    Pppoe = 20,
    /// UDP to a port of VXLAN: 4789 (RFC 7348), or 8472, Linux's default.
    Vxlan = 21,
    /// UDP to the port of GENEVE, 6081 (RFC 8926).
    Geneve = 22,
    /// UDP to the port of GTP-U, 2152 (3GPP TS 29.281).
    GtpU = 23,
    /// With VLAN tags in the key: as many combinations of tags as can be distinguished have been seen before.
    TooManyVlans = 24,
}

impl Ignored {
    /// How many reasons there are; reasons index arrays of this length.
    pub const COUNT: usize = Ignored::VARIANTS.len();

    /// Every reason, in the order of their numbers.
    pub const ALL: [Ignored; Ignored::COUNT] = match Ignored::VARIANTS.first_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    };

    /// Whether there is no TCP behind the IP header, or no IP header: it is something else, or an encapsulation.
    #[inline(always)]
    pub const fn is_not_tcp(self) -> bool {
        matches!(
            self,
            Ignored::NotTcp
                | Ignored::Gre
                | Ignored::Ipip
                | Ignored::SixInFour
                | Ignored::FourInSix
                | Ignored::SixInSix
                | Ignored::Mpls
                | Ignored::Pppoe
                | Ignored::Vxlan
                | Ignored::Geneve
                | Ignored::GtpU
        )
    }

    /// The metric's label value: `not_tcp`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
