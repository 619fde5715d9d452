//! When the ports for a destination run out.

/// Connections to a destination per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Opened: each takes a port.
    pub(super) opening: f64,
    /// Closed without a TIME-WAIT here: each gives its port back at once.
    pub(super) releasing: f64,
    /// Closed with a TIME-WAIT here: each gives its port back later.
    pub(super) waiting: f64,
}

/// Time until no port is free, in s. `waits` are the times until each present TIME-WAIT gives its port back, in
/// order; `hold_s` is the length of those to come. `None` if the ports suffice for a day.
///
/// Ports are taken at a constant rate. Those of present TIME-WAITs come back when they end, and those of later
/// ones at the rate at which they begin, `hold_s` later.
pub(super) fn seconds_left(free: u32, rates: &Rates, waits: &[f64], hold_s: f64) -> Option<f64> {
    if free == 0 {
        return Some(0.0);
    }
    let taking = rates.opening - rates.releasing;
    if taking <= 0.0 {
        return None;
    }
    let mut free = f64::from(free);
    for &until_s in waits {
        if free / taking <= until_s {
            return Some(free / taking);
        }
        free += 1.0;
    }
    if free / taking <= hold_s {
        return Some(free / taking);
    }
    let growth = taking - rates.waiting;
    let left_s = (free - rates.waiting * hold_s) / growth;
    (growth > taking * LEAST_GROWTH && left_s <= HORIZON_S).then_some(left_s)
}

/// Part of the opened connections that must stay open to count: some are always about to close.
const LEAST_GROWTH: f64 = 0.02;
/// A day. Rates of a minute say nothing about later.
const HORIZON_S: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(opening: f64, releasing: f64, waiting: f64) -> Rates {
        Rates { opening, releasing, waiting }
    }

    #[test]
    fn ports_that_nobody_gives_back_run_out_at_the_rate_of_opens() {
        assert_eq!(seconds_left(600, &rates(10.0, 0.0, 0.0), &[], 60.0), Some(60.0));
        assert_eq!(seconds_left(600, &rates(10.0, 9.0, 0.0), &[], 60.0), Some(600.0));
        assert_eq!(seconds_left(600, &rates(10.0, 10.0, 0.0), &[], 60.0), None);
        assert_eq!(seconds_left(600, &Rates::default(), &[], 60.0), None);
        assert_eq!(seconds_left(0, &Rates::default(), &[], 60.0), Some(0.0));
        assert_eq!(seconds_left(60_000, &rates(0.5, 0.0, 0.0), &[], 60.0), None, "more than a day");
    }

    /// 500 ports a second for 10 s: the first TIME-WAIT ends in 50 s, and the ports are gone before.
    #[test]
    fn ports_run_out_before_time_wait_gives_them_back() {
        let waits: Vec<f64> = (0..5_000).map(|index| 50.0 + f64::from(index) / 500.0).collect();
        let left_s = seconds_left(23_000, &rates(500.0, 0.0, 500.0), &waits, 60.0);
        assert_eq!(left_s, Some(46.0));
    }

    /// 400 ports a second for 60 s are 24,000, and the range has more.
    #[test]
    fn ports_suffice_if_time_wait_gives_back_as_many_as_are_taken() {
        let waits: Vec<f64> = (0..4_000).map(|index| 50.0 + f64::from(index) / 400.0).collect();
        assert_eq!(seconds_left(24_000, &rates(400.0, 0.0, 400.0), &waits, 60.0), None);
        let waits: Vec<f64> = (0..24_000).map(|index| f64::from(index) / 400.0).collect();
        assert_eq!(seconds_left(4_000, &rates(400.0, 0.0, 400.0), &waits, 60.0), None);
        assert_eq!(seconds_left(4_000, &rates(400.0, 0.0, 396.0), &waits, 60.0), None, "some are still open");
    }

    /// One of ten connections stays open.
    #[test]
    fn connections_that_stay_open_use_up_what_the_others_leave() {
        let left_s = seconds_left(7_000, &rates(10.0, 0.0, 9.0), &[1.0; 500], 60.0);
        assert_eq!(left_s, Some((7_500.0 - 540.0) / 1.0));
    }
}
