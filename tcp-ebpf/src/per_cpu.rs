//! This CPU's values, and the rule by which they may be borrowed mutably.
//!
//! BPF itself only keeps a program on its CPU while it runs. That no other program of finwait runs on the same CPU in
//! the meantime follows from the hooks, all of which run with bottom halves disabled:
//!
//! - XDP: `bpf_prog_run_xdp` is called in the driver's NAPI poll, which is the `NET_RX` softirq.
//! - TC ingress: `sch_handle_ingress` is called by `__netif_receive_skb_core`, in a softirq or under
//!   `local_bh_disable`.
//! - TC egress: `sch_handle_egress` is called by `__dev_queue_xmit`, after `rcu_read_lock_bh`.
//! - Test runs: `bpf_test_run` calls `local_bh_disable` since Linux 6.3. Tests that run programs at the same time pin
//!   each thread to a CPU of its own.
//!
//! A softirq neither interrupts a section with bottom halves disabled nor another softirq of its CPU, and no hook runs
//! in a hard interrupt. Our programs call no helper that hands packets on, so they do not nest; a tail call replaces
//! the program that makes it.
//!
//! On a PREEMPT_RT kernel such sections are preemptible, and `__local_bh_disable_ip` takes the per-CPU lock
//! `softirq_ctrl.lock` to the same effect. Since Linux 6.18 it does so only with `CONFIG_PREEMPT_RT_NEEDS_BH_LOCK`,
//! which finwait requires there.

use crate::{
    maps::{COUNTERS, SCRATCH},
    scratch::Scratch,
};
use tcp_common::record::Counters;

/// The right to borrow this CPU's values during one run of a program.
pub(crate) struct PerCpu(());

impl PerCpu {
    /// Begins a run of a program.
    ///
    /// # Safety
    ///
    /// Only a program's entry point may call this, once. The program must run at one of the hooks above.
    #[inline(always)]
    pub(crate) unsafe fn enter() -> PerCpu {
        PerCpu(())
    }

    /// Borrows the counters. The verifier requires a check for `None`, which does not occur.
    #[inline(always)]
    pub(crate) fn counters(&mut self) -> Option<&mut Counters> {
        let counters = COUNTERS.get_ptr_mut(0)?;
        // SAFETY: a value of this CPU's map, valid while the program runs. `self` is this run's only `PerCpu` and is
        // borrowed mutably, so no other reference exists in this run, and no other run is under way on this CPU.
        Some(unsafe { &mut *counters })
    }

    /// Borrows the scratch memory. The verifier requires a check for `None`, which does not occur.
    #[inline(always)]
    pub(crate) fn scratch(&mut self) -> Option<&mut Scratch> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: a value of this CPU's map, valid while the program runs. `self` is this run's only `PerCpu` and is
        // borrowed mutably, so no other reference exists in this run, and no other run is under way on this CPU.
        Some(unsafe { &mut *scratch })
    }

    /// Borrows the scratch memory and the counters.
    #[inline(always)]
    pub(crate) fn scratch_and_counters(&mut self) -> Option<(&mut Scratch, &mut Counters)> {
        let (scratch, counters) = (SCRATCH.get_ptr_mut(0)?, COUNTERS.get_ptr_mut(0)?);
        // SAFETY: values of two maps, valid while the program runs. `self` is this run's only `PerCpu` and is borrowed
        // mutably, so no other reference exists in this run, and no other run is under way on this CPU.
        Some(unsafe { (&mut *scratch, &mut *counters) })
    }
}
