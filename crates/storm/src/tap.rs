//! A network tap at the server host's port: it copies each frame to a third host, but misses some.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;

use finwait::lab::{LabError, Namespace, Tap};

use crate::packet_log::LoggedFrame;

/// The third host's interface.
pub(crate) const INTERFACE: &str = "mirror";

/// The network tap.
pub(crate) struct NetworkTap {
    mirror: Tap,
    seed: u64,
}

impl NetworkTap {
    /// Makes the third host and connects it to the tap.
    pub(crate) fn new(seed: u64) -> Result<(Namespace, NetworkTap), LabError> {
        let namespace = Namespace::new()?;
        let mirror = namespace.run(|| Tap::create(INTERFACE))??;
        namespace.ip("link set lo up")?;
        namespace.ip(&format!("link set {INTERFACE} up"))?;
        Ok((namespace, NetworkTap { mirror, seed }))
    }

    /// Copies the frame to the third host, or misses it. `again`: the link has duplicated the frame, and this
    /// is its second copy. Returns whether it was copied.
    pub(crate) fn show(&self, logged: &LoggedFrame, again: bool, frame: &[u8]) -> io::Result<bool> {
        let mut hasher = DefaultHasher::new();
        (self.seed, TAP, logged.key, logged.sender as usize, logged.number, again).hash(&mut hasher);
        let misses = fastrand::Rng::with_seed(hasher.finish()).f64() * 100.0 < MISSED_PERCENT;
        if !misses {
            self.mirror.send(frame)?;
        }
        Ok(!misses)
    }
}

/// Segments that the tap misses, in percent.
const MISSED_PERCENT: f64 = 1.0;
/// Distinguishes the tap's decisions from those of the link.
const TAP: u8 = 1;
