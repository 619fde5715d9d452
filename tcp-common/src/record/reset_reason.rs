//! Why this host's kernel has sent RSTs, as its tracepoint `tcp_send_reset` says (Linux 6.10 and newer).

use crate::key::Endpoint;

/// The ends of a RST. Addresses and ports as in [`Endpoint`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetEnds {
    /// Addresses: that of the end that sent the RST, that of its peer.
    pub addresses: [[u64; 2]; 2],
    /// Ports, in the same order.
    pub ports: [u16; 2],
    /// Padding.
    pub padding: u32,
}

const _: () = assert!(size_of::<ResetEnds>() == 40);

impl ResetEnds {
    /// The ends of a RST from `sender` to `receiver`.
    #[inline(always)]
    pub const fn new(sender: &Endpoint, receiver: &Endpoint) -> ResetEnds {
        ResetEnds {
            addresses: [sender.address, receiver.address],
            ports: [sender.port, receiver.port],
            padding: 0,
        }
    }
}

/// What the kernel said about the first of the RSTs that it sent within [`RESET_REASON_NS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetReason {
    /// Time on the kernel's monotonic clock, ns.
    pub at_ns: u64,
    /// Number of an `enum sk_rst_reason`. Its numbers differ between kernels.
    pub number: u32,
    /// Padding.
    pub padding: u32,
}

const _: () = assert!(size_of::<ResetReason>() == 16);

/// Where the kernel has what the program reads, in bytes from the beginning of a structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each is the member of that name of `struct sk_buff`, `inet_sock` or `sock_common`"
)]
pub struct SocketOffsets {
    pub head: u32,
    pub network_header: u32,
    pub transport_header: u32,
    pub skc_family: u32,
    pub inet_sport: u32,
    pub skc_dport: u32,
    pub skc_rcv_saddr: u32,
    pub skc_daddr: u32,
    pub skc_v6_rcv_saddr: u32,
    pub skc_v6_daddr: u32,
}

/// For so long the first reason stands, in ns: what arrives after an abort is answered by a RST with another reason.
pub const RESET_REASON_NS: u64 = 1_000_000_000;
