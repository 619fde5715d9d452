//! IPv4 with options and fragments (RFC 791), IPv6 with extension headers (RFC 8200).

use super::Bytes;
use crate::{Endpoint, Ignored};

/// The IP version that the link header announces.
#[derive(Clone, Copy)]
pub(super) enum Network {
    V4,
    V6,
}

/// A datagram with TCP inside.
pub(super) struct Datagram {
    /// Address of the sender; the port is not known yet.
    pub(super) source: Endpoint,
    /// Address of the receiver; the port is not known yet.
    pub(super) destination: Endpoint,
    /// 4 or 6.
    pub(super) family: u16,
    /// Where the TCP header starts.
    pub(super) tcp_offset: usize,
    /// Octets of TCP header and payload in this datagram. The IP header says it: what pads a short frame is no payload.
    pub(super) tcp_len: usize,
    pub(super) first_fragment: bool,
}

/// The IP header at `offset` and all that lies between it and TCP.
#[inline(always)]
pub(super) fn read<B: Bytes + ?Sized>(
    bytes: &B,
    network: Network,
    offset: usize,
) -> Result<Datagram, Ignored> {
    match network {
        Network::V4 => read_v4(bytes, offset),
        Network::V6 => read_v6(bytes, offset),
    }
}

/// RFC 791 3.1.
#[inline(always)]
fn read_v4<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Result<Datagram, Ignored> {
    let header = bytes.read::<20>(offset).ok_or(Ignored::Truncated)?;
    let [version_ihl, _, total_high, total_low, _, _, fragment_high, fragment_low, _, protocol, ..] = header;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;

    let words = version_ihl & 0x0f;
    if version_ihl >> 4 != 4 || words < 5 {
        return Err(Ignored::Malformed);
    }
    if protocol != TCP {
        return Err(Ignored::NotTcp);
    }
    let tcp_offset = offset + words as usize * 4;
    let end = end(bytes, offset, u16::from_be_bytes([total_high, total_low]));
    let tcp_len = end.checked_sub(tcp_offset).ok_or(Ignored::Malformed)?;
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    if fragment & V4_FRAGMENT_OFFSET != 0 {
        return Err(Ignored::FragmentLater);
    }
    Ok(Datagram {
        source: Endpoint::v4([s0, s1, s2, s3], 0),
        destination: Endpoint::v4([d0, d1, d2, d3], 0),
        family: 4,
        tcp_offset,
        tcp_len,
        first_fragment: fragment & V4_MORE_FRAGMENTS != 0,
    })
}

/// RFC 8200 3.
#[inline(always)]
fn read_v6<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Result<Datagram, Ignored> {
    let [version, _, _, _, length_high, length_low, next, _] =
        bytes.read(offset).ok_or(Ignored::Truncated)?;
    let source = bytes.read(offset + 8).ok_or(Ignored::Truncated)?;
    let destination = bytes.read(offset + 24).ok_or(Ignored::Truncated)?;

    if version >> 4 != 6 {
        return Err(Ignored::Malformed);
    }
    let tcp = find_tcp(bytes, next, offset + 40)?;
    let end = end(bytes, offset + 40, u16::from_be_bytes([length_high, length_low]));
    let tcp_len = end.checked_sub(tcp.offset).ok_or(Ignored::Malformed)?;
    Ok(Datagram {
        source: Endpoint::v6(source, 0),
        destination: Endpoint::v6(destination, 0),
        family: 6,
        tcp_offset: tcp.offset,
        tcp_len,
        first_fragment: tcp.first_fragment,
    })
}

/// Where the datagram ends, by a length field that counts from `start`. Length 0 stands for one too big for the field:
/// super-packets of the segmentation offloads (BIG TCP) and jumbograms (RFC 2675). The frame's length is all there is then.
#[inline(always)]
fn end<B: Bytes + ?Sized>(bytes: &B, start: usize, length: u16) -> usize {
    if length == 0 { bytes.wire_len() } else { start + length as usize }
}

struct FoundTcp {
    offset: usize,
    first_fragment: bool,
}

/// Follows the chain of extension headers from `offset` to TCP (RFC 8200 4).
#[inline(always)]
fn find_tcp<B: Bytes + ?Sized>(bytes: &B, first: u8, offset: usize) -> Result<FoundTcp, Ignored> {
    let mut tcp = FoundTcp { offset, first_fragment: false };
    let mut header = first;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(header) {
            break;
        }
        // All of them have eight octets or more, the first of which names the header that follows.
        let [following, length, third, fourth] = bytes.read(tcp.offset).ok_or(Ignored::Truncated)?;
        tcp.offset += match header {
            FRAGMENT => {
                let fragment = u16::from_be_bytes([third, fourth]);
                if fragment & V6_FRAGMENT_OFFSET != 0 {
                    return Err(later_fragment(following));
                }
                // Neither offset nor more to come: an atomic fragment, which is whole (RFC 6946).
                tcp.first_fragment |= fragment & V6_MORE_FRAGMENTS != 0;
                8
            }
            // In units of 4 octets, less 2 (RFC 4302 2.2).
            AUTHENTICATION => length as usize * 4 + 8,
            // In units of 8 octets, less 1 (RFC 6564 4).
            _ => length as usize * 8 + 8,
        };
        header = following;
    }
    match header {
        TCP => Ok(tcp),
        header if is_extension(header) => Err(Ignored::Unsupported),
        _ => Err(Ignored::NotTcp),
    }
}

/// A later fragment starts in the middle of the data; what is said to follow is in the first fragment (RFC 8200 4.5).
#[inline(always)]
const fn later_fragment(following: u8) -> Ignored {
    if following == TCP || is_extension(following) { Ignored::FragmentLater } else { Ignored::NotTcp }
}

/// The extension headers that another header can follow in the clear (RFC 7045 4).
#[inline(always)]
const fn is_extension(header: u8) -> bool {
    matches!(
        header,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6
    )
}

/// RFC 8200 4.1 has six in its order; a few more than that cost nothing.
const MAX_EXTENSION_HEADERS: u32 = 8;

// Protocol numbers, the same for IPv4's protocol and IPv6's next header (IANA, RFC 8200 4, RFC 7045 4).
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

// RFC 791 3.1, RFC 8200 4.5.
const V4_MORE_FRAGMENTS: u16 = 0x2000;
const V4_FRAGMENT_OFFSET: u16 = 0x1fff;
const V6_MORE_FRAGMENTS: u16 = 0x0001;
const V6_FRAGMENT_OFFSET: u16 = 0xfff8;
