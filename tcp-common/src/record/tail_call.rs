//! Indices of the programs in the program arrays, by which programs reach the next one of their chain by tail calls.
//!
//! XDP: entry program, then [`MACHINE_XDP`]. TC: entry program, then [`MACHINE_TC`]; if the headers are not in the
//! packet's linear part, then [`MACHINE_TC_COPY`] and [`MACHINE_TC_APPLY`].

/// Runs the whole machine, behind the XDP entry program.
pub const MACHINE_XDP: u32 = 0;
/// Length of the program array of XDP.
pub const MACHINES_XDP: u32 = 1;

/// Runs the whole machine, behind the TC entry programs.
pub const MACHINE_TC: u32 = 0;
/// Copies and reads headers that are not in the packet's linear part.
pub const MACHINE_TC_COPY: u32 = 1;
/// Runs the machine on what [`MACHINE_TC_COPY`] has read.
pub const MACHINE_TC_APPLY: u32 = 2;
/// Length of the program array of TC.
pub const MACHINES_TC: u32 = 3;
