//! How many connections to a destination were opened and closed lately.

use super::forecast::Rates;

/// Opens and closes of the last [`WINDOWS_NS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    windows: [Window; WINDOWS_NS.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    opened: u32,
    released: u32,
    waiting: u32,
    /// Age of the oldest opening.
    oldest_ns: u64,
}

impl Activity {
    /// Counts a connection that was opened some time ago.
    pub(super) fn opened(&mut self, age_ns: u64) {
        for window in self.containing(age_ns) {
            window.opened += 1;
            window.oldest_ns = window.oldest_ns.max(age_ns);
        }
    }

    /// Counts a connection that ended some time ago without a TIME-WAIT.
    pub(super) fn released(&mut self, age_ns: u64) {
        self.containing(age_ns).for_each(|window| window.released += 1);
    }

    /// Counts a TIME-WAIT that began some time ago.
    pub(super) fn waiting(&mut self, age_ns: u64) {
        self.containing(age_ns).for_each(|window| window.waiting += 1);
    }

    /// The rates in the window in which more was opened, from its first opening on.
    pub(super) fn rates(&self) -> Rates {
        let rates = self.windows.map(|window| {
            let seconds = (window.oldest_ns as f64 / 1e9).max(SHORTEST_S);
            let [opening, releasing, waiting] =
                [window.opened, window.released, window.waiting].map(|count| f64::from(count) / seconds);
            Rates { opening, releasing, waiting }
        });
        rates.into_iter().reduce(|a, b| if b.opening > a.opening { b } else { a }).unwrap_or_default()
    }

    fn containing(&mut self, age_ns: u64) -> impl Iterator<Item = &mut Window> {
        self.windows.iter_mut().zip(WINDOWS_NS).filter(move |(_, ns)| age_ns <= *ns).map(|(window, _)| window)
    }
}

const WINDOWS_NS: [u64; 2] = [60_000_000_000, 10_000_000_000];
/// A burst in less time counts as if it took so long, in s.
const SHORTEST_S: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_rate_begins_with_the_first_opening() {
        let mut activity = Activity::default();
        (1..=400).for_each(|index| activity.opened(index * S / 100));
        activity.waiting(2 * S);
        activity.released(3 * S);
        assert_eq!(activity.rates(), Rates { opening: 100.0, releasing: 0.25, waiting: 0.25 });
    }

    #[test]
    fn a_sudden_rise_is_not_diluted_by_the_minute_before() {
        let mut activity = Activity::default();
        (0..60).for_each(|second| activity.opened(second * S));
        (1..=1_000).for_each(|index| activity.opened(index * S / 100));
        assert_eq!(activity.rates().opening, 101.1);
    }

    #[test]
    fn a_burst_counts_as_a_second_and_an_old_opening_not_at_all() {
        let mut activity = Activity::default();
        activity.opened(61 * S);
        assert_eq!(activity.rates(), Rates::default());
        (0..50).for_each(|_| activity.opened(S / 1_000));
        assert_eq!(activity.rates().opening, 50.0);
    }
}
