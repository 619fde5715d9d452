//! Periodic checks against the kernel's sockets: closes connections whose socket is gone without a segment on
//! the wire. The first check also imports connections that are older than the agent (`adopt`). A socket in
//! another state corrects the flow (`correct`), and a connection that a RST was believed to have ended is
//! reopened if its socket is alive (`reopen`).
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
mod correct;
mod reopen;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(super) use adopt::Adopter;
use correct::is_correction;
use tcp_common::{Cause, End, Flow, FlowKey, Outcome, State};

use super::change::Change;
use super::locality::set_locality;
use super::shared::Shared;
use super::tuple::ends;
use crate::clock::monotonic_ns;
use crate::kernel::{Entry, SlotGuard};
use crate::sockets::{Diag, KernelSocket, Unmatched, addresses, is_here};
use crate::system_error::SystemError;
use crate::view::SocketPair;

/// Compares the flow table with the kernel's sockets at regular intervals.
pub(super) struct SocketReconciler {
    shared: Arc<Shared>,
    adopter: Adopter,
    interval: Duration,
    started_at: Instant,
    next_slot: u32,
    /// By slot, what an earlier check has found.
    suspects: HashMap<u32, Suspect>,
}

/// A flow with ends that have no socket, or one in another state.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    index: u32,
    key: FlowKey,
    incarnation: u32,
    last_ns: u64,
    found: [Standing; 2],
    /// Time at which it was found so first.
    since: Instant,
}

/// What a check finds for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The end needs no socket, or has one whose state is no reason to correct the flow.
    Fine,
    /// There is no socket.
    Missing,
    /// The socket is in this state, see [`Flow::correct`].
    In(State),
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
            suspects: HashMap::new(),
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
        let suspects = self.found_twice(&mut diag)?;
        let (mut missing, differing): (Vec<_>, Vec<_>) =
            suspects.into_iter().partition(|suspect| suspect.found.contains(&Standing::Missing));
        if !missing.is_empty() {
            self.retain_missing(&mut diag, &mut missing)?;
        }
        missing.retain(|suspect| !self.is_translated(suspect));
        for suspect in &missing {
            self.suspects.remove(&suspect.index);
            self.end(suspect);
        }
        for suspect in &differing {
            self.suspects.remove(&suspect.index);
            self.correct(suspect);
        }
        self.shared.totals.lock().audit_looks += 1;
        Ok(())
    }

    /// Asks for the sockets of silent flows, starting where the last check stopped. Returns those that an
    /// earlier check has found the same way.
    fn found_twice(&mut self, diag: &mut Diag) -> Result<Vec<Suspect>, SystemError> {
        let slots = self.shared.table.slot_count();
        let (now_ns, mut lookups, mut confirmed) = (monotonic_ns(), 0, Vec::new());
        for _ in 0..slots {
            if lookups >= LOOKUPS {
                break;
            }
            let index = self.next_slot;
            self.next_slot = (index + 1) % slots;
            let before = self.suspects.remove(&index);
            let Some(entry) = self.shared.table.read(index) else { continue };
            if self.is_doubtful(&entry, now_ns) {
                self.reopen_if_alive(&entry, diag)?;
                lookups += 1;
            }
            if entry.flow.is_over() || !self.is_silent(&entry, now_ns) {
                continue;
            }
            if self.adopter.give_up(&entry, diag)? {
                continue;
            }
            let found = [self.find(&entry, End::A, diag)?, self.find(&entry, End::B, diag)?];
            lookups += [End::A, End::B].iter().filter(|&&end| entry.flow.needs_socket(end)).count();
            if found != [Standing::Fine; 2] {
                let suspect = Suspect::new(&entry, found);
                let before = before.filter(|before| before.is_same(&suspect));
                if before.is_some_and(|before| before.since.elapsed() >= self.interval / 2) {
                    confirmed.push(suspect);
                }
                self.suspects.insert(index, before.unwrap_or(suspect));
            }
        }
        Ok(confirmed)
    }

    fn is_silent(&self, entry: &Entry, now_ns: u64) -> bool {
        let silence_ns = now_ns.saturating_sub(entry.flow.last_ns());
        u128::from(silence_ns) >= self.interval.as_nanos() / 2
    }

    /// What the kernel has for an end.
    fn find(&self, entry: &Entry, end: End, diag: &mut Diag) -> Result<Standing, SystemError> {
        if !entry.flow.needs_socket(end) {
            return Ok(Standing::Fine);
        }
        let translated = self.shared.translations.socket_of(&entry.key, end);
        let (local, remote) = translated.unwrap_or_else(|| ends(&entry.key, end));
        Ok(match diag.find(local, remote)? {
            None => Standing::Missing,
            Some(socket) if is_correction(&entry.flow, end, &socket) => Standing::In(socket.state),
            Some(_) => Standing::Fine,
        })
    }

    /// Whether conntrack translates the flow, and this was not known when its sockets were looked for. The
    /// next check looks for those that belong to this namespace, under their own addresses.
    fn is_translated(&self, suspect: &Suspect) -> bool {
        let Shared { table, translations, local, .. } = &*self.shared;
        let is_known = translations.is_translated(&suspect.key);
        if !is_known {
            let client = if suspect.is_missing(End::A) { End::A } else { End::B };
            translations.ask(&suspect.key, client, |address| local.read().contains(address));
        }
        let Some(entry) = table.read(suspect.index).filter(|entry| entry.key == suspect.key) else {
            return false;
        };
        let Some(corrected) = self.shared.corrected_locality(&entry.key, &entry.flow, false) else {
            return !is_known && translations.is_translated(&suspect.key);
        };
        if let Some(mut slot) = table.try_lock(suspect.index).filter(|slot| slot.key() == suspect.key) {
            set_locality(&mut slot, corrected);
        }
        true
    }

    /// Keeps the flows whose end belongs to this namespace and whose socket is in no list: neither under its
    /// own addresses nor under translated ones.
    fn retain_missing(&self, diag: &mut Diag, confirmed: &mut Vec<Suspect>) -> Result<(), SystemError> {
        let here = addresses();
        confirmed.retain(|suspect| suspect.ends().all(|(local, _)| is_here(&here, local.ip())));
        let mut missing = Unmatched::default();
        confirmed.iter().flat_map(Suspect::ends).for_each(|ends| missing.add(ends, false));
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
        confirmed.retain(|suspect| !suspect.ends().any(|ends| similar.contains(&ends)));
        for entry in self.shared.table.entries() {
            similar.remove(&ends(&entry.key, End::A));
            similar.remove(&ends(&entry.key, End::B));
        }
        let mut untracked = Unmatched::default();
        similar.into_iter().for_each(|ends| untracked.add(ends, listening.contains(&ends.0.port())));
        confirmed.retain(|suspect| !suspect.ends().any(|ends| untracked.share_an_end(ends)));
        Ok(())
    }

    /// Locks a flow in the table, unless a segment has arrived.
    fn lock(&self, suspect: &Suspect) -> Option<SlotGuard<'_>> {
        // If the slot is locked, a segment is being applied: the flow is not silent.
        let slot = self.shared.table.try_lock(suspect.index)?;
        let now = Suspect { key: slot.key(), ..Suspect::of(suspect.index, &slot, suspect.found) };
        suspect.is_same(&now).then_some(slot)
    }

    /// Closes a flow in the table, unless a segment has arrived.
    fn end(&self, suspect: &Suspect) {
        let Some(mut slot) = self.lock(suspect) else { return };
        let now_ns = monotonic_ns();
        let outcome = slot.close_without_socket(now_ns, [End::A, End::B].map(|end| suspect.is_missing(end)));
        let reports = slot.report();
        let (flow, hook) = (*slot, slot.hook());
        drop(slot);
        self.shared.unseen_changes.store(true, Ordering::Relaxed);
        let mut totals = self.shared.totals.lock();
        for end in [End::A, End::B].into_iter().filter(|&end| suspect.is_missing(end)) {
            totals.audit_repairs[outcome.from[end as usize] as usize] += 1;
        }
        totals.count_outcome(&flow, &outcome);
        let Outcome { from, to, .. } = outcome;
        let (key, flow, cause) = (&suspect.key, &flow, Cause::Silence);
        let change = Change { key, flow, hook, at_ns: now_ns, from, to, cause, segment: None };
        self.shared.histories.lock().record(suspect.index, &change);
        self.shared.report(&mut totals, &change, reports);
        drop(totals);
        tracing::debug!("socket gone: {:?}", suspect.ends().collect::<Vec<_>>());
    }
}

impl Suspect {
    fn new(entry: &Entry, found: [Standing; 2]) -> Suspect {
        Suspect { key: entry.key, ..Suspect::of(entry.index, &entry.flow, found) }
    }

    fn of(index: u32, flow: &Flow, found: [Standing; 2]) -> Suspect {
        let (incarnation, last_ns) = (flow.incarnation(), flow.last_ns());
        Suspect { index, key: FlowKey::default(), incarnation, last_ns, found, since: Instant::now() }
    }

    /// Whether the same was found for the same incarnation, with no segment in between.
    fn is_same(&self, other: &Suspect) -> bool {
        let identity = |suspect: &Suspect| (suspect.key, suspect.incarnation, suspect.last_ns, suspect.found);
        identity(self) == identity(other)
    }

    fn is_missing(&self, end: End) -> bool {
        self.found[end as usize] == Standing::Missing
    }

    /// Addresses of the ends without a socket, their own first.
    fn ends(&self) -> impl Iterator<Item = SocketPair> {
        let missing = [End::A, End::B].into_iter().filter(|&end| self.is_missing(end));
        missing.map(|end| ends(&self.key, end))
    }
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
