//! Options of IPv4 (RFC 791 3.1): whether a host accepts a packet that has them.

use core::hint::black_box;

use super::{Bytes, Datagram, Header as _};
use crate::ignored::Ignored;

/// Checks the options as Linux does before it passes a packet on (`__ip_options_compile`).
///
/// # Errors
///
/// [`Ignored::Malformed`] if a host drops the packet for them.
#[inline(always)]
pub fn check_options<B: Bytes + ?Sized>(bytes: &B, datagram: &Datagram) -> Result<(), Ignored> {
    let start = datagram.ip_offset as usize + 20;
    let len = datagram.ip_options as u32 & 63;
    let mut at = 0u32;
    // The kinds of which a packet may have one each.
    let mut seen = 0u32;
    for _ in 0..MAX_OPTIONS {
        // Through memory: the verifier then has one state a step, not one for each path to it.
        (at, seen) = (black_box(at) & 63, black_box(seen));
        if at >= len {
            break;
        }
        let here = start + at as usize;
        let rest = len - at;
        let kind = byte(bytes, here)?;
        if kind == END {
            break;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        if rest < 2 {
            return Err(Ignored::Malformed);
        }
        let size = byte(bytes, here + 1)? as u32;
        if size < 2 || size > rest {
            return Err(Ignored::Malformed);
        }
        let bit = match kind {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => 1,
            RECORD_ROUTE => 2,
            TIMESTAMP => 4,
            _ => 0,
        };
        if seen & bit != 0 || (bit != 0 && !is_list(bytes, here, kind, size)?) || (kind == ALERT && size < 4)
        {
            return Err(Ignored::Malformed);
        }
        seen |= bit;
        at += size;
    }
    Ok(())
}

/// Whether an option with a pointer into a list of addresses or timestamps is well formed.
#[inline(always)]
fn is_list<B: Bytes + ?Sized>(bytes: &B, here: usize, kind: u8, size: u32) -> Result<bool, Ignored> {
    if size < 3 {
        return Ok(false);
    }
    let pointer = byte(bytes, here + 2)? as u32;
    Ok(match kind {
        RECORD_ROUTE => pointer >= 4 && (pointer > size || pointer + 3 <= size),
        TIMESTAMP => {
            if size < 4 {
                return Ok(false);
            }
            let flags = byte(bytes, here + 3)?;
            let with_address = matches!(flags & 15, ADDRESSES | GIVEN_ADDRESSES);
            if pointer > size {
                // The number of hosts that found no room must not overflow.
                pointer >= 5 && (flags & 15 == GIVEN_ADDRESSES || flags >> 4 != 15)
            } else {
                pointer >= 5 && pointer + if with_address { 7 } else { 3 } <= size
            }
        }
        // A source route; its pointer may have passed the end.
        _ => pointer >= 4,
    })
}

#[inline(always)]
fn byte<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Result<u8, Ignored> {
    bytes.header::<1>(offset).map(|header| header.u8(0)).ok_or(Ignored::Truncated)
}

const END: u8 = 0;
const NOP: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ALERT: u8 = 148;
/// Flags of the timestamp option: addresses are recorded as well, or given by the sender.
const ADDRESSES: u8 = 1;
const GIVEN_ADDRESSES: u8 = 3;
/// Maximum length of the options, in bytes.
const MAX_OPTIONS: u32 = 40;
