//! Capture points: the interfaces of a capture, numbered so that an interface keeps its number in the next
//! section. Each section numbers its interfaces from 0 again, and may describe fewer or more of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::CaptureInterface;

/// Numbers the interfaces of all sections of a capture, from 1.
#[derive(Default)]
pub(super) struct CapturePoints {
    /// Points of the previous section, by the name of their interface.
    named: HashMap<Arc<str>, u32>,
    /// Number of interfaces of this section that were numbered.
    numbered: usize,
    /// Whether an interface of this section has the point, by point.
    taken: Vec<bool>,
    /// No point below is free in this section.
    lowest_free: u32,
}

impl CapturePoints {
    /// Numbers the interfaces of this section that were described since the last call: with the point of the
    /// previous section's interface of the same name, otherwise with the lowest free point. Frames of an
    /// interface without a known link type are not read, so it has no point.
    pub(super) fn assign(&mut self, interfaces: &mut [CaptureInterface]) {
        let Some(added) = interfaces.get_mut(self.numbered..).filter(|added| !added.is_empty()) else {
            return;
        };
        self.numbered += added.len();
        let mut added: Vec<_> = added.iter_mut().filter(|interface| interface.link.is_some()).collect();
        for interface in &mut added {
            let point = interface.name.as_ref().and_then(|name| self.named.get(name)).copied();
            interface.point = point.filter(|point| self.take(*point)).unwrap_or(0);
        }
        for interface in added.into_iter().filter(|interface| interface.point == 0) {
            interface.point = self.take_lowest();
        }
    }

    /// Ends a section with these interfaces. No interface of the next one is numbered.
    pub(super) fn end_section(&mut self, interfaces: &[CaptureInterface]) {
        let points = interfaces.iter().filter(|interface| interface.point != 0);
        self.named.clear();
        self.named.extend(points.filter_map(|interface| Some((interface.name.clone()?, interface.point))));
        self.numbered = 0;
        self.taken.clear();
        self.lowest_free = 0;
    }

    /// Takes a point. Returns whether it was free.
    fn take(&mut self, point: u32) -> bool {
        let at = point as usize;
        if self.taken.len() <= at {
            self.taken.resize(at + 1, false);
        }
        !std::mem::replace(&mut self.taken[at], true)
    }

    fn take_lowest(&mut self) -> u32 {
        loop {
            self.lowest_free += 1;
            if self.take(self.lowest_free) {
                return self.lowest_free;
            }
        }
    }
}
