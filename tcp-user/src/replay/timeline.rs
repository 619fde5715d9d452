//! Which timestamps of a capture move the clock.
//!
//! One wrong timestamp, decades ahead, would end every connection as timed out. So a frame that is far ahead
//! of the frame before it is held until the frames after it show whether the time has really moved on. At
//! most [`CONFIRMATIONS`] + 1 frames are held, and only while the input has more bytes to read: on a pipe
//! without traffic, [`Timeline::release`] decides without them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::link::LinkType;
use super::tracker::{Frame, Replay};
use super::warning::Warning;

/// Passes the frames of a capture to a replay, in their order. Takes away the timestamps that cannot be
/// right.
#[derive(Default)]
pub(super) struct Timeline {
    /// Number of frames so far.
    frames: u64,
    /// Latest timestamp that was accepted, ns; `None` before the first.
    clock_ns: Option<u64>,
    /// Accepted timestamp of the previous frame, ns.
    previous_ns: u64,
    held: VecDeque<HeldFrame>,
}

/// A copy of a frame that waits for those after it.
struct HeldFrame {
    number: u64,
    bytes: Vec<u8>,
    wire_len: usize,
    link: Option<LinkType>,
    at_ns: Option<u64>,
    interface: Option<Arc<str>>,
    point: u32,
}

/// What became of a timestamp.
#[derive(Clone, Copy)]
enum StampVerdict {
    Accepted,
    /// The frame counts as captured at this time, ns; `None` for that of the frame before it.
    Rejected(Option<u64>),
}

impl Timeline {
    /// Passes a frame on, or holds it until the next frames.
    pub(super) fn push(&mut self, frame: &Frame<'_>, replay: &mut Replay) {
        self.frames += 1;
        if self.held.is_empty() && !self.is_suspect(frame.at_ns) {
            self.pass(frame, self.frames, StampVerdict::Accepted, replay);
            return;
        }
        self.held.push_back(HeldFrame::new(frame, self.frames));
        self.pass_held(false, replay);
    }

    /// Whether frames are being held.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Passes on the frames that are held, since no others follow for now.
    pub(super) fn release(&mut self, replay: &mut Replay) {
        self.pass_held(true, replay);
    }

    fn pass_held(&mut self, is_last: bool, replay: &mut Replay) {
        while let Some(verdict) = self.judge(is_last) {
            let Some(held) = self.held.pop_front() else { return };
            self.pass(&held.frame(), held.number, verdict, replay);
        }
    }

    /// Whether the frame must wait for others: it is the first, or far ahead of the clock.
    fn is_suspect(&self, at_ns: Option<u64>) -> bool {
        at_ns.is_some_and(|at_ns| {
            self.clock_ns.is_none_or(|clock_ns| at_ns.saturating_sub(clock_ns) > AHEAD_NS)
        })
    }

    /// Judges the first frame that is held by those after it; `None` if more of them are needed. With
    /// `is_last` no others follow.
    fn judge(&self, is_last: bool) -> Option<StampVerdict> {
        let first = self.held.front()?;
        let Some(at_ns) = first.at_ns.filter(|at_ns| self.is_suspect(Some(*at_ns))) else {
            return Some(StampVerdict::Accepted);
        };
        let mut later = self.held.iter().skip(1).filter_map(|held| held.at_ns);
        let is_enough = is_last || self.held.len() > CONFIRMATIONS;
        let Some(clock_ns) = self.clock_ns else {
            return judge_first(at_ns, later, is_enough);
        };
        if later.clone().any(|later_ns| !is_nearer(later_ns, at_ns, clock_ns)) {
            return Some(StampVerdict::Rejected(None));
        }
        let is_confirmed = later.next().is_some() || at_ns - clock_ns <= FAR_NS;
        is_enough.then_some(if is_confirmed { StampVerdict::Accepted } else { StampVerdict::Rejected(None) })
    }

    fn pass(&mut self, frame: &Frame<'_>, number: u64, verdict: StampVerdict, replay: &mut Replay) {
        match (verdict, frame.at_ns) {
            (StampVerdict::Accepted, Some(at_ns)) => {
                if at_ns < self.previous_ns {
                    replay.warn(Warning::StepBack { frame: number, by_ns: self.previous_ns - at_ns });
                }
                self.previous_ns = at_ns;
                self.clock_ns = Some(self.clock_ns.map_or(at_ns, |clock_ns| clock_ns.max(at_ns)));
                replay.push(frame);
            }
            (StampVerdict::Rejected(instead_ns), Some(at_ns)) => {
                replay.warn(Warning::Outlier { frame: number, at_ns });
                self.clock_ns = instead_ns.or(self.clock_ns);
                replay.push(&Frame { at_ns: instead_ns, ..*frame });
            }
            (_, None) => replay.push(frame),
        }
    }
}

/// Judges the timestamp of a capture's first frame by those of the frames after it. It is wrong if they agree
/// with each other and are earlier, or later by more than a pause can explain.
fn judge_first(
    at_ns: u64,
    later: impl Iterator<Item = u64> + Clone,
    is_enough: bool,
) -> Option<StampVerdict> {
    if later.clone().any(|later_ns| later_ns.abs_diff(at_ns) <= AHEAD_NS) {
        return Some(StampVerdict::Accepted);
    }
    if !is_enough {
        return None;
    }
    let Some(next_ns) = later.clone().next() else { return Some(StampVerdict::Accepted) };
    let agree = later.clone().all(|later_ns| is_nearer(later_ns, next_ns, at_ns));
    let is_wrong = agree && (next_ns < at_ns || next_ns - at_ns > FAR_NS);
    Some(if is_wrong { StampVerdict::Rejected(Some(next_ns)) } else { StampVerdict::Accepted })
}

/// Whether a time is nearer to `this` than to `other`.
fn is_nearer(ns: u64, this: u64, other: u64) -> bool {
    ns.abs_diff(this) < ns.abs_diff(other)
}

impl HeldFrame {
    fn new(frame: &Frame<'_>, number: u64) -> HeldFrame {
        HeldFrame {
            number,
            bytes: frame.bytes.to_vec(),
            wire_len: frame.wire_len,
            link: frame.link,
            at_ns: frame.at_ns,
            interface: frame.interface.cloned(),
            point: frame.point,
        }
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            bytes: &self.bytes,
            wire_len: self.wire_len,
            link: self.link,
            at_ns: self.at_ns,
            interface: self.interface.as_ref(),
            point: self.point,
        }
    }
}

const SECOND_NS: u64 = 1_000_000_000;
/// How far a frame may be ahead of the frame before it without being held: less than the shortest idle
/// timeout.
const AHEAD_NS: u64 = 60 * SECOND_NS;
/// Maximum pause that is accepted when no frame follows that confirms it: 30 days.
const FAR_NS: u64 = 30 * 86_400 * SECOND_NS;
/// Number of frames that must agree with a jump before the clock follows it.
const CONFIRMATIONS: usize = 3;
