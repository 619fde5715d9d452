//! Follows what changes on the host: interfaces, addresses, the order of programs on a hook, and the clocks.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::AgentError;
use super::interfaces::{Attachments, Interface, InterfaceChange, Netlink};
use super::open_netlink;
use super::shared::Shared;
use crate::api::InterfaceStatus;
use crate::clock::Clock;
use crate::kernel::ProgramNotices;

/// Follows the host for as long as the agent runs.
pub(super) struct Follower {
    pub(super) attachments: Attachments,
    /// Notices of programs that any process loads; `None` if the kernel gives none.
    pub(super) notices: Option<ProgramNotices>,
    pub(super) shared: Arc<Shared>,
    /// What `status` shows of the interfaces.
    pub(super) statuses: Arc<Mutex<Vec<InterfaceStatus>>>,
}

impl Follower {
    /// Returns only if it cannot go on.
    pub(super) async fn run(mut self) -> Result<(), AgentError> {
        let mut netlink = open_netlink()?;
        let notices = self.notices.take();
        // SAFETY: the notices own their descriptor until they are dropped, and never replace it.
        let register = |notices| unsafe { AsyncFd::register_with_interest(notices, Interest::READABLE) };
        let notices = notices.map(register);
        let mut notices = notices.transpose().map_err(|error| {
            AgentError::system("waiting for notices of the kernel programs")(error.into_parts().1)
        })?;
        let mut clocks = interval(CLOCK_INTERVAL);
        let mut looks = Looks::new();
        loop {
            tokio::select! {
                more = netlink.changed() => {
                    if !more {
                        sleep(RETRY_INTERVAL).await;
                        netlink = open_netlink()?;
                    }
                    self.follow_interfaces(&netlink).await;
                }
                // The first tick is at once.
                _ = clocks.tick() => {
                    self.follow_interfaces(&netlink).await;
                    self.follow_clocks();
                }
                is_late = looks.due() => self.keep_places(&netlink, is_late).await,
                () = loaded(&mut notices) => looks.begin(),
            }
        }
    }

    async fn follow_interfaces(&mut self, netlink: &Netlink) {
        let Some(present) = list(netlink).await else { return };
        let shared = &self.shared;
        shared.names.learn(&present);
        shared.on_host.lock().set_interfaces(&present);
        // Before programs are attached to new interfaces, whose first packets need them.
        let mut local = shared.local.write();
        let refreshed = local.refresh(&mut shared.kernel.lock(), &present);
        match refreshed {
            Ok(true) => local.reclassify(&shared.table, &shared.translations),
            Ok(false) => {}
            Err(error) => tracing::warn!("{error}"),
        }
        drop(local);
        let changes = self.attachments.follow(&mut shared.kernel.lock(), &present);
        self.report(&changes);
    }

    fn follow_clocks(&self) {
        let shared = &self.shared;
        shared.translations.forget_missing(&shared.table);
        shared.clock.lock().follow(Clock::monotonic());
        if let Err(error) = shared.kernel.lock().relate_clocks() {
            tracing::warn!("relating the kernel's clocks: {error}");
        }
    }

    /// Keeps the programs in their place among those of others. `is_late` says that the last judgement was
    /// [`LAST_PAUSE`] ago, long enough to judge again whether packets reach the last place.
    async fn keep_places(&mut self, netlink: &Netlink, is_late: bool) {
        let counted = is_late && self.attachments.any_last();
        let present = if counted { list(netlink).await } else { None };
        let present = present.unwrap_or_default();
        let changes = self.attachments.keep_places(&mut self.shared.kernel.lock(), &present);
        self.report(&changes);
    }

    fn report(&self, changes: &[InterfaceChange]) {
        changes.iter().for_each(InterfaceChange::log);
        if !changes.is_empty() {
            *self.statuses.lock() = self.attachments.status();
        }
    }
}

/// The interfaces. An error is logged: they are listed again after the next interval.
async fn list(netlink: &Netlink) -> Option<Vec<Interface>> {
    netlink.list().await.inspect_err(|error| tracing::warn!("listing the interfaces: {error}")).ok()
}

/// Returns when a program was loaded since the last call.
async fn loaded(notices: &mut Option<AsyncFd<ProgramNotices>>) {
    let Some(notices) = notices else { return pending().await };
    match notices.readable_mut().await {
        Ok(mut ready) => {
            ready.get_inner_mut().drain();
            ready.clear_ready();
        }
        // The looks go on.
        Err(_) => pending().await,
    }
}

/// When to check the order of programs on the hooks. The kernel does not report a change of it, but most programs
/// are attached right after they were loaded: so there are many checks then, at pauses that double.
struct Looks {
    next: Instant,
    pause: Duration,
    /// When it was last judged whether packets reach the last place.
    judged: Instant,
}

impl Looks {
    fn new() -> Looks {
        let now = Instant::now();
        Looks { next: now, pause: LAST_PAUSE, judged: now }
    }

    /// Begins with short pauses again.
    fn begin(&mut self) {
        (self.next, self.pause) = (Instant::now(), FIRST_PAUSE);
    }

    /// Returns when a check is due: whether the last judgement was [`LAST_PAUSE`] ago, however many programs
    /// were loaded meanwhile.
    async fn due(&mut self) -> bool {
        sleep_until(self.next).await;
        let now = Instant::now();
        self.next = now + self.pause;
        self.pause = LAST_PAUSE.min(self.pause * 2);
        let is_late = now - self.judged >= LAST_PAUSE;
        if is_late {
            self.judged = now;
        }
        is_late
    }
}

/// Interval of clock readings: the clock is adjusted by half a millisecond a second at most. Interfaces are
/// listed at this interval too, in case a change was not reported.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);
/// First and last pause between two looks at the order of programs.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Pause before another netlink socket is opened after an overflow.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
