//! Owners of sockets: the process that holds a socket, and the systemd unit to which the process belongs.
//!
//! The kernel's list of sockets gives inodes, and `/proc/PID/fd` the processes that hold them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use procfs::process::{self, FDTarget};
use procfs::{ProcError, ProcessCGroup};

use super::{Diag, socket_of};
use crate::system_error::SystemError;
use crate::view::{Connection, Process, Role, SocketPair};

/// Processes that own TCP sockets of this network namespace, as far as this process may read `/proc`.
#[derive(Debug, Default)]
pub struct Owners {
    by_pair: HashMap<SocketPair, Owner>,
    /// Whether the last scan found sockets whose owner this process may not see.
    incomplete: bool,
    last_scan: Option<Scan>,
}

#[derive(Debug)]
struct Owner {
    process: Process,
    seen_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Scan {
    ended_at: Instant,
    took: Duration,
}

impl Owners {
    /// Scans the kernel's sockets and `/proc` once.
    pub fn scan() -> Result<Owners, SystemError> {
        let mut owners = Owners::default();
        owners.rescan()?;
        Ok(owners)
    }

    /// Owner of the local socket of a connection. If both endpoints are local, the client's owner comes
    /// first.
    pub fn of(&self, connection: &Connection) -> Option<Process> {
        let local = Role::ALL.iter().filter(|&&side| connection.end(side).local);
        self.of_sockets(local.map(|&side| socket_of(connection, side)))
    }

    /// Owner of the first of these sockets whose owner is known, each given by its addresses, its own first.
    pub fn of_sockets(&self, sockets: impl IntoIterator<Item = SocketPair>) -> Option<Process> {
        let owner = sockets.into_iter().find_map(|pair| self.by_pair.get(&pair))?;
        Some(owner.process.clone())
    }

    /// Whether no owner is known.
    pub fn is_empty(&self) -> bool {
        self.by_pair.is_empty()
    }

    /// Whether there are sockets whose owner this process may not see.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Like [`Owners::of`], for a stream of events. Scans again, at a limited rate, if the owner is unknown.
    /// Remembers the owner of a closed socket for a while, because the event of a close comes after the
    /// socket is gone.
    pub fn of_event(&mut self, connection: &Connection) -> Result<Option<Process>, SystemError> {
        if self.of(connection).is_none() && self.may_scan() {
            self.rescan()?;
        }
        Ok(self.of(connection))
    }

    /// Whether a scan is due: scans take a twentieth of the time at most, and start once a second at most.
    fn may_scan(&self) -> bool {
        let pause = |scan: Scan| (scan.took * 20).max(Duration::from_secs(1));
        self.last_scan.is_none_or(|scan| scan.ended_at.elapsed() >= pause(scan))
    }

    fn rescan(&mut self) -> Result<(), SystemError> {
        let started_at = Instant::now();
        let mut by_inode: HashMap<u64, SocketPair> = HashMap::new();
        Diag::open()?.for_each(|socket| {
            if socket.inode != 0 && socket.remote.port() != 0 {
                by_inode.insert(socket.inode.into(), (socket.local, socket.remote));
            }
        })?;
        let wanted = by_inode.keys().copied().collect();
        let seen_at = Instant::now();
        self.by_pair.retain(|_, owner| owner.seen_at.elapsed() < MEMORY);
        let Found { owners, hidden } = processes(Path::new("/proc"), wanted);
        for (inode, process) in owners {
            self.by_pair.insert(by_inode[&inode], Owner { process, seen_at });
        }
        self.incomplete = hidden;
        self.last_scan = Some(Scan { ended_at: Instant::now(), took: started_at.elapsed() });
        Ok(())
    }
}

/// What a scan of `/proc` finds.
#[derive(Default)]
struct Found {
    /// By the inode of the socket.
    owners: Vec<(u64, Process)>,
    /// Whether a socket has no owner in sight, and there are processes out of sight.
    hidden: bool,
}

/// Owners of the sockets with these inodes. Several processes may hold a socket; the one with the lowest
/// number owns it. Processes that this process may not inspect are left out.
fn processes(proc: &Path, mut wanted: HashSet<u64>) -> Found {
    let mut found = Found::default();
    let mut out_of_sight = !proc.join("1").exists() || !is_initial_pid_namespace(proc);
    // In ascending order, as the kernel lists them, and one at a time: each holds a file descriptor.
    for process in process::all_processes_with_root(proc).into_iter().flatten().flatten() {
        let descriptors = process.fd();
        out_of_sight |= matches!(descriptors, Err(ProcError::PermissionDenied(_)));
        let inodes =
            descriptors.into_iter().flatten().flatten().filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            });
        let mut described = None;
        for inode in inodes.filter(|inode| wanted.remove(inode)) {
            let process = described.get_or_insert_with(|| describe(&process));
            found.owners.push((inode, process.clone()));
        }
        if wanted.is_empty() {
            break;
        }
    }
    found.hidden = out_of_sight && !wanted.is_empty();
    found
}

/// Whether `/proc` shows the processes of every PID namespace.
fn is_initial_pid_namespace(proc: &Path) -> bool {
    // PROC_PID_INIT_INO in include/linux/proc_ns.h.
    fs::metadata(proc.join("self/ns/pid")).is_ok_and(|namespace| namespace.ino() == 0xeffffffc)
}

fn describe(process: &process::Process) -> Process {
    let cgroups = process.cgroups().map_or_else(|_| Vec::new(), |cgroups| cgroups.0);
    Process {
        pid: process.pid().unsigned_abs(),
        comm: process.stat().map_or_else(|_| String::new(), |stat| stat.comm),
        unit: unit(&cgroups),
    }
}

/// System unit of a process, as `sd_pid_get_unit` finds it: in the path of its cgroup, the first part below
/// the slices. The cgroup is that of the unified hierarchy, or of systemd's own hierarchy where the unified
/// one is not used.
fn unit(cgroups: &[ProcessCGroup]) -> Option<String> {
    let systemd = |cgroup: &&ProcessCGroup| match cgroup.controllers.as_slice() {
        [] => true,
        [controller] => controller == "name=systemd",
        _ => false,
    };
    let path = &cgroups.iter().find(systemd)?.pathname;
    let unit = path.split('/').find(|part| !part.is_empty() && !part.ends_with(".slice"))?;
    UNITS.iter().any(|suffix| unit.ends_with(suffix)).then(|| unit.to_owned())
}

/// Suffixes of units that have processes.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
/// How long the owner of a closed socket is remembered: the close is reported at the end of TIME-WAIT.
const MEMORY: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests {
    use procfs::{FromBufRead as _, ProcessCGroups};

    use super::*;

    #[test]
    fn the_unit_is_the_first_part_below_the_slices() {
        let cases = [
            ("0::/system.slice/nginx.service", Some("nginx.service")),
            (
                "0::/system.slice/system-postgresql.slice/postgresql@15-main.service",
                Some("postgresql@15-main.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
                Some("user@1000.service"),
            ),
            ("0::/user.slice/user-0.slice/session-3.scope", Some("session-3.scope")),
            ("12:pids:/other\n1:name=systemd:/system.slice/cron.service\n", Some("cron.service")),
            ("0::/init.scope", Some("init.scope")),
            ("0::/", None),
            ("0::/../../kubepods/burstable/pod1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let cgroups = ProcessCGroups::from_buf_read(text.as_bytes()).expect("cgroups");
            assert_eq!(unit(&cgroups.0).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn this_process_owns_its_sockets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
        let client =
            std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connecting");
        let pair = (client.local_addr().expect("an address"), client.peer_addr().expect("an address"));
        let owners = Owners::scan().expect("asking the kernel");
        let owner = owners.by_pair.get(&pair).expect("our own socket");
        assert_eq!(owner.process.pid, std::process::id());
        assert!(!owner.process.comm.is_empty() && !owner.process.comm.contains('\n'));
        drop(client);
    }

    #[test]
    fn a_missing_proc_has_no_processes() {
        let Found { owners, hidden } = processes(Path::new("/nowhere"), HashSet::from([1]));
        assert!(owners.is_empty() && hidden);
        assert!(!processes(Path::new("/nowhere"), HashSet::new()).hidden, "no socket lacks its owner");
    }
}
