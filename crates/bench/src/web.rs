//! nginx on one host, wrk on the other.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::background::BackgroundProgram;
use crate::report::Series;
use crate::size::Size;
use crate::worlds::{NOTHING, World};

pub(crate) fn measure(worlds: &[World], size: &Size) -> Result<Value> {
    let folder = Folder::new()?;
    let servers = worlds.iter().map(|world| world.lab.server.run(|| folder.nginx(world.name))?);
    let servers = servers.collect::<Result<Vec<BackgroundProgram>>>()?;
    let mut time = Series::new("nginx and wrk, 64 persistent connections, time of each request");
    let mut late =
        Series::new("nginx and wrk, 64 persistent connections, 99th percentile of a request's time");
    for _ in 0..size.long_rounds {
        for world in worlds {
            let (load, _) = world.watched(|| world.lab.client.run(|| wrk(size.wrk))?)?;
            time.add(world.name, load.ns_per_request);
            late.add(world.name, load.p99_ns);
        }
    }
    drop(servers);
    Ok(json!({
        "title": "nginx and wrk", "time": time.print(NOTHING, None),
        "p99": late.print(NOTHING, None),
    }))
}

struct Load {
    ns_per_request: f64,
    p99_ns: f64,
}

fn wrk(seconds: u32) -> Result<Load> {
    let seconds = format!("{seconds}s");
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", "64", "-d", &seconds, "--latency", "http://10.9.0.2/"])
        .output()
        .context("starting wrk (Debian: wrk)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && !text.contains("Non-2xx"), "wrk: {text}");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name} in what wrk says: {text}"))
    };
    let rate: f64 = value("Requests/sec:")?.parse()?;
    let late = value("99%")?;
    let (number, unit_ns) = [("us", 1e3), ("ms", 1e6), ("s", 1e9)]
        .into_iter()
        .find_map(|(unit, ns)| Some((late.strip_suffix(unit)?, ns)))
        .with_context(|| format!("the unit of {late}"))?;
    Ok(Load { ns_per_request: 1e9 / rate, p99_ns: number.parse::<f64>()? * unit_ns })
}

/// nginx's files, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let folder = std::env::temp_dir().join(format!("finwait-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).context("making a folder for nginx")?;
        Ok(Folder(folder))
    }

    fn nginx(&self, name: &str) -> Result<BackgroundProgram> {
        let folder = self.0.join(name.replace(' ', "-"));
        fs::create_dir_all(&folder)?;
        let path = folder.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {path}/{what}; "))
            .concat();
        let configuration = format!(
            "daemon off; user root; worker_processes 1; pid {path}/pid; error_log /dev/null;
             events {{ worker_connections 1024; }}
             http {{ access_log off; keepalive_requests 1000000000; {temporary}
             server {{ listen 80; location / {{ return 200 \"small\\n\"; }} }} }}"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        let nginx = BackgroundProgram::start(&["nginx", "-c", file.to_str().context("a path")?])?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect("10.9.0.2:80").is_err() {
            ensure!(Instant::now() < deadline, "nginx (Debian: nginx) has not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
