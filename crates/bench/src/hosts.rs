//! Two hosts for live frames that differ in nf_conntrack: with accounting and without checksum verification,
//! its cheaper configuration. Frames from their loopback interface are dropped right after nf_conntrack. SYNs
//! continue to the host, so that nf_conntrack keeps their connections, and are dropped there for their bad
//! checksum.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use finwait::lab::{Host, Lab};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// Both hosts. Their settings belong to their namespaces.
pub(crate) struct Hosts {
    plain: Lab,
    tracked: Lab,
    /// Restored after the namespaces are removed.
    _room: Option<Lent>,
}

impl Hosts {
    /// Creates the hosts with room for `most` connections in nf_conntrack; 0: the machine's current limit.
    pub(crate) fn new(flows: u32) -> Result<Hosts> {
        let room = (flows > 0).then(|| {
            // Each connection is in the chains of two buckets.
            let buckets = u64::from(flows).next_power_of_two() * 2;
            Lent::take(&[
                (BUCKETS, buckets.max(read(BUCKETS)?)),
                (MOST, (2 * u64::from(flows)).max(read(MOST)?)),
            ])
        });
        let room = room.transpose()?;
        let (plain, tracked) = (Lab::new()?, Lab::new()?);
        for (lab, rules) in [(&plain, ENDS.to_owned()), (&tracked, format!("{TRACKED}{ENDS}"))] {
            lab.server.run(|| -> Result<()> {
                for interface in ["all", "lo"] {
                    fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "0")
                        .context("letting any address in at the loopback")?;
                }
                nft(&rules)
            })??;
        }
        tracked.server.run(cheapest)??;
        Ok(Hosts { plain, tracked, _room: room })
    }

    /// The host without a tracker.
    pub(crate) fn plain(&self) -> &Host {
        &self.plain.server
    }

    /// The host with nf_conntrack.
    pub(crate) fn tracked(&self) -> &Host {
        &self.tracked.server
    }

    /// Number of connections in nf_conntrack.
    pub(crate) fn count(&self) -> Result<u64> {
        self.tracked.server.run(|| read(COUNT))?
    }

    /// Deletes all connections of the host from nf_conntrack.
    pub(crate) fn forget(&self) -> Result<()> {
        self.tracked.server.run(|| -> Result<()> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.send(&DELETE_ALL, 0)?;
            let (answer, _) = socket.recv_from_full().context("asking nf_conntrack to forget")?;
            // `struct nlmsgerr` after the header.
            ensure!(answer[16..20] == [0; 4], "nf_conntrack does not forget its connections");
            Ok(())
        })?
    }
}

/// nf_conntrack's current limit of connections on this machine.
pub(crate) fn most_tracked() -> Result<u32> {
    Ok(u32::try_from(read(MOST)?)?)
}

/// Global settings that are changed temporarily. A shell in its own process group waits for the end of this
/// process, however it ends, and restores them.
struct Lent(Child);

impl Lent {
    fn take(settings: &[(&str, u64)]) -> Result<Lent> {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", RESTORE, "sh"]);
        for (path, _) in settings {
            keeper.args([path, read(path)?.to_string().as_str()]);
        }
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let lent = Lent(keeper.spawn().context("starting sh")?);
        for (path, value) in settings {
            fs::write(path, value.to_string()).with_context(|| {
                format!("setting {path} to {value} (outside of every container, as root)")
            })?;
        }
        Ok(lent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Applies nf_conntrack's cheaper configuration in this thread's namespace.
pub(crate) fn cheapest() -> Result<()> {
    fs::write(ACCOUNT, "1").context("switching nf_conntrack's accounting on")?;
    fs::write(CHECKSUM, "0").context("switching nf_conntrack's checksums off")
}

/// Reads a number from a file of the kernel.
fn read(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    text.trim().parse().with_context(|| format!("reading {path}"))
}

/// Adds rules to this thread's namespace.
pub(crate) fn nft(rules: &str) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting nft (Debian: nftables)")?;
    nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refused the rules");
    Ok(())
}

const ENDS: &str = "table ip bench_end {
 chain arrivals {
  type filter hook prerouting priority -100
  tcp flags & (syn | ack) == syn counter accept
  counter drop
 }
}
";
/// The rule matches no packet. Its presence enables nf_conntrack.
const TRACKED: &str = "table ip bench_track {
 chain departures {
  type filter hook output priority 50
  ct state invalid counter
 }
}
";
/// Waits for the end of its input, then writes to each path the value that follows it.
const RESTORE: &str = "cat; while [ $# -gt 1 ]; do echo \"$2\" > \"$1\"; shift 2; done";
/// `IPCTNL_MSG_CT_DELETE` with `NLM_F_REQUEST | NLM_F_ACK`: a netlink header and a `struct nfgenmsg` without
/// a filter.
const DELETE_ALL: [u8; 20] = [20, 0, 0, 0, 2, 1, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ACCOUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";
const CHECKSUM: &str = "/proc/sys/net/netfilter/nf_conntrack_checksum";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
