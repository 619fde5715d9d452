//! Counts of frames, by what became of them.

use std::fmt;

use tcp_common::Ignored;

/// Counts of one replay: `frames` equals `tracked` plus the frames that were ignored plus
/// `fragments_pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames in the capture.
    pub frames: u64,
    /// Frames whose segment belongs to a flow.
    pub tracked: u64,
    /// Frames without a flow, by [`Ignored`].
    pub ignored_by: [u64; Ignored::COUNT],
    /// Fragments that wait for the rest of their datagram.
    pub fragments_pending: u64,
    /// Frames of an interface with a link type that finwait does not read.
    pub foreign_link: u64,
    /// Frames whose segment was dropped because of a bad TCP checksum.
    pub bad_checksum: u64,
    /// Segments with a bad TCP checksum, dropped or not; only of those captured whole.
    pub checksum_wrong: u64,
    /// Segments captured before the NIC filled in the checksum. They are never dropped.
    pub checksum_offloaded: u64,
    /// Frames with a time before that of an earlier frame. The earlier frame's time is used for them.
    pub out_of_order: u64,
    /// Frames with a time that cannot be right. They count as captured with the frame before them.
    pub impossible_times: u64,
    /// Incarnations that began.
    pub connections: u64,
}

impl Statistics {
    /// The reasons for which frames were ignored, with their counts, without those that did not occur.
    pub fn ignored(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let reasons = Ignored::ALL.iter().map(|reason| (reason.name(), self.ignored_by[*reason as usize]));
        reasons
            .chain([("foreign_link", self.foreign_link), ("bad_checksum", self.bad_checksum)])
            .filter(|(_, count)| *count != 0)
    }
}

/// One line of text: `1204 frames: 1200 tracked, 4 not tcp`.
impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames: {} tracked", self.frames, self.tracked)?;
        for (reason, count) in self.ignored() {
            write!(f, ", {count} {}", reason.replace('_', " "))?;
        }
        Ok(())
    }
}
