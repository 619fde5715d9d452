//! Indices of the programs in the program arrays, by which programs reach the next one of their chain by tail calls.
//! XDP and TC have an array each.
//!
//! Entry program, then [`MACHINE`], which follows nearly every packet to its end. What is rare goes on:
//!
//! - TC: headers that are not in the packet's linear part, to [`COPY`];
//! - a fragment, to [`FRAGMENT`]; a segment behind options of IPv4, to [`OPTIONS`]; from these three, once the segment
//!   is whole, to [`APPLY`];
//! - an ICMP message, to [`ICMP`].

/// Reads a packet and runs the whole machine.
pub const MACHINE: u32 = 0;
/// TC only: copies and reads headers that are not in the packet's linear part.
pub const COPY: u32 = 1;
/// Runs the machine on what another program has read.
pub const APPLY: u32 = 2;
/// Keeps a fragment until its datagram is whole.
pub const FRAGMENT: u32 = 3;
/// Checks the options of IPv4.
pub const OPTIONS: u32 = 4;
/// Reads an ICMP message and applies it.
pub const ICMP: u32 = 5;
/// Length of each program array.
pub const LEN: u32 = 6;
