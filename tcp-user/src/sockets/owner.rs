//! Who has a socket: from its inode to the process that holds it (`/proc/PID/fd`) and the unit that this belongs to.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Diag;
use crate::system_error::SystemError;
use crate::view::{Connection, Process, SocketPair};

/// The processes that own TCP sockets of this namespace, as far as this process may see them.
#[derive(Debug, Default)]
pub struct Owners {
    by_ends: HashMap<SocketPair, Known>,
    scanned: Option<Scan>,
}

#[derive(Debug)]
struct Known {
    process: Process,
    seen_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Scan {
    ended_at: Instant,
    took: Duration,
}

impl Owners {
    /// One scan of the kernel's sockets and of `/proc`.
    pub fn scan() -> Result<Owners, SystemError> {
        let mut owners = Owners::default();
        owners.scan_again()?;
        Ok(owners)
    }

    /// Who has the local end; of two, the client's.
    pub fn of(&self, connection: &Connection) -> Option<Process> {
        self.of_ends(connection.ends().map(|end| (end.socket_address(), end.local)))
    }

    /// The same of the ends alone, the client's first, and whether they are on this host.
    pub fn of_ends(&self, ends: [(SocketAddr, bool); 2]) -> Option<Process> {
        let [(client, client_local), (server, server_local)] = ends;
        let of = |local: bool, ends: SocketPair| self.by_ends.get(&ends).filter(|_| local);
        of(client_local, (client, server)).or_else(|| of(server_local, (server, client))).map(Known::process)
    }

    /// Whether it knows of nobody.
    pub fn is_empty(&self) -> bool {
        self.by_ends.is_empty()
    }

    /// The same for a stream: an owner that is not known yet is looked for, and what was known of a socket that has
    /// gone is kept for a while, since the news of its end comes later.
    pub fn of_event(&mut self, connection: &Connection) -> Result<Option<Process>, SystemError> {
        if self.of(connection).is_none() && self.may_scan() {
            self.scan_again()?;
        }
        Ok(self.of(connection))
    }

    /// Not more than a twentieth of the time, and not more than once a second.
    fn may_scan(&self) -> bool {
        let pause = |scan: Scan| (scan.took * 20).max(Duration::from_secs(1));
        self.scanned.is_none_or(|scan| scan.ended_at.elapsed() >= pause(scan))
    }

    fn scan_again(&mut self) -> Result<(), SystemError> {
        let begun = Instant::now();
        let mut by_inode: HashMap<u32, SocketPair> = HashMap::new();
        Diag::open()?.for_each(|socket| {
            if socket.inode != 0 && socket.remote.port() != 0 {
                by_inode.insert(socket.inode, (socket.local, socket.remote));
            }
        })?;
        let wanted = by_inode.keys().copied().collect();
        let seen_at = Instant::now();
        self.by_ends.retain(|_, known| known.seen_at.elapsed() < MEMORY);
        for (inode, process) in processes(Path::new("/proc"), &wanted) {
            self.by_ends.insert(by_inode[&inode], Known { process, seen_at });
        }
        self.scanned = Some(Scan { ended_at: Instant::now(), took: begun.elapsed() });
        Ok(())
    }
}

impl Known {
    fn process(&self) -> Process {
        self.process.clone()
    }
}

/// The process with the lowest number of those that hold each socket. What may not be read is left out.
fn processes(proc: &Path, wanted: &HashSet<u32>) -> Vec<(u32, Process)> {
    let mut pids: Vec<u32> = names(proc).filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let (mut found, mut rest) = (Vec::new(), wanted.clone());
    for pid in pids {
        let folder = proc.join(pid.to_string());
        let mut process = None;
        for inode in sockets(&folder).filter(|inode| rest.remove(inode)) {
            let process = process.get_or_insert_with(|| describe(pid, &folder));
            found.push((inode, process.clone()));
        }
        if rest.is_empty() {
            break;
        }
    }
    found
}

fn describe(pid: u32, folder: &Path) -> Process {
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_default();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Process {
        pid,
        comm: text(read("comm")).trim_end_matches('\n').to_owned(),
        unit: unit(&text(read("cgroup"))),
    }
}

/// Inodes of a process' sockets: its descriptors are links to `socket:[INODE]`.
fn sockets(folder: &Path) -> impl Iterator<Item = u32> {
    let descriptors: PathBuf = folder.join("fd");
    names(&descriptors).collect::<Vec<_>>().into_iter().filter_map(move |name| {
        let target = fs::read_link(descriptors.join(name)).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// The system unit of a process (`sd_pid_get_unit`): in its cgroup, the first part below the slices. The cgroup is in the
/// line of the unified hierarchy, or of systemd's own where that is not used.
fn unit(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.strip_prefix(':').or_else(|| rest.strip_prefix("name=systemd:"))
    })?;
    let unit = path.split('/').find(|part| !part.is_empty() && !part.ends_with(".slice"))?;
    UNITS.iter().any(|suffix| unit.ends_with(suffix)).then(|| unit.to_owned())
}

/// Units that have processes.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
/// The news of a close comes at the end of TIME-WAIT.
const MEMORY: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_what_is_below_the_slices() {
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
        for (cgroup, expected) in cases {
            assert_eq!(unit(cgroup).as_deref(), expected, "{cgroup}");
        }
    }

    #[test]
    fn this_process_has_its_sockets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
        let client =
            std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connecting");
        let ends = (client.local_addr().expect("an end"), client.peer_addr().expect("an end"));
        let owners = Owners::scan().expect("asking the kernel");
        let known = owners.by_ends.get(&ends).expect("our own socket");
        assert_eq!(known.process.pid, std::process::id());
        assert!(!known.process.comm.is_empty() && !known.process.comm.contains('\n'));
        drop(client);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert!(processes(Path::new("/nowhere"), &HashSet::from([1])).is_empty());
    }
}
