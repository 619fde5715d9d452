//! The same established ACK through the network stack of a namespace of its own, with nothing, finwait or nf_conntrack in
//! its way. The frames come in at its loopback and are dropped by a rule right behind nf_conntrack. Every setting that is
//! changed belongs to the namespace and goes with it.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::{Ingress, Kernel};
use finwait::lab::Lab;
use serde_json::Value;
use tcp_common::{End, Flags};

use crate::Size;
use crate::bare::{Bare, Place};
use crate::conversation::Conversation;
use crate::report::Series;

/// 10.9.0.1 to 10.9.0.2, which is the host's address.
const FLOW: Conversation = Conversation { ipv6: false, number: 0 };

/// All three in turn.
pub(crate) fn established(kernel: &mut Kernel, size: &Size) -> Result<Value> {
    let lab = Lab::new()?;
    lab.server.run(|| inside(kernel, size))?
}

fn inside(kernel: &mut Kernel, size: &Size) -> Result<Value> {
    let source = Bare::pass(Place::Xdp)?;
    let mut series = Series::new("Live frames, one flow, established ACK IPv4, CPU time of the whole way");
    for _ in 0..size.rounds {
        nft(DROP)?;
        series.add("stack only", cost(&source, size)?);
        let before = kernel.counters()?;
        kernel.table().clear();
        let attachment = kernel.attach("lo", 1, true, Ingress::Tc, false)?;
        for frame in FLOW.opening() {
            source.inject(&frame, 1)?;
        }
        series.add("stack and finwait (TC)", cost(&source, size)?);
        drop(attachment);
        let seen = kernel.counters()?.predicted[0] - before.predicted[0];
        ensure!(seen >= u64::from(size.repeat), "finwait predicted {seen} of {} ACKs", size.repeat);
        nft(CONNTRACK)?;
        fs::write(ACCOUNT, "1").context("switching nf_conntrack's accounting on")?;
        fs::write(CHECKSUM, "0").context("switching nf_conntrack's checksums off")?;
        for frame in FLOW.opening() {
            source.inject(&frame, 1)?;
        }
        let entries = fs::read_to_string(COUNT).context("reading nf_conntrack's count")?;
        ensure!(entries.trim() != "0", "nf_conntrack has not taken up the connection");
        nft_add(DROP)?;
        series.add("stack and nf_conntrack", cost(&source, size)?);
    }
    Ok(series.print("stack only", Some("stack and nf_conntrack")))
}

/// Mean CPU time of a frame, in ns.
fn cost(source: &Bare, size: &Size) -> Result<f64> {
    let frame = FLOW.frame(End::A, Flags::ACK, (1101, 5001, 0));
    source.inject(&frame, size.repeat / 10)?;
    let before = thread_ns();
    source.inject(&frame, size.repeat)?;
    Ok((thread_ns() - before) as f64 / f64::from(size.repeat))
}

/// CPU time of this thread.
fn thread_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Replaces the namespace's rules.
fn nft(rules: &str) -> Result<()> {
    nft_add(&format!("flush ruleset\n{rules}"))
}

fn nft_add(rules: &str) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting nft (Debian: nftables)")?;
    nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refused the rules");
    Ok(())
}

const DROP: &str = "table ip bench_end {
 chain arrivals {
  type filter hook prerouting priority -100
  counter drop
 }
}
";
/// The rule sees no packet; that it is there switches nf_conntrack on.
const CONNTRACK: &str = "table ip bench_track {
 chain departures {
  type filter hook output priority 50
  ct state invalid counter
 }
}
";
const ACCOUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";
const CHECKSUM: &str = "/proc/sys/net/netfilter/nf_conntrack_checksum";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
