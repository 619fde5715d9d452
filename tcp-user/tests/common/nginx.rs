//! Debian's nginx on a host, with a configuration of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use finwait::lab::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Daemon, oracle, until};

/// nginx with a master and two workers on port 80 of IPv4 and IPv6, and on port 81 of IPv4. Dropping it stops the processes.
pub struct Nginx {
    master: Daemon,
}

impl Nginx {
    /// Starts nginx and waits until it listens. It keeps its files in `folder`.
    pub fn start(host: &impl AsRef<Namespace>, folder: &Path) -> Nginx {
        fs::create_dir_all(folder.join("upload")).expect("making nginx's folder");
        fs::write(folder.join("large"), vec![b'x'; LARGE]).expect("writing a file to serve");
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, configured(folder)).expect("writing nginx's configuration");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&configuration);
        let nginx = Nginx { master: Daemon::start(host, &mut command) };
        until("nginx listens", || oracle::listeners(host, 80) == 2);
        until("nginx has its workers", || nginx.workers().len() == 2);
        nginx
    }

    /// Stops the workers until the guard is dropped. Meanwhile only the kernel answers.
    pub fn freeze(&self) -> Frozen {
        let frozen = Frozen(self.workers());
        for &worker in &frozen.0 {
            kill(worker, Signal::SIGSTOP).expect("stopping a worker");
        }
        for &worker in &frozen.0 {
            until("a worker has stopped", || process_state(worker) == Some('T'));
        }
        frozen
    }

    fn workers(&self) -> Vec<Pid> {
        let master = self.master.0.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let pids = children.unwrap_or_default();
        pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a pid"))).collect()
    }
}

/// A guard that keeps the workers stopped.
pub struct Frozen(Vec<Pid>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for &worker in &self.0 {
            let _ = kill(worker, Signal::SIGCONT);
        }
    }
}

fn process_state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn configured(folder: &Path) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("    {what}_temp_path {folder}/{what};\n"))
        .concat();
    format!(
        "daemon off;
user root;
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
{temporary}    server {{
        listen 80;
        listen [::]:80;
        listen 81;
        root {folder};
        client_max_body_size 0;
        location = /small {{
            return 200 \"small\\n\";
        }}
        location /upload/ {{
            dav_methods PUT;
        }}
    }}
}}
"
    )
}

/// Size of `/large` in bytes.
pub const LARGE: usize = 8 << 20;
