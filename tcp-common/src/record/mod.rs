//! What crosses the kernel boundary: the flow table's slots, events, counters and settings.
//!
//! All types are `#[repr(C)]` integers with explicit padding and an asserted size. None contains an enum: bytes become
//! enums by `from_repr` only, so that any content is valid.

mod counters;
mod event;
mod other_network;
mod report;
mod reset_reason;
mod settings;
mod sighting;
mod slot;
pub mod tail_call;
mod time_wait;
mod waiting;

pub use counters::{Counters, predicted, segment_kind};
pub use event::{Event, EventHeader, RingPositions, event_kind};
pub use other_network::ForeignSegment;
pub use report::reported;
pub use reset_reason::{RESET_REASON_NS, ResetEnds, ResetReason, SocketOffsets};
pub use settings::{Clocks, Settings};
pub use sighting::{Sighting, Sightings, Verdict};
pub use slot::{Record, Slot, Slot4, Slot6, short_hook};
pub use time_wait::TimeWaitVisit;
pub use waiting::{FRAGMENT_NS, MAX_WAITING, WaitingDatagram, WholeDatagram};
