//! Periodic checks against the kernel's sockets: closes connections whose socket is gone without a segment on
//! the wire. The first check also imports connections that are older than the agent (`adopt`).
//!
//! Four kinds of sockets go that way: an orphan in FIN-WAIT-2 after `tcp_fin_timeout`, a TIME-WAIT for which
//! `tcp_max_tw_buckets` leaves no room, a socket closed by `ss -K` where no RST is due, and a connect() given
//! up before the answer. Without the check they would stay until their idle timeout.
//!
//! A check asks for one socket at a time, which is one hash lookup in the kernel, and for [`LOOKUPS`] at
//! most. A socket that was absent in two checks, with no segment in between, is then searched in the list of
//! all sockets, once per check at most: a socket that is bound to a device is found only there, and a socket
//! behind NAT has other addresses than its packets.

mod adopt;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(super) use adopt::Adopter;
use tcp_common::{Cause, End, Flow, FlowKey, Outcome, State};

use super::change::Change;
use super::shared::Shared;
use crate::clock::monotonic_ns;
use crate::kernel::Entry;
use crate::sockets::{Diag, KernelSocket, Unmatched, addresses, is_here};
use crate::system_error::SystemError;
use crate::view::SocketPair;
use crate::view::describe::address;

/// Compares the flow table with the kernel's sockets at regular intervals.
pub(super) struct SocketReconciler {
    shared: Arc<Shared>,
    adopter: Adopter,
    interval: Duration,
    started_at: Instant,
    next_slot: u32,
    /// By slot, the endpoints without a socket in an earlier check.
    absent: HashMap<u32, Absent>,
}

/// Ends of a flow that have no socket.
#[derive(Clone, Copy, Debug)]
struct Absent {
    index: u32,
    key: FlowKey,
    incarnation: u32,
    last_ns: u64,
    gone: [bool; 2],
    /// Time at which the socket was missing first.
    since: Instant,
}

impl SocketReconciler {
    /// `interval` is the time from the end of one check to the start of the next.
    pub(super) fn new(adopter: Adopter, interval: Duration) -> SocketReconciler {
        let shared = adopter.shared();
        SocketReconciler {
            shared,
            adopter,
            interval,
            started_at: Instant::now(),
            next_slot: 0,
            absent: HashMap::new(),
        }
    }

    /// Checks for ever, the first time after an interval. Returns only if a check has panicked.
    pub(super) async fn run(self) {
        let interval = self.interval;
        let mut reconciler = self;
        loop {
            tokio::time::sleep(interval).await;
            let Some(checked) = reconciler.check().await else { return };
            reconciler = checked;
        }
    }

    /// Checks once. A failed check is logged; `None` if it has panicked.
    pub(super) async fn check(mut self) -> Option<SocketReconciler> {
        let check = tokio::task::spawn_blocking(move || {
            if let Err(error) = self.compare() {
                tracing::warn!("checking against the kernel's sockets: {error}");
            }
            self
        });
        check.await.ok()
    }

    fn compare(&mut self) -> Result<(), SystemError> {
        let mut diag = Diag::open()?;
        self.adopter.adopt(&mut diag)?;
        let mut confirmed = self.absent_twice(&mut diag)?;
        if !confirmed.is_empty() {
            self.retain_missing(&mut diag, &mut confirmed)?;
        }
        for absent in &confirmed {
            self.absent.remove(&absent.index);
            self.end(absent);
        }
        self.shared.totals.lock().audit_looks += 1;
        Ok(())
    }

    /// Asks for the sockets of silent flows, starting where the last check stopped. Returns those absent
    /// twice.
    fn absent_twice(&mut self, diag: &mut Diag) -> Result<Vec<Absent>, SystemError> {
        let slots = self.shared.table.slot_count();
        let (now_ns, mut lookups, mut confirmed) = (monotonic_ns(), 0, Vec::new());
        for _ in 0..slots {
            let index = self.next_slot;
            self.next_slot = (index + 1) % slots;
            let before = self.absent.remove(&index);
            let Some(entry) = self.shared.table.read(index).filter(|entry| self.is_silent(entry, now_ns))
            else {
                continue;
            };
            if self.adopter.give_up(&entry, diag)? {
                continue;
            }
            let gone = [self.is_gone(&entry, End::A, diag)?, self.is_gone(&entry, End::B, diag)?];
            lookups += [End::A, End::B].iter().filter(|&&end| entry.flow.needs_socket(end)).count();
            if gone.contains(&true) {
                let absent = Absent::new(&entry, gone);
                let before = before.filter(|before| before.is_same(&absent));
                if before.is_some_and(|before| before.since.elapsed() >= self.interval / 2) {
                    confirmed.push(absent);
                }
                self.absent.insert(index, before.unwrap_or(absent));
            }
            if lookups >= LOOKUPS {
                break;
            }
        }
        Ok(confirmed)
    }

    fn is_silent(&self, entry: &Entry, now_ns: u64) -> bool {
        let silence_ns = now_ns.saturating_sub(entry.flow.last_ns());
        !entry.flow.is_over() && u128::from(silence_ns) >= self.interval.as_nanos() / 2
    }

    fn is_gone(&self, entry: &Entry, end: End, diag: &mut Diag) -> Result<bool, SystemError> {
        let (local, remote) = ends(&entry.key, end);
        Ok(entry.flow.needs_socket(end) && diag.find(local, remote)?.is_none())
    }

    /// Keeps the flows whose end belongs to this namespace and whose socket is in no list: neither under its
    /// own addresses nor under translated ones.
    fn retain_missing(&self, diag: &mut Diag, confirmed: &mut Vec<Absent>) -> Result<(), SystemError> {
        let here = addresses();
        confirmed.retain(|absent| absent.ends().all(|(local, _)| is_here(&here, local.ip())));
        let mut missing = Unmatched::default();
        confirmed.iter().flat_map(Absent::ends).for_each(|ends| missing.add(ends, false));
        let (mut similar, mut listening) = (HashSet::new(), HashSet::new());
        let up_ms = self.started_at.elapsed().as_millis();
        diag.for_each(|socket| {
            let KernelSocket { local, remote, state, silent_ms, .. } = socket;
            if state == State::Listen {
                listening.insert(local.port());
            } else if missing.share_an_end((local, remote))
                && u128::from(silent_ms.unwrap_or(0)) < up_ms + JUST_BEFORE_MS
            {
                similar.insert((local, remote));
            }
        })?;
        confirmed.retain(|absent| !absent.ends().any(|ends| similar.contains(&ends)));
        for entry in self.shared.table.entries() {
            similar.remove(&ends(&entry.key, End::A));
            similar.remove(&ends(&entry.key, End::B));
        }
        let mut untracked = Unmatched::default();
        similar.into_iter().for_each(|ends| untracked.add(ends, listening.contains(&ends.0.port())));
        confirmed.retain(|absent| !absent.ends().any(|ends| untracked.share_an_end(ends)));
        Ok(())
    }

    /// Closes a flow in the table, unless a segment has arrived. The scan counts and reports the close.
    fn end(&self, absent: &Absent) {
        // If the slot is locked, a segment is being applied: the flow is not silent.
        let Some(mut slot) = self.shared.table.try_lock(absent.index) else { return };
        if !absent.is_same(&Absent { key: slot.key(), ..Absent::of(absent.index, &slot, absent.gone) }) {
            return;
        }
        let now_ns = monotonic_ns();
        let outcome = slot.close_without_socket(now_ns, absent.gone);
        let (flow, hook) = (*slot, slot.hook());
        drop(slot);
        self.shared.unseen_changes.store(true, Ordering::Relaxed);
        let mut totals = self.shared.totals.lock();
        for end in [End::A, End::B].into_iter().filter(|&end| absent.gone[end as usize]) {
            totals.audit_repairs[outcome.from[end as usize] as usize] += 1;
        }
        totals.count_outcome(&flow, &outcome);
        drop(totals);
        tracing::debug!("socket gone: {:?}", absent.ends().collect::<Vec<_>>());
        let Outcome { from, to, .. } = outcome;
        let (key, flow, cause) = (&absent.key, &flow, Cause::Silence);
        self.shared.publish_transitions(&Change { key, flow, hook, at_ns: now_ns, from, to, cause });
    }
}

impl Absent {
    fn new(entry: &Entry, gone: [bool; 2]) -> Absent {
        Absent { key: entry.key, ..Absent::of(entry.index, &entry.flow, gone) }
    }

    fn of(index: u32, flow: &Flow, gone: [bool; 2]) -> Absent {
        let (incarnation, last_ns) = (flow.incarnation(), flow.last_ns());
        Absent { index, key: FlowKey::default(), incarnation, last_ns, gone, since: Instant::now() }
    }

    /// Whether these are the same ends of the same incarnation, with no segment in between.
    fn is_same(&self, other: &Absent) -> bool {
        let identity = |absent: &Absent| (absent.key, absent.incarnation, absent.last_ns, absent.gone);
        identity(self) == identity(other)
    }

    fn ends(&self) -> impl Iterator<Item = SocketPair> {
        let gone = [End::A, End::B].into_iter().filter(|&end| self.gone[end as usize]);
        gone.map(|end| ends(&self.key, end))
    }
}

fn ends(key: &FlowKey, local: End) -> SocketPair {
    let end = |end: End| SocketAddr::new(address(key, end), key.endpoint(end).port);
    (end(local), end(local.peer()))
}

/// Tolerance in ms for the start of the agent. A socket with a segment shortly before may belong to a tracked
/// flow: the programs were attached earlier, and the kernel's ages are in ticks. If in doubt, nothing is
/// closed.
const JUST_BEFORE_MS: u128 = 1_000;

/// Limit of sockets asked for in one check. An absent socket takes 4 us and a present one 18 us in a debug
/// build.
const LOOKUPS: usize = 8_192;

#[cfg(test)]
mod tests;
